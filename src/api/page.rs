//! The status page: the document of `/status`, for people. Pure; everything shown is escaped.

use std::fmt::{self, Display, Write};

use crate::{
    api::wire::{ProxyStatus, Status},
    xds::status::{Nack, ResourceState, StreamStatus, TypeStatus},
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}\
.good{color:#176f2c}.bad{color:#a40e26}.dim{color:#666}code{font-size:.9em}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}.good{color:#5fc77a}.bad{color:#ff7b86}.dim{color:#999}}";

/// How often a browser asks again, in seconds.
const REFRESH_SECONDS: u32 = 5;

pub(crate) fn render(status: &Status) -> String {
    let mut page = String::new();
    write(&mut page, status).expect("writing to a String does not fail");
    page
}

fn write(out: &mut String, status: &Status) -> fmt::Result {
    let node = status.node.as_deref().unwrap_or("node not known yet");
    let datacenter = status.datacenter.as_deref().unwrap_or("datacenter not known yet");
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content={REFRESH_SECONDS}>\
         <meta name=viewport content=\"width=device-width\"><title>Causeway on {node}</title><style>{STYLE}</style>\
         <h1>Causeway on {node}</h1><p>{} <span class=dim>{datacenter} · version {} · up {}</span>",
        readiness(status),
        Text(&status.version),
        Age(status.now_ms.saturating_sub(status.started_at_ms)),
        node = Text(node),
        datacenter = Text(datacenter),
    )?;
    list(
        out,
        "bad",
        &status.readiness.waiting_for.iter().map(|what| format!("waiting for {what}")).collect::<Vec<_>>(),
    )?;
    if status.proxies.is_empty() {
        out.push_str(
            "<h2>Proxies</h2><p>No proxy has connected yet. <code>causeway envoy</code> starts one.",
        );
    }
    for proxy in &status.proxies {
        write_proxy(out, proxy, status.now_ms)?;
    }
    write_topics(out, status)?;
    out.push_str("<p class=dim>The same as JSON: <code>curl -s …/status</code>. Metrics: <a href=/metrics>/metrics</a></html>\n");
    Ok(())
}

fn readiness(status: &Status) -> &'static str {
    if status.readiness.ready { "<b class=good>ready</b>" } else { "<b class=bad>not ready</b>" }
}

fn write_proxy(out: &mut String, proxy: &ProxyStatus, now_ms: u64) -> fmt::Result {
    write!(out, "<h2>{}</h2>", Text(&proxy.proxy))?;
    if !proxy.complete && proxy.waiting_for.is_empty() {
        out.push_str("<p class=bad>incomplete");
    }
    let waiting: Vec<String> = proxy.waiting_for.iter().map(|topic| format!("waiting for {topic}")).collect();
    list(out, "bad", &waiting)?;
    list(out, "bad", &proxy.notes)?;
    if proxy.streams.is_empty() {
        out.push_str("<p class=dim>No Envoy is connected.");
    }
    proxy.streams.iter().try_for_each(|stream| write_stream(out, stream, now_ms))
}

fn write_stream(out: &mut String, stream: &StreamStatus, now_ms: u64) -> fmt::Result {
    write!(
        out,
        "<p class=dim>stream {} · Envoy {} · connected {} ago<table><tr><th>type<th>synced<th>last sent<th>acknowledged\
         <th>refused<th>not synced",
        stream.stream,
        Text(stream.envoy_version.as_deref().unwrap_or("of unknown version")),
        Age(now_ms.saturating_sub(stream.connected_at_ms)),
    )?;
    stream.types.iter().try_for_each(|kind| write_type(out, kind, now_ms))?;
    out.push_str("</table>");
    Ok(())
}

fn write_type(out: &mut String, kind: &TypeStatus, now_ms: u64) -> fmt::Result {
    let is_synced = |state: ResourceState| state == ResourceState::Synced;
    let synced = kind.resources.iter().filter(|resource| is_synced(resource.state)).count();
    write!(out, "<tr><td>{}<td>{synced} of {}<td>", Text(&kind.kind), kind.resources.len())?;
    match kind.sent_at_ms {
        Some(at) => write!(out, "{} ago", Age(now_ms.saturating_sub(at)))?,
        None => out.push('–'),
    }
    write!(out, "<td>{}<td>{}<td>", kind.acks, kind.nacks)?;
    for resource in kind.resources.iter().filter(|resource| !is_synced(resource.state)) {
        write!(out, "<code>{}</code> {}<br>", Text(&resource.name), state_text(resource.state))?;
    }
    if let Some(Nack { message, resources, at_ms }) = &kind.last_nack {
        let ago = Age(now_ms.saturating_sub(*at_ms));
        write!(
            out,
            "<span class=bad>refused {ago} ago: {} ({})</span>",
            Text(message),
            Text(&resources.join(", "))
        )?;
    }
    Ok(())
}

fn state_text(state: ResourceState) -> &'static str {
    match state {
        ResourceState::Synced => "synced",
        ResourceState::Sent => "sent, not answered yet",
        ResourceState::Waiting => "waits to be sent",
        ResourceState::Rejected => "refused by Envoy",
        ResourceState::Absent => "not in the catalog",
    }
}

fn write_topics(out: &mut String, status: &Status) -> fmt::Result {
    out.push_str("<h2>Watched in Consul</h2><table><tr><th>topic<th>state");
    for topic in &status.topics {
        write!(out, "<tr><td><code>{}</code><td>", Text(&topic.topic))?;
        match (&topic.trouble, topic.known) {
            (Some(trouble), true) => {
                let from = if topic.from_disk { "from disk" } else { "stale" };
                write!(out, "<span class=bad>{from}: {}</span>", Text(trouble))?;
            }
            (Some(trouble), false) => write!(out, "<span class=bad>unknown: {}</span>", Text(trouble))?,
            (None, true) => out.push_str("<span class=good>known</span>"),
            (None, false) => out.push_str("<span class=dim>asked, not answered yet</span>"),
        }
    }
    out.push_str("</table>");
    Ok(())
}

fn list(out: &mut String, class: &str, items: &[String]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(out, "<ul class={class}>")?;
    items.iter().try_for_each(|item| write!(out, "<li>{}", Text(item)))?;
    out.push_str("</ul>");
    Ok(())
}

/// Text from outside, made harmless.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

/// A span of milliseconds in its one telling unit.
struct Age(u64);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ 0..1_000 => write!(f, "{ms} ms"),
            ms @ 1_000..120_000 => write!(f, "{} s", ms / 1_000),
            ms @ 120_000..7_200_000 => write!(f, "{} min", ms / 60_000),
            ms => write!(f, "{} h", ms / 3_600_000),
        }
    }
}
