//! What is shipped beside the binary uses what the binary has.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;

const METRICS: &str = include_str!("../docs/metrics.md");
const RULES: &str = include_str!("../packaging/prometheus/ppu-uringd.rules.yml");
const DASHBOARD: &str = include_str!("../packaging/grafana/ppu-uringd.json");

/// As /metrics names its samples. (That docs/metrics.md names what there is: tests/http.rs.)
fn known() -> BTreeSet<String> {
    let rows = METRICS.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.flat_map(|(name, rest)| match rest.contains("| histogram |") {
        true => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        false => vec![name.to_owned()],
    })
    .collect()
}

/// Every metric of ours that a text names.
fn used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ppu_uringd_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_that_is_named_exists() {
    let known = known();
    assert!(known.contains("ppu_uringd_messages_total"), "{known:?}");
    for (what, text) in [("rules", RULES), ("dashboard", DASHBOARD)] {
        let used = used(text);
        assert!(used.len() > 10, "{what}: {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    }
    assert_eq!(used("rate(ppu_uringd_nonsense{a=\"b\"}[5m])").len(), 1);
}

#[test]
fn codes_and_states_that_are_named_exist() {
    let codes = RULES.match_indices("code=\"").map(|(at, start)| &RULES[at + start.len()..]);
    for code in codes.map(|rest| rest.split('"').next().unwrap()) {
        code.parse::<ppu_uringd::model::message::Code>().unwrap();
    }
    let states = RULES.match_indices("state=").map(|(at, _)| RULES[at..].split('"').nth(1).unwrap());
    for state in states.flat_map(|states| states.split('|')) {
        assert!(METRICS.contains(&format!("`{state}`")), "{state}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let alerts: Vec<&str> = RULES.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        for part in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert_eq!(alert.matches(part).count(), 1, "{part}: {alert}");
        }
    }
}

#[test]
fn the_dashboard_is_complete() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            !targets.is_empty()
                && targets.iter().all(|t| t["expr"].as_str().unwrap().contains("ppu_uringd_")),
            "{panel}"
        );
    }
}
