//! Values of the old files, and how they are written in TOML. An error is the reason, for people.

use crate::value::parse_bytes;

/// A TOML string.
pub(super) fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `yes`, `no` and their like.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A whole number.
pub(super) fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

/// A fill state: a number above 1 is percent (SPEC 5.7).
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let refuse = || format!("{text:?} is no fill state");
    let (number, percent) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), true),
        None => (text, false),
    };
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let ratio = if percent || number > 1.0 { number / 100.0 } else { number };
    // To the thousandth, so that 80 is 0.8.
    let ratio = (ratio * 1000.0).round() / 1000.0;
    if (0.001..=1.0).contains(&ratio) { Ok(ratio) } else { Err(refuse()) }
}

/// A pause in milliseconds, and whether the unit was a guess: a number with a fraction was surely seconds.
pub(super) fn pause(text: &str) -> Result<(u64, bool), String> {
    let refuse = || format!("{text:?} is no time");
    let lower = text.to_ascii_lowercase();
    let (number, factor, guessed) = if let Some(number) = lower.strip_suffix("ms") {
        (number, 1.0, false)
    } else if let Some(number) = lower.strip_suffix('s') {
        (number, 1000.0, false)
    } else if lower.contains('.') {
        (&*lower, 1000.0, true)
    } else {
        (&*lower, 1.0, false)
    };
    let number: f64 = number.trim().parse().map_err(|_| refuse())?;
    let milliseconds = (number * factor).round();
    if (0.0..=3_600_000.0).contains(&milliseconds) {
        Ok((milliseconds as u64, guessed))
    } else {
        Err(refuse())
    }
}

/// The size of a log file.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).or_else(|| parse_bytes(&text.to_ascii_uppercase()));
    let bytes = bytes.or_else(|| parse_bytes(&format!("{}B", text.to_ascii_uppercase())));
    bytes.ok_or_else(|| format!("{text:?} is no size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(ratio("80"), Ok(0.8));
        assert_eq!(ratio("0.8"), Ok(0.8));
        assert_eq!(ratio("1"), Ok(1.0));
        assert_eq!(ratio("85 %"), Ok(0.85));
        assert_eq!(ratio("0.5%"), Ok(0.005));
        assert!(["101", "-1", "0", "full", "NaN", "inf"].iter().all(|text| ratio(text).is_err()));
        assert_eq!(pause("10"), Ok((10, false)));
        assert_eq!(pause("0.5"), Ok((500, true)));
        assert_eq!(pause("10 ms"), Ok((10, false)));
        assert_eq!(pause("0.5s"), Ok((500, false)));
        assert!(["", "-1", "soon", "1e300", "NaN"].iter().all(|text| pause(text).is_err()));
        assert_eq!(size("10485760"), Ok(10_485_760));
        assert_eq!(size("10M"), Ok(10_000_000));
        assert_eq!(size("10 mb"), Ok(10_000_000));
        assert!(size("big").is_err());
        assert_eq!((flag("Yes"), flag("0")), (Ok(true), Ok(false)));
        assert!(flag("maybe").is_err());
    }

    #[test]
    fn strings_are_read_again_as_they_were() {
        for text in ["plain", "with \"quotes\" and \\", "'", "ü ' \"\"\" '''", ""] {
            let read: toml::Table = format!("a = {}", string(text)).parse().unwrap();
            assert_eq!(read["a"].as_str(), Some(text));
        }
    }
}
