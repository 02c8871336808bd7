//! Sizes and rates on the command line.

/// Largest simulated image in bytes: 20,000 pixels squared.
pub(super) const IMAGE_MAX_BYTES: u64 = 400_000_000;

/// `2.4MB`, `100 kB`, `4096`.
pub(super) fn image(text: &str) -> Result<u64, String> {
    match ppu_config::parse_bytes(text) {
        Some(bytes) if (1..=IMAGE_MAX_BYTES).contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!("1 byte to {} MB", IMAGE_MAX_BYTES / 1_000_000)),
        None => Err("write a size such as 2.4MB or 100kB".into()),
    }
}

/// Files per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e6).contains(&rate) => Ok(rate),
        _ => Err("write a number of files per second, 0 = as fast as possible".into()),
    }
}
