//! What Envoy sends and what it shows.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use causeway::{
    envoy::report::{Actual, Intended, Wanted, compare},
    lifecycle,
    xds::{
        server::convert,
        snapshot::Snapshot,
        subscription::{Action, Event, Subscription, Variant},
    },
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use prost::Message;
use serde_json::Value;

use crate::xds_rig;

/// A nonce that stands for that of the last response.
const LAST: &str = "last";

fn world() -> &'static Arc<Snapshot> {
    static WORLD: OnceLock<Arc<Snapshot>> = OnceLock::new();
    WORLD.get_or_init(|| xds_rig::snapshot(xds_rig::world()))
}

/// The messages of a stream: each behind its length in two bytes.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (message, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
        bytes = rest;
        Some(message)
    })
}

/// One stream: what can be read goes through the state machine, with a changed offer in between.
fn stream(variant: Variant, events: impl Iterator<Item = Event>) {
    let mut stream = Subscription::new(1, variant);
    let begun: Instant = lifecycle::now().into_std();
    let mut now = begun;
    let mut last = String::new();
    let mut step = |event: Event, last: &mut String| {
        now += Duration::from_millis(700);
        let actions = stream.step(event, now);
        for action in actions {
            if let Action::Send(response) = action {
                last.clone_from(&response.nonce);
            }
        }
        let ms = |at: Instant| u64::try_from(at.duration_since(begun).as_millis()).unwrap();
        assert!(stream.status(ms).len() <= 5);
    };
    step(Event::Offer(world().clone()), &mut last);
    for (at, mut event) in events.enumerate() {
        match &mut event {
            Event::Request(request) if request.nonce == LAST => request.nonce.clone_from(&last),
            Event::Sotw(request) if request.nonce == LAST => request.nonce.clone_from(&last),
            _ => {}
        }
        step(event, &mut last);
        if at == 2 {
            step(Event::Offer(Arc::new(Snapshot::empty())), &mut last);
            step(Event::Tick, &mut last);
            step(Event::Offer(world().clone()), &mut last);
        }
    }
}

pub(super) fn delta(bytes: &[u8]) {
    let requests = messages(bytes).filter_map(|message| DeltaDiscoveryRequest::decode(message).ok());
    let events = requests.map(|wire| {
        wire.node.iter().for_each(read_node);
        Event::Request(convert::delta_request(wire))
    });
    stream(Variant::Delta, events);
}

pub(super) fn state_of_the_world(bytes: &[u8]) {
    let requests = messages(bytes).filter_map(|message| DiscoveryRequest::decode(message).ok());
    let events = requests.map(|wire| {
        wire.node.iter().for_each(read_node);
        Event::Sotw(convert::sotw_request(wire))
    });
    stream(Variant::StateOfTheWorld, events);
}

fn read_node(node: &Node) {
    assert!(!convert::xds_cluster(node).is_empty());
    drop(convert::envoy_version(node));
}

/// The config dump and the clusters of an Envoy, as a list of the two. Whatever Envoy says, no key is ever shown.
pub(super) fn admin(bytes: &[u8]) {
    let Ok([dump, clusters]) = serde_json::from_slice::<[Value; 2]>(bytes) else { return };
    let Ok(actual) = Actual::read(&dump, &clusters) else { return };
    let wanted = world().iter().map(|entry| Wanted {
        key: entry.key.clone(),
        version: entry.version.to_string(),
        message: entry.any.to_vec(),
    });
    let intended = Intended::new("web", wanted, &[], Vec::new()).unwrap();
    let report = compare(&intended, &actual);
    assert_eq!(report.equal, report.differences.is_empty());
    assert!(!serde_json::to_string(&report).unwrap().contains("PRIVATE KEY"));
}
