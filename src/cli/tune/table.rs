//! What was measured, and which of it to choose.

use std::fmt::{Display, Write};
use std::time::Duration;

use serde::Serialize;

/// So near to the best one the cheaper way is chosen: measurements vary, and depth and threads cost.
const AS_GOOD: f64 = 0.95;

/// Each way is measured so often.
pub(super) const ROUNDS: usize = 3;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<W> {
    pub(super) way: W,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// The same for scripts.
#[derive(Debug, Serialize)]
pub(super) struct Shown<W> {
    #[serde(flatten)]
    way: W,
    files: u64,
    bytes: u64,
    seconds: f64,
    bytes_per_s: f64,
}

impl<W: Copy> Row<W> {
    pub(super) fn shown(&self) -> Shown<W> {
        let Self { way, files, bytes, took } = self;
        Shown {
            way: *way,
            files: *files,
            bytes: *bytes,
            seconds: took.as_secs_f64(),
            bytes_per_s: self.rate(),
        }
    }
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

/// Measures every way once in each round, there and back again, so that what changes meanwhile (heat, other programs, a disk's cache)
/// does no way wrong; the median of each.
pub(super) fn rounds<W: Copy, E>(
    ways: &[W],
    mut measure: impl FnMut(W) -> Result<Row<W>, E>,
) -> Result<Vec<Row<W>>, E> {
    let mut runs: Vec<Vec<Row<W>>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        let there = 0..ways.len();
        let order: Vec<usize> = if round % 2 == 0 { there.collect() } else { there.rev().collect() };
        for at in order {
            runs[at].push(measure(ways[at])?);
        }
    }
    let median = |mut runs: Vec<Row<W>>| {
        runs.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
        runs.swap_remove(runs.len() / 2)
    };
    Ok(runs.into_iter().map(median).collect())
}

/// What there is now, if that is as good as the best; else the cheapest way that is.
pub(super) fn best<W: Copy>(
    rows: &[Row<W>],
    cost: impl Fn(&W) -> usize,
    is_now: impl Fn(&W) -> bool,
) -> Option<W> {
    let top = rows.iter().map(Row::rate).fold(0.0, f64::max);
    let good: Vec<&Row<W>> = rows.iter().filter(|row| top > 0.0 && row.rate() >= AS_GOOD * top).collect();
    let now = good.iter().find(|row| is_now(&row.way));
    let cheapest = good.iter().min_by_key(|row| cost(&row.way));
    now.or(cheapest).map(|row| row.way)
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
    fn what_there_is_or_the_cheapest_that_is_as_good_as_the_best() {
        let best = |now: usize, rates: &[(usize, u64)]| {
            let rows: Vec<_> = rates.iter().map(|&(way, rate)| row(way, rate)).collect();
            best(&rows, |way| *way, |way| *way == now)
        };
        let rates = [(1, 50), (2, 94), (4, 96), (8, 100), (16, 99)];
        assert_eq!(best(1, &rates), Some(4), "what there is is worse");
        assert_eq!(best(3, &rates), Some(4), "it was not measured");
        assert_eq!(best(16, &rates), Some(16), "it is as good");
        assert_eq!(best(9, &[(1, 100), (2, 100)]), Some(1));
        assert_eq!(best(1, &[(1, 0), (2, 0)]), None, "nothing was moved");
        assert_eq!(best(1, &[]), None);
    }

    #[test]
    fn each_way_in_turn_and_its_median() {
        let mut order = Vec::new();
        let mut run = 0;
        let rows = rounds(&[1, 2], |way| {
            order.push(way);
            run += 1;
            Ok::<_, ()>(row(way, if way == 1 { 100 * run } else { 7 }))
        });
        assert_eq!(order, [1, 2, 2, 1, 1, 2]);
        assert_eq!(rows, Ok(vec![row(1, 400), row(2, 7)]));
        assert_eq!(rounds(&[1], |_| Err::<Row<usize>, _>("broken")), Err("broken"));
    }

    #[test]
    fn rates_are_per_second() {
        let text = print("DEPTH", &[row(8, 30_000_000)]);
        assert_eq!(text, "\nDEPTH       MB/S    FILES/S\n8             15   15000000\n");
    }
}
