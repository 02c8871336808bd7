//! Numbers for people.

/// `2.4 MB`: powers of ten, as disks and networks are sold.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64)
}

/// `240 MB/s`.
pub fn bytes_per_s(rate: f64) -> String {
    format!("{}/s", scaled(rate))
}

/// `1.2 s`, `12 min`, `3 h 05 min`, `4 d`: since, or for how long.
pub fn duration(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `0.85 ms`, `1.2 s`: how long files take.
pub fn latency(microseconds: u64) -> String {
    match microseconds {
        0..100_000 => format!("{} ms", significant(microseconds as f64 / 1e3)),
        _ => format!("{} s", significant(microseconds as f64 / 1e6)),
    }
}

/// `+0.3 ms`, `-1.5 s`.
pub fn offset(milliseconds: f64) -> String {
    match milliseconds.abs() {
        // Neither ahead nor behind.
        ..0.05 => "0.0 ms".to_owned(),
        ..1000.0 => format!("{milliseconds:+.1} ms"),
        _ => format!("{:+.1} s", milliseconds / 1e3),
    }
}

/// `3 files`, `1 file`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = match (number, noun.strip_suffix('y')) {
        (1, _) => noun.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{noun}s"),
    };
    format!("{number} {plural}")
}

/// What came from elsewhere, on one line and without power over a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn scaled(bytes: f64) -> String {
    let mut value = bytes;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    format!("{} {unit}", significant(value))
}

/// Three digits, without a fraction of zero.
fn significant(value: f64) -> String {
    let text = match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (2_400_000, "2.4 MB"),
            (999_499, "999 kB"),
            (999_500, "1 MB"),
            (64_123_000_000, "64.1 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes_per_s(240e6), "240 MB/s");
        for (milliseconds, text) in [
            (-5, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (11_100_000, "3 h 05 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
        assert_eq!(latency(850), "0.85 ms");
        assert_eq!(latency(1_250_000), "1.25 s");
        assert_eq!(offset(0.31), "+0.3 ms");
        assert_eq!(offset(-0.04), "0.0 ms");
        assert_eq!(offset(-1500.0), "-1.5 s");
        assert_eq!([count(1, "copy"), count(2, "copy"), count(0, "file")], ["1 copy", "2 copies", "0 files"]);
        assert_eq!(one_line("a\x1b[2Jb\n"), "a [2Jb ");
    }
}
