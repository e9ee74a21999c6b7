//! A state-of-the-world client under test: says all its names each time, and remembers version and nonce.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use envoy_types::pb::{envoy::service::discovery::v3::DiscoveryResponse, google::protobuf::Any};
use prost::Message as _;

use super::rig::{Rig, responses, strings};
use crate::xds::{
    resource::Kind,
    snapshot::{Draft, Entry},
    subscription::{Event, Response, SotwRequest, Variant},
};

pub(super) struct World {
    pub(super) rig: Rig,
    names: BTreeMap<Kind, Vec<String>>,
    last: BTreeMap<Kind, (String, String)>,
}

pub(super) fn sotw(kind: Kind) -> SotwRequest {
    SotwRequest { type_url: kind.type_url().into(), ..SotwRequest::default() }
}

/// What a response takes on the wire, but for the few bytes that say who sends it.
pub(super) fn wire_bytes(response: &Response) -> usize {
    let any = |entry: &Arc<Entry>| Any { type_url: entry.type_url.to_owned(), value: entry.any.to_vec() };
    let wire = DiscoveryResponse {
        version_info: response.system_version.to_string(),
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce.clone(),
        resources: response.resources.iter().map(any).collect(),
        ..DiscoveryResponse::default()
    };
    wire.encoded_len()
}

impl World {
    pub(super) fn new(draft: Draft) -> Self {
        let rig = Rig::of(Variant::StateOfTheWorld, draft);
        Self { rig, names: BTreeMap::new(), last: BTreeMap::new() }
    }

    pub(super) fn say(&mut self, request: SotwRequest) -> Vec<Response> {
        responses(self.rig.step(Event::Sotw(request)))
    }

    /// A request with these names, and the version and nonce of what was answered last.
    pub(super) fn ask(&mut self, kind: Kind, names: &[&str]) -> Vec<Response> {
        self.names.insert(kind, strings(names));
        let (version, nonce) = self.last.get(&kind).cloned().unwrap_or_default();
        self.say(SotwRequest { names: strings(names), version, nonce, ..sotw(kind) })
    }

    pub(super) fn ack(&mut self, response: &Response) -> Vec<Response> {
        let version = response.system_version.to_string();
        self.last.insert(response.kind, (version.clone(), response.nonce.clone()));
        let names = self.names.get(&response.kind).cloned().unwrap_or_default();
        let nonce = response.nonce.clone();
        self.say(SotwRequest { names, version, nonce, ..sotw(response.kind) })
    }

    pub(super) fn nack(&mut self, response: &Response, error: &str) -> Vec<Response> {
        let (version, _) = self.last.get(&response.kind).cloned().unwrap_or_default();
        self.last.insert(response.kind, (version.clone(), response.nonce.clone()));
        let names = self.names.get(&response.kind).cloned().unwrap_or_default();
        let (nonce, error) = (response.nonce.clone(), Some(error.to_owned()));
        self.say(SotwRequest { names, version, nonce, error, ..sotw(response.kind) })
    }

    pub(super) fn offer(&mut self, draft: Draft) -> Vec<Response> {
        self.rig.offer(draft)
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<Response> {
        self.rig.wait(time)
    }

    /// ACKs these, and what they bring, until nothing more comes.
    pub(super) fn settle(&mut self, responses: Vec<Response>) -> Vec<Response> {
        let mut all = Vec::new();
        let mut open = responses;
        while !open.is_empty() {
            let next = open.remove(0);
            open.extend(self.ack(&next));
            all.push(next);
        }
        all
    }

    /// Asks and takes everything.
    pub(super) fn take(&mut self, kind: Kind, names: &[&str]) -> Vec<Response> {
        let sent = self.ask(kind, names);
        self.settle(sent)
    }
}
