//! The dashboard in a browser: it shows what `status` shows, lives, and complains of nothing.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::process::Command;

use serde_json::Value;
use support::browser::Browser;
use support::oracle::write;
use support::rig::{Options, Other, Rig, free_port};
use support::{content, is_root, wait_until};

fn is_possible(test: &str) -> bool {
    is_root(test) && {
        let found = Command::new("chromium").arg("--version").output().is_ok();
        // As root scripts/test has installed it.
        assert!(found, "chromium is missing: apt-get install chromium");
        found
    }
}

fn rig() -> (Rig, u16) {
    let port = free_port();
    let other = Other { kind: "external", fs: "tmpfs", megabytes: 256, extra: String::new() };
    let options = Options {
        http: Some(port),
        storage: "tmpfs",
        storage_megabytes: 256,
        others: vec![other],
        ..Options::default()
    };
    (Rig::start(options), port)
}

fn open(port: u16, width: u32, height: u32) -> Browser {
    let mut browser = Browser::start(width, height);
    browser.open(&format!("http://localhost:{port}/"));
    browser
}

/// Cells of every row of the table of shifts.
fn shifts(browser: &mut Browser) -> Vec<Vec<String>> {
    let rows = browser
        .value("[...document.querySelectorAll('#shifts tr')].slice(1).map(row => [...row.cells].map(cell => cell.innerText))");
    serde_json::from_value(rows).unwrap()
}

#[test]
fn it_shows_what_status_shows_as_it_happens() {
    if !is_possible("it_shows_what_status_shows_as_it_happens") {
        return;
    }
    let (mut rig, port) = rig();
    let mut browser = open(port, 1200, 900);
    browser.wait_for("#attention .good", "All well.");
    browser.wait_for("#live", "live");
    browser.wait_for("[data-kind=detector][data-name='0'] .state", "connected");
    for storage in ["internal", "external1"] {
        browser.wait_for(&format!("[data-kind=storage][data-name={storage}] .state"), "ok");
    }
    for n in 0..7 {
        write(rig.source(0), format!("a{n}"), &content(n, 1000));
    }
    browser.wait_for("[data-kind=detector]", "7 (7 kB)");
    browser.wait_for("[data-kind=storage][data-name=external1]", "7 (7 kB)");
    browser.wait_for("[data-of=ramdisk] .text", "of 2.15 GB free");
    // Lines are drawn, of what landed among others.
    wait_until("there is a graph", || {
        browser.value("document.querySelector('#throughput path')?.getAttribute('d').length ?? 0").as_u64()
            > Some(10)
    });
    wait_until("the table is that of the status", || {
        let status = rig.status().unwrap();
        let shift = status.shifts.last().unwrap();
        let expected: Vec<Vec<String>> = shift
            .storages
            .iter()
            .map(|copies| {
                let c = &copies.counts;
                let counts =
                    [c.pending, c.copied, c.failed, c.superseded, c.lost, c.produced].map(|n| n.to_string());
                let user = format!("{}:{}", shift.uid, shift.gid);
                [user, copies.storage.clone()].into_iter().chain(counts).collect()
            })
            .collect();
        let shown = shifts(&mut browser);
        shown.iter().map(|row| row[1..].to_vec()).collect::<Vec<_>>() == expected && expected[0][3] == "7"
    });

    // A name that would be a program if it were taken for HTML.
    let name = "<img src=x onerror=document.title='taken'>";
    write(&rig.landing(0), OsStr::new(name), b"a user's");
    write(rig.source(0), OsStr::new(name), b"an image");
    browser.wait_for("#messages", name);
    assert_eq!(browser.value("document.querySelectorAll('img').length"), 0);

    rig.detectors[0].take().unwrap().stop();
    browser.wait_for("#attention .error", "detector 0 not connected");
    wait_until("it is worded as the status words it", || {
        let shown = browser.text("#attention");
        let problems = rig.status().unwrap().problems;
        let digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        problems.iter().all(|problem| digits(&shown).contains(&digits(&problem.text)))
    });
    browser.wait_for("#messages b", "DETECTOR_LINK");
    let title = browser.value("document.title");
    assert!(title.as_str().unwrap().starts_with("(1)"), "{title}");
    rig.start_detector(0);
    browser.wait_for("[data-kind=detector] .state", "connected");
    assert_eq!(browser.complaints, Vec::<String>::new());

    // A daemon that is away, and one that comes back: nobody has to reload.
    rig.ppu.take().unwrap().stop();
    browser.wait_for("#live", "is the daemon running?");
    rig.start_ppu();
    browser.wait_for("#live", "live");
    browser.wait_for("#attention", "All well.");
}

#[test]
fn it_fits_a_phone_and_both_schemes() {
    if !is_possible("it_fits_a_phone_and_both_schemes") {
        return;
    }
    let (rig, port) = rig();
    write(rig.source(0), "a", b"image");
    let temporary = tempfile::tempdir().unwrap();
    let mut directory = temporary.path().to_owned();
    let mut browser = open(port, 1180, 900);
    // scripts/screenshots has something to look at.
    if let (Ok(page), Ok(pictures)) =
        (std::env::var("PPU_URINGD_PAGE"), std::env::var("PPU_URINGD_SCREENSHOTS"))
    {
        directory = pictures.into();
        browser.open(&page);
    }
    browser.wait_for("[data-kind=detector] .state", "connected");
    let mut grounds = Vec::new();
    for (width, scheme, name) in [(1180, "light", "light"), (1180, "dark", "dark"), (390, "light", "phone")] {
        browser.resize(width, 900);
        browser.scheme(scheme);
        wait_until("it has that width", || browser.value("innerWidth") == u64::from(width));
        let wide = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "{name}: {wide} wide");
        let tall = "[...document.querySelectorAll('.fill .of')].filter(name => name.offsetHeight > 30).map(name => name.innerText)";
        assert_eq!(browser.value(tall), Value::Array(Vec::new()), "{name}: short names are on one line");
        grounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        contrast(&mut browser, name);
        let file = directory.join(format!("dashboard-{name}.png"));
        browser.screenshot(&file);
        assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"), "{name}");
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Every text stands out from its ground: WCAG's 4.5 to 1.
fn contrast(browser: &mut Browser, name: &str) {
    let weak = browser.value(
        r#"(() => {
            const channels = colour => colour.match(/[\d.]+/g).map(Number);
            const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
                .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
            const ground = element => {
                for (; element; element = element.parentElement) {
                    const colour = getComputedStyle(element).backgroundColor;
                    if (colour.startsWith("rgb(")) return colour;
                }
                return "rgb(255, 255, 255)";
            };
            const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
            return [...document.querySelectorAll("body *:not(script):not(style):not(noscript):not(text)")].filter(own).flatMap(element => {
                const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
                const ratio = (a + 0.05) / (b + 0.05);
                return ratio < 4.5 ? [`${element.tagName} ${element.className} ${element.innerText}: ${ratio.toFixed(1)}`] : [];
            });
        })()"#,
    );
    assert_eq!(weak, Value::Array(Vec::new()), "{name}");
}
