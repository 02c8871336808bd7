//! Holds the shipped examples to the schema.

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::DeTable;

use crate::problem::Report;
use crate::section::Section;
use crate::{DETECTOR_EXAMPLE, Detector, PPU_EXAMPLE, Ppu, detector, ppu};

#[test]
fn examples_are_valid() {
    let checked = Detector::parse(DETECTOR_EXAMPLE, Path::new("detector.toml")).unwrap();
    assert_eq!(checked.warnings, []);
    let checked = Ppu::parse(PPU_EXAMPLE, Path::new("ppu.toml")).unwrap();
    assert_eq!(checked.warnings, []);
}

#[test]
fn examples_name_every_key_of_the_schema() {
    assert_eq!(missing(DETECTOR_EXAMPLE, detector::read), [""; 0]);
    assert_eq!(missing(PPU_EXAMPLE, ppu::read), [""; 0]);
}

/// What a key is shown with is its default, unless it is required or says otherwise.
#[test]
fn examples_show_the_defaults() {
    let shown = Detector::parse(DETECTOR_EXAMPLE, Path::new("x")).unwrap().config;
    let bare = "ramdisk = \"/ramdisk\"\nkey_file = \"/etc/ppu-uringd/key\"\n";
    assert_eq!(Detector::parse(bare, Path::new("x")).unwrap().config, shown);

    let shown = Ppu::parse(PPU_EXAMPLE, Path::new("x")).unwrap().config;
    let bare = "ramdisk = \"/ramdisk\"\nkey_file = \"/etc/ppu-uringd/key\"\nuid = 500\ngid = 500\n\
        user_dir = \"$UID_$GID\"\n\
        [[detector]]\nid = \"1MF\"\naddress = \"10.10.10.11\"\ntarget = \"/ramdisk/./1mf\"\n\
        [[storage]]\nid = \"internal\"\nkind = \"internal\"\ntarget = \"/data\"\nmountpoint = \"/data\"\n";
    assert_eq!(Ppu::parse(bare, Path::new("x")).unwrap().config, shown);
}

/// The schema's keys (as the reader asks for them) that `example` does not show, set or commented out.
fn missing<T>(example: &str, read: impl Fn(&mut Section<'_, '_>) -> T) -> Vec<String> {
    let report = Report::new(example, Path::new("x"));
    let table = DeTable::parse(example).unwrap();
    read(&mut Section::top(&report, table.get_ref()));
    let shown = shown_keys(example);
    report.schema.into_inner().into_iter().filter(|key| !shown.contains(key)).collect()
}

fn shown_keys(example: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in example.lines() {
        if line.starts_with('[') {
            let name = line.trim_matches(['[', ']']);
            keys.insert(name.to_owned());
            section = format!("{name}.");
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ")
            && !key.contains(' ')
        {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}
