//! A comparison as text for people. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    cli::proxy::status::printable,
    envoy::report::{Difference, Field, Report, State},
};

/// More fields of one resource than this help nobody; `--json` has them all.
const MAX_FIELDS: usize = 20;

/// The most of one value that is shown, in characters.
const MAX_VALUE: usize = 160;

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let compared = report.compared;
    let heading = match report.differences.len() {
        0 if report.equal => format!("as intended, {compared} resources compared"),
        0 => format!("nothing differs in {compared} resources, but the agent does not know everything yet"),
        1 => format!("1 difference in {compared} resources"),
        count => format!("{count} differences in {compared} resources"),
    };
    line(&mut text, 0, &format!("{}: {heading}", report.proxy));
    for topic in &report.waiting_for {
        line(&mut text, 2, &format!("the agent waits for: {topic}"));
    }
    for difference in &report.differences {
        write_difference(&mut text, difference);
    }
    text
}

fn write_difference(text: &mut String, difference: &Difference) {
    let Difference { kind, name, state, reason, fields, .. } = difference;
    line(text, 0, &format!("{} {name}: {}", kind.short(), words(*state)));
    if let Some(reason) = reason {
        let who = if *state == State::Refused { "Envoy says: " } else { "" };
        line(text, 4, &format!("{who}{reason}"));
    }
    if *state == State::Version {
        let (intended, actual) = (&difference.intended_version, &difference.actual_version);
        let shown = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        line(text, 4, &format!("version: intended {}, Envoy has {}", shown(intended), shown(actual)));
    }
    for Field { path, intended, actual } in fields.iter().take(MAX_FIELDS) {
        let (intended, actual) = (value(intended.as_ref()), value(actual.as_ref()));
        line(text, 4, &format!("{path}: intended {intended}, Envoy has {actual}"));
    }
    let more = fields.len().saturating_sub(MAX_FIELDS);
    if more > 0 {
        line(text, 4, &format!("and {more} more fields; --json shows them"));
    }
}

fn words(state: State) -> &'static str {
    match state {
        State::Refused => "refused by Envoy",
        State::Missing => "missing in Envoy",
        State::Warming => "warming in Envoy, not in use yet",
        State::Different => "different",
        State::Version => "the same under another version",
        State::Unknown => "in Envoy, and unknown to the agent",
    }
}

fn value(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn line(text: &mut String, indent: usize, words: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:indent$}{}", "", printable(words));
}
