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
    /// Addresses that take traffic, by question, in the order in which it was said.
    instances: BTreeMap<String, Vec<(Instant, BTreeSet<String>)>>,
    /// The last answer of every other kind, and when it last was another one.
    shapes: BTreeMap<String, (String, Option<Instant>)>,
}

impl Record {
    /// Since the beginning.
    pub(super) fn moment(&self, now: Instant) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now - began)
    }

    pub(super) fn said(&mut self, key: &str, now: Instant, said: &Said) {
        self.began.get_or_insert(now);
        if let Some(takes_traffic) = &said.takes_traffic {
            self.instances.entry(key.to_owned()).or_default().push((now, takes_traffic.clone()));
        }
        // Certificates and intentions change what resources say, not which there are.
        let is_content = key.starts_with("/v1/connect/") || key.starts_with("/v1/agent/connect/");
        let shape = if said.takes_traffic.is_some() || is_content { "" } else { said.body.as_str() };
        match self.shapes.get_mut(key) {
            Some((last, changed)) if last != shape => {
                shape.clone_into(last);
                *changed = Some(now);
            }
            Some(_) => {}
            None => drop(self.shapes.insert(key.to_owned(), (shape.to_owned(), None))),
        }
    }

    /// Whether Consul said lately that an address takes no traffic, or that there is nothing behind a gateway.
    ///
    /// Gateways are listed by two questions. One that fails for long may never tell an address, and say when it answers
    /// again that there is another one.
    pub(super) fn explains(&self, address: &str, now: Instant) -> bool {
        let gateways_of = gateways_of(address);
        let first_told = self
            .instances
            .values()
            .flatten()
            .filter(|(_, all)| all.contains(address))
            .map(|(at, _)| *at)
            .min();
        self.instances.iter().any(|(key, said)| {
            let has_told = said.iter().any(|(_, all)| all.contains(address));
            let mut recent = recent(said, now);
            let lists_gateway = gateways_of.is_some_and(|at| lists_gateways(key, at));
            let is_later =
                |(at, _): &&(Instant, BTreeSet<String>)| *at + RECENT > now && Some(*at) > first_told;
            (has_told && recent.clone().any(|all| !all.contains(address)))
                || (lists_gateway && said.iter().filter(is_later).any(|(_, all)| !all.contains(address)))
                || (gateways_of.is_some()
                    && key.contains("/health/connect/")
                    && recent.any(BTreeSet::is_empty))
        })
    }

    /// Whether Consul said lately another thing of what decides which resources there are.
    pub(super) fn has_changed_shape(&self, now: Instant) -> bool {
        let is_recent = |at: &Option<Instant>| at.is_some_and(|at| at + RECENT_SHAPE > now);
        self.shapes.values().any(|(_, changed)| is_recent(changed))
    }
}

/// What was said of late, and what was true when that began.
fn recent(
    said: &[(Instant, BTreeSet<String>)],
    now: Instant,
) -> impl Iterator<Item = &BTreeSet<String>> + Clone {
    let first = said.partition_point(|(at, _)| *at + RECENT <= now).saturating_sub(1);
    said[first..].iter().map(|(_, all)| all)
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
