//! The configuration files of ppu-uringd: `detector.toml` and `ppu.toml`.
//!
//! [`Detector::load`] and [`Ppu::load`] read a file, check it against the schema and against itself, and
//! report *every* problem at once, each as `FILE:LINE: KEY: reason, what to do`. Nothing here looks at the
//! machine (is the ramdisk there, is the storage mounted): the same file gives the same answer everywhere.
//!
//! The shipped `detector.toml` and `ppu.toml` beside this crate explain every key; a test holds them to the schema.

mod detector;
mod import;
mod paths;
mod ppu;
mod problem;
mod section;
#[cfg(test)]
mod shipped;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

pub use detector::{Detector, Release};
pub use import::{Finding, Imported, OldText, Verdict, import};
pub use ppu::{DetectorLink, Direct, Hook, HookOn, Interfaces, Ppu, Storage, StorageKind, Verify};
pub use problem::{ConfigError, Problem};
pub use value::{Engine, HostPort, Level, Log, parse_bytes};

use problem::Report;
use section::Section;

/// The TCP port on which a detector server listens (SPEC 1.1).
pub const DETECTOR_PORT: u16 = 49371;
/// A file longer than this is no configuration.
pub const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// The shipped example of a detector's configuration, every key explained.
pub const DETECTOR_EXAMPLE: &str = include_str!("../detector.toml");
/// The shipped example of a PPU's configuration, every key explained.
pub const PPU_EXAMPLE: &str = include_str!("../ppu.toml");

/// A configuration that may be used, and what its owner should still hear.
#[derive(Debug, Clone)]
pub struct Checked<T> {
    /// Valid in itself.
    pub config: T,
    /// Legal but questionable; for people.
    pub warnings: Vec<Problem>,
}

/// Either role's configuration.
#[derive(Debug, Clone)]
pub enum AnyRole {
    /// `detector.toml`.
    Detector(Detector),
    /// `ppu.toml`.
    Ppu(Box<Ppu>),
}

/// Reads the file of either role; which one is seen from its keys.
///
/// # Errors
/// [`ConfigError`] lists every problem.
pub fn load_any(file: &Path) -> Result<Checked<AnyRole>, ConfigError> {
    let text = read(file)?;
    match role_of(&text) {
        Some(Role::Ppu) => Ppu::parse(&text, file)
            .map(|Checked { config, warnings }| Checked { config: AnyRole::Ppu(Box::new(config)), warnings }),
        _ => Detector::parse(&text, file)
            .map(|Checked { config, warnings }| Checked { config: AnyRole::Detector(config), warnings }),
    }
}

impl Detector {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigError`] lists every problem.
    pub fn load(file: &Path) -> Result<Checked<Self>, ConfigError> {
        Self::parse(&read(file)?, file)
    }

    /// Checks `text`; `file` is for the messages only.
    ///
    /// # Errors
    /// [`ConfigError`] lists every problem.
    pub fn parse(text: &str, file: &Path) -> Result<Checked<Self>, ConfigError> {
        parse(text, file, Role::Detector, detector::read)
    }
}

impl Ppu {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigError`] lists every problem.
    pub fn load(file: &Path) -> Result<Checked<Self>, ConfigError> {
        Self::parse(&read(file)?, file)
    }

    /// Checks `text`; `file` is for the messages only.
    ///
    /// # Errors
    /// [`ConfigError`] lists every problem.
    pub fn parse(text: &str, file: &Path) -> Result<Checked<Self>, ConfigError> {
        parse(text, file, Role::Ppu, ppu::read)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Detector,
    Ppu,
}

fn parse<T>(
    text: &str,
    file: &Path,
    role: Role,
    read: impl Fn(&mut Section<'_, '_>) -> T,
) -> Result<Checked<T>, ConfigError> {
    let report = Report::new(text, file);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        report.problem(at, "syntax", format!("{}; see https://toml.io", error.message()));
    }
    if errors.is_empty() {
        match (role_of(text), role) {
            (Some(Role::Ppu), Role::Detector) => report.problem(
                0,
                "role",
                "these are a PPU's keys; start it with `ppu-uringd ppu`, or give the detector's file",
            ),
            (Some(Role::Detector), Role::Ppu) => report.problem(
                0,
                "role",
                "these are a detector's keys; start it with `ppu-uringd detector`, or give the PPU's file",
            ),
            _ => {
                let mut section = Section::top(&report, table.get_ref());
                let config = read(&mut section);
                section.refuse_unknown();
                return report.finish(config);
            }
        }
    }
    report.refuse()
}

/// Which role's keys `text` has; `None` where nothing tells.
fn role_of(text: &str) -> Option<Role> {
    let (table, _) = DeTable::parse_recoverable(text);
    let has = |key: &str| table.get_ref().contains_key(key);
    if has("detector") || has("storage") {
        Some(Role::Ppu)
    } else if has("listen") || has("release") || has("release_above") || has("ignore") {
        Some(Role::Detector)
    } else if has("uid") || has("gid") || has("interfaces") {
        Some(Role::Ppu)
    } else {
        None
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { file: file.into(), source };
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(CONFIG_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > CONFIG_MAX_BYTES {
        return Err(ConfigError::one(file, 1, "file", "is longer than 1 MiB, so it is no configuration"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        ConfigError::one(file, line, "syntax", "is not UTF-8, save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs `parse` on a configuration with a mistake and gives back the message, without the file name.
    fn problems<T: std::fmt::Debug>(result: Result<Checked<T>, ConfigError>) -> Vec<String> {
        let text = result.unwrap_err().to_string();
        text.lines().map(|line| line.strip_prefix("x.toml:").unwrap_or(line).to_owned()).collect()
    }

    #[test]
    fn syntax_errors_carry_their_line() {
        let found = problems(Detector::parse("ramdisk = \"/r\"\nlisten = \n", Path::new("x.toml")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("2: syntax: "), "{found:?}");
    }

    #[test]
    fn a_file_of_the_other_role_is_named_once() {
        let found = problems(Detector::parse(PPU_EXAMPLE, Path::new("x.toml")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("ppu-uringd ppu"), "{found:?}");
        let found = problems(Ppu::parse(DETECTOR_EXAMPLE, Path::new("x.toml")));
        assert!(found[0].contains("ppu-uringd detector"), "{found:?}");
    }

    #[test]
    fn unreadable_and_undecodable_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        let missing = Detector::load(&file).unwrap_err().to_string();
        assert!(missing.contains("x.toml") && missing.contains("No such file"), "{missing}");
        std::fs::write(&file, b"# ok\nramdisk = \"/\xff\"\n").unwrap();
        let bytes = load_any(&file).unwrap_err().to_string();
        assert!(bytes.ends_with("x.toml:2: syntax: is not UTF-8, save the file as UTF-8"), "{bytes}");
        std::fs::write(&file, vec![b'#'; CONFIG_MAX_BYTES as usize + 1]).unwrap();
        assert!(load_any(&file).unwrap_err().to_string().contains("1 MiB"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("x.toml");
            std::fs::write(&file, &bytes).unwrap();
            let _ = load_any(&file);
        }

        /// Nearer to the schema: the example with a few bytes changed.
        #[test]
        fn damaged_examples_never_panic(
            ppu in any::<bool>(),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut bytes = if ppu { PPU_EXAMPLE } else { DETECTOR_EXAMPLE }.as_bytes().to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let text = String::from_utf8_lossy(&bytes);
            let _ = Ppu::parse(&text, Path::new("x.toml"));
            let _ = Detector::parse(&text, Path::new("x.toml"));
        }
    }
}
