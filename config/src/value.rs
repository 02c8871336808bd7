//! Values that both roles know, and how each is read. A parser's error is the reason and what to do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};

use toml::de::DeValue;

use crate::section::{Section, a};

/// Longest `id`, in bytes: it stands in tables and log lines.
const ID_MAX_BYTES: usize = 64;
/// Longest path of a configuration, in bytes (PATH_MAX, with room for what is appended).
const PATH_MAX_BYTES: usize = 3000;

/// Who moves the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring where the host allows it, else system calls.
    #[default]
    Auto,
    /// io_uring, or refuse to start.
    Uring,
    /// splice(2) and threads.
    Syscall,
}

/// How much is logged: this level and all above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something needs attention.
    Warn,
    /// What happens, a few lines a minute.
    #[default]
    Info,
    /// Every file.
    Debug,
    /// Every step.
    Trace,
}

impl Level {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[log]` (SPEC 5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `None`: standard error, which systemd's journal collects.
    pub file: Option<PathBuf>,
    /// What is logged.
    pub level: Level,
    /// Bytes; a longer file is rotated.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_number: u32,
}

impl Log {
    pub(crate) fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            file: section.optional("file", absolute_path).value,
            level: section.or("level", Level::default(), one_of(LEVELS)).take(),
            max_size: section.or("max_size", 10_000_000, byte_size(10_000..=1_000_000_000_000)).take(),
            max_number: section.or("max_number", 5, integer(1..=1000)).take(),
        }
    }
}

/// A TCP address whose host may be a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HostPort {
    /// Host name, IPv4 or IPv6 address (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// Surely the same machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

pub(crate) const ENGINES: &[(&str, Engine)] =
    &[("auto", Engine::Auto), ("uring", Engine::Uring), ("syscall", Engine::Syscall)];
const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

pub(crate) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("is {}, write a string in \"quotes\"", a(value))),
    }
}

pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("is {}, write true or false without quotes", a(value)))
}

/// One of the words of `words`.
pub(crate) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let word = text(value)?;
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(known, _)| format!("\"{known}\"")).collect();
            format!("{word:?} is not known, write one of {}", known.join(", "))
        })
    }
}

/// A whole number in `range`.
pub(crate) fn integer<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let (least, most) = (range.start(), range.end());
        let Some(digits) = value.as_integer() else {
            return Err(format!(
                "is {}, write a whole number from {least} to {most} without quotes",
                a(value)
            ));
        };
        i64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{} is out of range, write {least} to {most}", digits.as_str()))
    }
}

/// A fill ratio, 0..=1.
pub(crate) fn ratio(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        _ => return Err(format!("is {}, write a ratio from 0.0 to 1.0 without quotes", a(value))),
    };
    match number {
        Some(number) if (0.0..=1.0).contains(&number) => Ok(number),
        Some(number) if number > 1.0 && number <= 100.0 => {
            Err(format!("{number} is not a ratio, write {} for {number} %", number / 100.0))
        }
        _ => Err("is not a ratio, write 0.0 to 1.0".into()),
    }
}

/// Bytes, as `"10 MB"` or a whole number.
pub(crate) fn byte_size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let written = match value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::String(text) => text.as_ref(),
            _ => return Err(format!("is {}, write a size such as \"10 MB\"", a(value))),
        };
        let bytes = parse_bytes(written)
            .ok_or_else(|| format!("{written:?} is not a size, write one such as \"10 MB\" or \"64 KiB\""))?;
        if range.contains(&bytes) {
            Ok(bytes)
        } else {
            Err(format!("{bytes} bytes is out of range, write {} to {} bytes", range.start(), range.end()))
        }
    }
}

/// `10 MB`, `64 KiB`, `1.5GB` or plain bytes; `None` where it is no size.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
        }
    }
}

/// A name for people and for `ID:SOURCE:TARGET`.
pub(crate) fn id(value: &DeValue<'_>) -> Result<String, String> {
    let id = text(value)?;
    if id.is_empty() {
        Err("is empty, give a short name".into())
    } else if id.len() > ID_MAX_BYTES {
        Err(format!("is longer than {ID_MAX_BYTES} bytes, give a short name"))
    } else if id.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':' || c == '/') {
        Err(format!("{id:?} has a space, ':', '/' or a control character, use letters, digits, '-' and '_'"))
    } else {
        Ok(id)
    }
}

/// An absolute path without `..` and without `.`.
pub(crate) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let written = marked_path(value)?;
    if written.as_os_str().as_encoded_bytes().split(|&byte| byte == b'/').any(|name| name == b".") {
        return Err("has a '.' in it, write the plain path".into());
    }
    // Collecting the components drops doubled and trailing slashes.
    Ok(written.components().collect())
}

/// An absolute path without `..`, as it is written: a `/./` in it has a meaning (SPEC 1.4).
pub(crate) fn marked_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let written = text(value)?;
    let path = PathBuf::from(&written);
    if written.is_empty() {
        Err("is empty, write an absolute path".into())
    } else if !path.is_absolute() {
        Err(format!("{written:?} is not absolute, start it with '/'"))
    } else if written.contains('\0') {
        Err("has a NUL byte in it, remove it".into())
    } else if written.len() > PATH_MAX_BYTES {
        Err(format!("is longer than {PATH_MAX_BYTES} bytes, use a shorter path"))
    } else if path.components().any(|c| c == Component::ParentDir) {
        Err("has a '..' in it, write the plain path".into())
    } else {
        Ok(path)
    }
}

/// Absent, or `"off"`, or what `parse` takes.
pub(crate) fn or_off<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Option<T>, String> {
    move |value| if value.as_str() == Some("off") { Ok(None) } else { parse(value).map(Some) }
}

/// An address to listen on.
pub(crate) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let written = text(value)?;
    written.parse().map_err(|_| {
        format!("{written:?} is not an address, write one such as \"127.0.0.1:47199\" or \"[::]:47199\"")
    })
}

/// An address to connect to; without a port, `default_port`.
pub(crate) fn host_port(default_port: u16) -> impl Fn(&DeValue<'_>) -> Result<HostPort, String> {
    move |value| {
        let written = text(value)?;
        parse_host_port(&written, default_port).ok_or_else(|| {
            format!("{written:?} is not HOST:PORT, write one such as \"10.10.10.11:{default_port}\"")
        })
    }
}

fn parse_host_port(written: &str, default_port: u16) -> Option<HostPort> {
    let (host, port) = if let Some(rest) = written.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
        (host, port)
    } else {
        match written.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (written, None),
        }
    };
    let port = match port {
        None => default_port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|&p| p != 0)?
        }
        Some(_) => return None,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    (!host.is_empty() && host.len() <= 255 && host.chars().all(plain))
        .then(|| HostPort { host: host.to_owned(), port })
}

/// A list, each item read by `parse`.
pub(crate) fn list<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, String> {
    move |value| {
        let Some(items) = value.as_array() else {
            return Err(format!("is {}, write a list such as [\"...\", \"...\"]", a(value)));
        };
        items.iter().map(|item| parse(item.get_ref()).map_err(|reason| format!("an item {reason}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("10 MB", Some(10_000_000)),
            ("10MB", Some(10_000_000)),
            ("64 KiB", Some(65_536)),
            ("1.5 GB", Some(1_500_000_000)),
            ("4096", Some(4096)),
            ("10 Mb", None),
            ("MB", None),
            ("-1 MB", None),
            ("1.2.3 MB", None),
            ("99999999999 TB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn addresses() {
        let cases = [
            ("10.10.10.11:49371", Some("10.10.10.11:49371")),
            ("det1.beamline", Some("det1.beamline:49371")),
            ("[fe80::1%eth0]:1", None),
            ("[::1]:1", Some("[::1]:1")),
            ("[::1]", Some("[::1]:49371")),
            ("::1", None),
            ("det1:0", None),
            ("det1:+1", None),
            ("det1:70000", None),
            ("det 1:1", None),
            ("", None),
            (":1", None),
        ];
        for (text, shown) in cases {
            assert_eq!(parse_host_port(text, 49371).map(|a| a.to_string()).as_deref(), shown, "{text}");
        }
        assert!(parse_host_port("127.0.0.2", 1).is_some_and(|a| a.is_loopback()));
        assert!(parse_host_port("localhost", 1).is_some_and(|a| a.is_loopback()));
        assert!(parse_host_port("10.0.0.1", 1).is_some_and(|a| !a.is_loopback()));
    }
}
