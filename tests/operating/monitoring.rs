//! The alert rules and the board ask for nothing that the agent does not tell.

use std::collections::{BTreeMap, BTreeSet};

use causeway::{app, sync::metrics::Figures};
use serde_json::Value;

const RULES: &str = include_str!("../../docs/monitoring/causeway.rules.yml");
const BOARD: &str = include_str!("../../docs/monitoring/causeway.json");
const PAGE: &str = include_str!("../../docs/operating.md");

/// What Prometheus itself adds to every series, or to a histogram's.
const ADDED_LABELS: [&str; 3] = ["instance", "job", "le"];

/// Words of PromQL that the files here use, and the one series that Prometheus itself makes.
const WORDS: [&str; 16] = [
    "up",
    "sum",
    "rate",
    "increase",
    "changes",
    "count",
    "max",
    "min",
    "histogram_quantile",
    "by",
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "time",
];

/// Every metric with its labels, as `docs/metrics.md` has them; a histogram under each name that it is asked for.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let mut told = BTreeMap::new();
    let metrics = app::metrics::register();
    metrics.sync.observe(&Figures::examples());
    metrics.sync.calls.start_at_zero([&"dc1".into()].into_iter());
    for row in metrics.registry.describe().lines() {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let labels: BTreeSet<String> = cells[2]
            .split(", ")
            .map(|label| label.trim_matches('`').to_owned())
            .filter(|l| !l.is_empty())
            .collect();
        let name = cells[0].trim_matches('`');
        let suffixes: &[&str] = if cells[1] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        told.extend(suffixes.iter().map(|suffix| (format!("{name}{suffix}"), labels.clone())));
    }
    told
}

/// What is wrong with an expression.
fn problems(expression: &str) -> Vec<String> {
    let told = told();
    let plain = without_texts(expression);
    let words = words(&plain);
    let metrics: Vec<&str> = words.iter().copied().filter(|word| told.contains_key(*word)).collect();
    let known: BTreeSet<&str> =
        metrics.iter().flat_map(|metric| &told[*metric]).map(String::as_str).collect();
    let is_known = |word: &&str| {
        known.contains(word)
            || told.contains_key(*word)
            || ADDED_LABELS.contains(word)
            || WORDS.contains(word)
    };
    let mut found: Vec<String> = words
        .iter()
        .filter(|word| !is_known(word))
        .map(|word| format!("`{word}` in `{expression}`"))
        .collect();
    if metrics.is_empty() && !words.contains(&"up") {
        found.push(format!("no metric in `{expression}`"));
    }
    found
}

/// The expression without what is quoted, durations in brackets and the board's variables.
fn without_texts(expression: &str) -> String {
    let unquoted: Vec<&str> = expression.split('"').step_by(2).collect();
    let mut plain = String::new();
    for piece in unquoted.join(" ").split('[') {
        plain += piece.split_once(']').map_or(piece, |(_, rest)| rest);
        plain.push(' ');
    }
    plain
}

fn words(plain: &str) -> Vec<&str> {
    plain
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'))
        .filter(|word| word.starts_with(|first: char| first.is_ascii_alphabetic()))
        .collect()
}

/// The alerts of the rules: their lines by key. The file keeps to one line for each value.
fn alerts() -> Vec<BTreeMap<&'static str, &'static str>> {
    let blocks = RULES.split("- alert: ").skip(1);
    blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap();
            let lines = rest.lines().filter_map(|line| line.trim().split_once(": "));
            let texts = lines.map(|(key, value)| (key, value.trim_matches('\'')));
            [("alert", name)].into_iter().chain(texts).collect()
        })
        .collect()
}

/// The anchor that GitHub and its kin give a heading.
fn anchors() -> BTreeSet<String> {
    let headings =
        PAGE.lines().filter_map(|line| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    headings
        .map(|heading| {
            let lower = heading.trim().to_lowercase().replace(' ', "-");
            lower.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
        })
        .collect()
}

#[test]
fn every_alert_asks_for_what_there_is_and_leads_to_what_to_do() {
    let (anchors, alerts) = (anchors(), alerts());
    assert!(alerts.len() >= 8, "only {} alerts", alerts.len());
    for alert in &alerts {
        let name = alert["alert"];
        assert_eq!(problems(alert["expr"]), Vec::<String>::new(), "{name}");
        for key in ["summary", "severity"] {
            assert!(alert.get(key).is_some_and(|text| !text.is_empty()), "{name} has no {key}");
        }
        let (page, anchor) = alert["runbook_url"].split_once('#').unwrap();
        assert!(page.ends_with("docs/operating.md"), "{name}: {page}");
        assert!(anchors.contains(anchor), "{name}: docs/operating.md has no section #{anchor}");
    }
    let named = PAGE.matches("\n### Causeway").count();
    assert_eq!(named, alerts.len(), "docs/operating.md has a section for each alert and no other");
}

#[test]
fn the_board_asks_for_what_there_is() {
    let board: Value = serde_json::from_str(BOARD).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut asked = 0;
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked += 1;
            assert_eq!(problems(target["expr"].as_str().unwrap()), Vec::<String>::new(), "{title}");
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title} names a data source of its own");
    }
    assert!(asked >= 10, "only {asked} questions");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "panels share an id");
}

#[test]
fn every_metric_of_the_agent_is_on_the_board() {
    for metric in told().keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")) {
        assert!(BOARD.contains(metric.as_str()), "{metric} is on no panel");
    }
}

#[test]
fn what_does_not_exist_is_found() {
    assert_eq!(problems("rate(causeway_xds_nacks_total{type=\"cds\"}[5m]) > 0"), Vec::<String>::new());
    assert_eq!(problems("sum by (typ) (causeway_xds_nacks_total)").len(), 1);
    assert_eq!(problems("causeway_xds_nacks").len(), 2);
    assert_eq!(problems("causeway_xds_streams{proxy=\"web\"}").len(), 1);
}
