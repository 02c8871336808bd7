//! What was measured, and which of it to choose.

use std::fmt::{Display, Write};
use std::time::Duration;

/// So near to the best one the cheaper way is chosen: measurements vary, and depth and threads cost.
const AS_GOOD: f64 = 0.95;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<W> {
    pub(super) way: W,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// A choice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Best<W> {
    pub(super) way: W,
}

impl<W> Row<W> {
    /// Bytes per second.
    pub(super) fn rate(&self) -> f64 {
        match self.took.as_secs_f64() {
            0.0 => 0.0,
            seconds => self.bytes as f64 / seconds,
        }
    }
}

/// The cheapest way that is as good as the best one.
pub(super) fn best<W: Clone>(rows: &[Row<W>], cost: impl Fn(&W) -> usize) -> Option<Best<W>> {
    let top = rows.iter().map(Row::rate).fold(0.0, f64::max);
    let good = rows.iter().filter(|row| top > 0.0 && row.rate() >= AS_GOOD * top);
    let chosen = good.min_by(|a, b| cost(&a.way).cmp(&cost(&b.way)).then(b.rate().total_cmp(&a.rate())))?;
    Some(Best { way: chosen.way.clone() })
}

pub(super) fn print<W: Display>(title: &str, rows: &[Row<W>]) -> String {
    let width = rows.iter().map(|row| row.way.to_string().len()).max().unwrap_or(0).max(title.len());
    let mut text = format!("\n{title:<width$}  {:>9}  {:>9}\n", "MB/S", "FILES/S");
    for row in rows {
        let files = row.files as f64 / row.took.as_secs_f64().max(1e-9);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<width$}  {:>9.0}  {files:>9.0}", row.way.to_string(), row.rate() / 1e6);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(way: usize, bytes: u64) -> Row<usize> {
        Row { way, files: bytes, bytes, took: Duration::from_secs(2) }
    }

    #[test]
    fn the_cheapest_that_is_as_good_as_the_best() {
        let best = |rates: &[(usize, u64)]| {
            let rows: Vec<_> = rates.iter().map(|&(way, rate)| row(way, rate)).collect();
            best(&rows, |way| *way).map(|best| best.way)
        };
        assert_eq!(best(&[(1, 50), (2, 94), (4, 96), (8, 100), (16, 99)]), Some(4));
        assert_eq!(best(&[(1, 100), (2, 100)]), Some(1));
        assert_eq!(best(&[(1, 0), (2, 0)]), None, "nothing was moved");
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn rates_are_per_second() {
        let text = print("DEPTH", &[row(8, 30_000_000)]);
        assert_eq!(text, "\nDEPTH       MB/S    FILES/S\n8             15   15000000\n");
    }
}
