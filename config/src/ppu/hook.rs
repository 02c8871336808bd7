//! `[hook]`: a program that is started when files have become visible, or are stored.

use std::time::Duration;

use toml::de::DeValue;

use crate::section::Section;
use crate::value::{integer, one_of, text};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// For `/bin/sh -c`; `None`: no hook.
    pub run: Option<String>,
    /// What for.
    pub on: HookOn,
    /// At a time.
    pub processes: u16,
    /// Events that one of them gets, at most.
    pub batch: u32,
    /// Then it is killed.
    pub timeout: Duration,
}

/// What the hook is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HookOn {
    /// Files that became visible on the ramdisk.
    #[default]
    Visible,
    /// Files that are durable on a storage; once for each storage.
    Stored,
}

const ONS: &[(&str, HookOn)] = &[("visible", HookOn::Visible), ("stored", HookOn::Stored)];

pub(super) fn read(s: &mut Section<'_, '_>) -> Hook {
    Hook {
        run: s.optional("run", command).value,
        on: s.or("on", HookOn::default(), one_of(ONS)).take(),
        processes: s.or("processes", 4, integer(1..=64)).take(),
        batch: s.or("batch", 1000, integer(1..=10_000)).take(),
        timeout: s.or("timeout_s", Duration::from_secs(60), seconds).take(),
    }
}

fn command(value: &DeValue<'_>) -> Result<String, String> {
    let command = text(value)?;
    if command.trim().is_empty() || command.contains('\0') {
        return Err(
            "is no command, write one such as \"/usr/local/bin/new-images\"; without one leave the key out"
                .into(),
        );
    }
    Ok(command)
}

fn seconds(value: &DeValue<'_>) -> Result<Duration, String> {
    integer::<u64>(1..=86_400)(value).map(Duration::from_secs)
}
