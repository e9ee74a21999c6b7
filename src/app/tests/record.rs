//! What the simulated Consul said truthfully and when: all that the agent may act on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::app::tests::land::{Said, dc};

/// How long it may take from Consul's answer to what a client does about it: slow clients take 3 s for each response,
/// and cluster and listener wait for each other.
const RECENT: Duration = Duration::from_secs(20);
/// The same for what decides which resources there are at all: what is new waits for more answers, and Consul may be
/// silent on those for as long as the longest trouble and the pause after it.
const RECENT_SHAPE: Duration = Duration::from_secs(240);

/// The record.
#[derive(Default)]
pub(super) struct Record {
    began: Option<Instant>,
    /// Which instances take traffic, by question, in the order in which it was said.
    instances: BTreeMap<String, Vec<List>>,
    /// Answers of every other kind, by question.
    shapes: BTreeMap<String, Shape>,
}

/// Addresses that take traffic.
struct List {
    at: Instant,
    as_of: (u64, u64),
    addresses: BTreeSet<String>,
}

/// What decides which resources there are.
#[derive(Default)]
struct Shape {
    last: String,
    /// What was said before, and until when.
    before: Vec<(Instant, String)>,
}

impl Record {
    /// Since the beginning.
    pub(super) fn moment(&self, now: Instant) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now - began)
    }

    pub(super) fn said(&mut self, key: &str, now: Instant, said: &Said) {
        self.began.get_or_insert(now);
        if let Some(addresses) = said.takes_traffic.clone() {
            let list = List { at: now, as_of: said.as_of, addresses };
            self.instances.entry(key.to_owned()).or_default().push(list);
        }
        // Certificates and intentions change what resources say, not which there are.
        let is_content = key.starts_with("/v1/connect/") || key.starts_with("/v1/agent/connect/");
        let shape = if said.takes_traffic.is_some() || is_content { "" } else { said.body.as_str() };
        match self.shapes.get_mut(key) {
            Some(known) if known.last != shape => {
                let before = std::mem::replace(&mut known.last, shape.to_owned());
                known.before.push((now, before));
            }
            Some(_) => {}
            None => {
                self.shapes.insert(key.to_owned(), Shape { last: shape.to_owned(), ..Shape::default() });
            }
        }
    }

    /// Whether Consul said lately that an address takes no traffic, or that there is nothing behind a gateway.
    ///
    /// Gateways are listed by two questions. One that fails for long may never tell an address, and say when it answers
    /// again that there is another one; what it says must be newer than what told the address.
    pub(super) fn explains(&self, address: &str, now: Instant) -> bool {
        let gateways_of = gateways_of(address);
        let has = |list: &&List| list.addresses.contains(address);
        let first_told = self.instances.values().flatten().filter(has).map(|list| list.as_of).min();
        self.instances.iter().any(|(key, said)| {
            let has_told = said.iter().any(|list| has(&list));
            let lists_gateway = gateways_of.is_some_and(|at| lists_gateways(key, at));
            let is_newer = |list: &&List| list.at + RECENT > now && Some(list.as_of) > first_told;
            let mut recent = recent(said, now);
            (has_told && recent.clone().any(|list| !has(&list)))
                || (lists_gateway && said.iter().filter(is_newer).any(|list| !has(&list)))
                || (gateways_of.is_some()
                    && key.contains("/health/connect/")
                    && recent.any(|list| list.addresses.is_empty()))
        })
    }

    /// Whether Consul said lately another thing of what decides whether there is this cluster: an answer changed that
    /// names its service, or did before.
    pub(super) fn explains_end(&self, cluster: &str, now: Instant) -> bool {
        let name = cluster.rsplit('~').next().unwrap_or_default();
        let service = format!("\"{}\"", name.split('.').next().unwrap_or_default());
        self.shapes.values().any(|shape| {
            let is_recent = |(until, _): &&(Instant, String)| *until + RECENT_SHAPE > now;
            let mut before = shape.before.iter().filter(is_recent).map(|(_, body)| body).peekable();
            before.peek().is_some()
                && (shape.last.contains(&service) || before.any(|body| body.contains(&service)))
        })
    }
}

/// What was said of late, and what was true when that began.
fn recent(said: &[List], now: Instant) -> impl Iterator<Item = &List> + Clone {
    let first = said.partition_point(|list| list.at + RECENT <= now).saturating_sub(1);
    said[first..].iter()
}

/// The datacenter of a mesh gateway's address, and nothing for other addresses.
fn gateways_of(address: &str) -> Option<usize> {
    let parts: Vec<&str> = address.split('.').collect();
    let datacenter = match parts.as_slice() {
        ["172", "16", at, ..] | ["10", at, "200", ..] => at.parse::<usize>().ok()?,
        _ => return None,
    };
    Some(datacenter - 1)
}

/// Whether a question lists the mesh gateways of a datacenter.
fn lists_gateways(key: &str, datacenter: usize) -> bool {
    let of_it = format!("/health/service/mesh-gateway?dc={}", dc(datacenter));
    key.contains("/federation-states/") || key.contains(&of_it)
}
