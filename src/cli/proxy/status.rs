//! The agent's status as a table for people. Pure: ages are told from the agent's own clock in the document.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use crate::{
    api::wire::{ProxyStatus, Status},
    cli::table::{Side, lines},
    xds::status::{ResourceState, StreamStatus, TypeStatus},
};

/// More names than this on one line help nobody; `--json` has them all.
const MAX_NAMES: usize = 8;

const COLUMNS: [&str; 11] = [
    "TYPE",
    "RESOURCES",
    "SYNCED",
    "IN FLIGHT",
    "WAITING",
    "REJECTED",
    "ABSENT",
    "LAST SENT",
    "LAST ACK",
    "ACKS",
    "NACKS",
];

/// Whether every Envoy of every proxy has all it is meant to have. A proxy whose Envoy is gone counts only when it
/// was asked for: a sidecar that was stopped is no fault.
pub(super) fn is_synced(status: &Status, is_named: bool) -> bool {
    status.proxies.iter().all(|proxy| {
        let is_connected = !proxy.streams.is_empty() || !is_named;
        let is_complete = proxy.complete || proxy.streams.is_empty();
        let mut types = proxy.streams.iter().flat_map(|stream| &stream.types);
        is_connected && is_complete && types.all(is_type_synced)
    })
}

fn is_type_synced(kind: &TypeStatus) -> bool {
    let has = |state| count(kind, state) > 0;
    kind.last_nack.is_none()
        && !has(ResourceState::Sent)
        && !has(ResourceState::Waiting)
        && !has(ResourceState::Rejected)
}

/// The whole status, one block per proxy.
pub(super) fn table(status: &Status) -> String {
    let mut text = header(status);
    if status.proxies.is_empty() {
        text.push_str("\nno Envoy has connected; start one with `causeway envoy --sidecar-for ID`\n");
    }
    for proxy in &status.proxies {
        text.push('\n');
        write_proxy(&mut text, proxy, status.now_ms);
    }
    let troubled: Vec<_> = status.topics.iter().filter(|topic| topic.trouble.is_some()).collect();
    if !troubled.is_empty() {
        text.push_str("\nSilent sources:\n");
    }
    for topic in troubled {
        let held = match (topic.known, topic.from_disk) {
            (true, true) => "value from disk",
            (true, false) => "last value kept",
            (false, _) => "never answered",
        };
        line(
            &mut text,
            2,
            &format!("{} ({held}): {}", topic.topic, topic.trouble.as_deref().unwrap_or_default()),
        );
    }
    text
}

fn header(status: &Status) -> String {
    let unknown = || "not known yet".to_owned();
    let datacenter = status.datacenter.clone().unwrap_or_else(unknown);
    let node = status.node.clone().unwrap_or_else(unknown);
    let uptime = duration(status.now_ms.saturating_sub(status.started_at_ms));
    let mut text = String::new();
    line(
        &mut text,
        0,
        &format!("causeway {}, up {uptime}, datacenter {datacenter}, node {node}", status.version),
    );
    if !status.readiness.ready {
        line(&mut text, 0, &format!("not ready; waits for {}", status.readiness.waiting_for.join(", ")));
    }
    text
}

fn write_proxy(text: &mut String, proxy: &ProxyStatus, now_ms: u64) {
    line(text, 0, &proxy.proxy);
    if proxy.streams.is_empty() {
        line(text, 2, "no Envoy connected");
    }
    for stream in &proxy.streams {
        write_stream(text, stream, now_ms);
    }
    for topic in &proxy.waiting_for {
        line(text, 2, &format!("waits for: {topic}"));
    }
    for note in &proxy.notes {
        line(text, 2, &format!("note: {note}"));
    }
}

fn write_stream(text: &mut String, stream: &StreamStatus, now_ms: u64) {
    let version = stream.envoy_version.as_deref().unwrap_or("of unknown version");
    let connected = age(Some(stream.connected_at_ms), now_ms);
    line(text, 2, &format!("Envoy {version}, connected {connected} (stream {})", stream.stream));
    if stream.types.is_empty() {
        line(text, 4, "asked for nothing yet");
        return;
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(stream.types.iter().map(|kind| row(kind, now_ms)));
    write_rows(text, &rows);
    for kind in &stream.types {
        write_trouble(text, kind, now_ms);
    }
}

fn row(kind: &TypeStatus, now_ms: u64) -> [String; 11] {
    let counted = |state| count(kind, state).to_string();
    [
        kind.kind.clone(),
        kind.resources.len().to_string(),
        counted(ResourceState::Synced),
        counted(ResourceState::Sent),
        counted(ResourceState::Waiting),
        counted(ResourceState::Rejected),
        counted(ResourceState::Absent),
        age(kind.sent_at_ms, now_ms),
        age(kind.acked_at_ms, now_ms),
        kind.acks.to_string(),
        kind.nacks.to_string(),
    ]
}

fn write_rows(text: &mut String, rows: &[[String; 11]]) {
    for row in lines(rows, Side::Right) {
        line(text, 4, &row);
    }
}

/// What is not as it is meant to be, by name.
fn write_trouble(text: &mut String, kind: &TypeStatus, now_ms: u64) {
    for (state, words) in [
        (ResourceState::Sent, "sent, not yet acknowledged"),
        (ResourceState::Waiting, "waiting to be sent"),
        (ResourceState::Rejected, "rejected"),
        (ResourceState::Absent, "asked for, not in the catalog"),
    ] {
        let names: Vec<_> =
            kind.resources.iter().filter(|it| it.state == state).map(|it| it.name.as_str()).collect();
        if !names.is_empty() {
            line(text, 4, &format!("{} {words}: {}", kind.kind, listed(&names)));
        }
    }
    if let Some(nack) = &kind.last_nack {
        let names: Vec<_> = nack.resources.iter().map(String::as_str).collect();
        let of = if names.is_empty() { String::new() } else { format!(" of {}", listed(&names)) };
        let when = age(Some(nack.at_ms), now_ms);
        line(text, 4, &format!("{} refusal {when}{of}; Envoy says: {}", kind.kind, nack.message));
    }
}

fn count(kind: &TypeStatus, state: ResourceState) -> usize {
    kind.resources.iter().filter(|resource| resource.state == state).count()
}

fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn line(text: &mut String, indent: usize, words: &str) {
    let _ = writeln!(text, "{:indent$}{}", "", printable(words).trim_end());
}

/// Names and messages come from Envoy and from the catalog: what would steer the terminal is taken out.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn age(at_ms: Option<u64>, now_ms: u64) -> String {
    at_ms.map_or_else(|| "-".to_owned(), |at| format!("{} ago", duration(now_ms.saturating_sub(at))))
}

/// One or two units: `0s`, `59s`, `3m 20s`, `2h 5m`, `4d 1h`.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{small_unit}") }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}
