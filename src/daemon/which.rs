//! What people mean by a storage, a shift and paths.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ppu_config::Ppu;

use crate::model::file_version::StorageIndex;
use crate::model::ledger::{Ledger, RetryPlace, Selection};
use crate::model::path::{RelPath, printable};
use crate::serve::control::Which;

/// Names and places that people may mean.
#[derive(Debug, Clone)]
pub(super) struct Known {
    ramdisk: Vec<u8>,
    /// Names and targets.
    storages: Vec<(String, Vec<u8>)>,
}

impl Known {
    pub(super) fn new(config: &Ppu) -> Self {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let storages = config.storages.iter().map(|storage| (storage.id.clone(), bytes(&storage.target)));
        Self { ramdisk: bytes(&config.ramdisk), storages: storages.collect() }
    }

    /// What is meant, or what is wrong with it; for people.
    pub(super) fn select(&self, ledger: &Ledger, which: &Which) -> Result<Selection, String> {
        let storage = which.storage.as_deref().map(|name| self.storage(name)).transpose()?;
        let shift = which.shift.as_deref().map(|name| {
            ledger.shift_named(name).ok_or_else(|| {
                format!("no shift {name} is known: give its start as in 20260131-235959, or `current`; see `ppu-uringd status --json`")
            })
        });
        let paths = which.paths.iter().map(|path| self.place(path)).collect::<Result<_, _>>()?;
        Ok(Selection { storage, shift: shift.transpose()?, paths })
    }

    /// The storage of that name.
    pub(super) fn storage(&self, name: &str) -> Result<StorageIndex, String> {
        let known = self.storages.iter().position(|(id, _)| id == name);
        known.map(|index| StorageIndex(index as u16)).ok_or_else(|| {
            let names: Vec<&str> = self.storages.iter().map(|(id, _)| id.as_str()).collect();
            format!("no storage is called {name}: there are {}", names.join(", "))
        })
    }

    fn place(&self, path: &[u8]) -> Result<RetryPlace, String> {
        let wrong = |reason: &dyn std::fmt::Display| format!("{}: {reason}", printable(path));
        let relative = |rest: &[u8]| match rest {
            [] => Ok(None),
            rest => RelPath::new(rest).map(Some).map_err(|error| wrong(&error)),
        };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if !path.starts_with(b"/") {
            return RelPath::new(path).map(RetryPlace::Detector).map_err(|error| wrong(&error));
        }
        if let Some(rest) = below(path, &self.ramdisk) {
            return relative(rest).map(RetryPlace::Ramdisk);
        }
        match self.storages.iter().find_map(|(_, target)| below(path, target)) {
            Some(rest) => relative(rest).map(RetryPlace::Storage),
            None => Err(wrong(&"is neither on the ramdisk nor on a storage")),
        }
    }
}

/// The rest of `path`, if it is `root` or below it.
fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(root)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_people_write_them() {
        let storages =
            vec![("internal".to_owned(), b"/data".to_vec()), ("usb".to_owned(), b"/usb/x".to_vec())];
        let known = Known { ramdisk: b"/ramdisk".to_vec(), storages };
        let rel = |path: &str| RelPath::new(path.as_bytes()).unwrap();
        for (path, place) in [
            ("run/a.cbf", RetryPlace::Detector(rel("run/a.cbf"))),
            ("run/", RetryPlace::Detector(rel("run"))),
            ("/ramdisk", RetryPlace::Ramdisk(None)),
            ("/ramdisk/1mf/a", RetryPlace::Ramdisk(Some(rel("1mf/a")))),
            ("/usb/x/1mf", RetryPlace::Storage(Some(rel("1mf")))),
            ("/data/", RetryPlace::Storage(None)),
        ] {
            assert_eq!(known.place(path.as_bytes()), Ok(place), "{path}");
        }
        for path in ["/database/a", "/etc/passwd", "/ramdisk/../etc", "../a", ""] {
            assert!(known.place(path.as_bytes()).is_err(), "{path}");
        }
        assert_eq!(known.storage("usb"), Ok(StorageIndex(1)));
        assert!(known.storage("other").unwrap_err().contains("internal, usb"));
    }
}
