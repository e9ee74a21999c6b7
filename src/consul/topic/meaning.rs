//! What an answer to a topic's question means, and what it means that there was none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{
    consul::{
        client::{ClientError, Reply},
        index::Fault,
        wire::{self, Read, WireError},
    },
    model::{
        catalog::{Answer, Topic},
        mesh::MeshDefaults,
        name::Datacenter,
        note::Note,
        registration::Defaults,
    },
};

const FILTERED: &str = "Consul left something out of its answer that the token may not read";

/// What Consul says to an id that is not registered with the local agent, and where there is no configuration entry.
/// Newer versions than 1.8.7 only add to these words.
const UNKNOWN_SERVICE: &str = "unknown service ID";
const NO_ENTRY: &str = "Config entry not found";

/// What an answer means.
#[derive(Debug)]
pub enum Outcome {
    /// The topic's answer.
    Heard(Answer, Vec<Note>),
    /// The topic's answer for this version of Consul, which does not have it.
    Absent(Answer),
    /// Nothing that can be used.
    Lost(Fault, Arc<str>),
}

/// What `reply` means for `topic`.
pub fn outcome(topic: &Topic, reply: &Reply) -> Outcome {
    if let Some(known) = known_absence(topic, reply) {
        return known;
    }
    if !reply.status.is_success() {
        return lost(status_fault(reply.status), &reply.refusal());
    }
    match answer(topic, reply) {
        Ok((answer, _)) if reply.filtered_by_acls && is_useless_in_part(&answer) => {
            lost(Fault::Denied, &format_args!("{topic}: {FILTERED}; {}", right(topic)))
        }
        Ok((answer, mut notes)) => {
            notes.extend(header_notes(topic, reply));
            Outcome::Heard(answer, notes)
        }
        Err(error @ WireError::NotReady(_)) => lost(Fault::NotReady, &error),
        Err(error @ (WireError::Shape(_) | WireError::Unsupported(_))) => lost(Fault::Garbage, &error),
    }
}

/// What a request about `topic` without an answer means, `after` it was sent by an agent of the datacenter `local`.
pub(crate) fn unanswered(
    topic: &Topic,
    error: &ClientError,
    after: Duration,
    local: Option<&Datacenter>,
) -> Outcome {
    lost(fault(error, after, is_remote(topic, local)), error)
}

pub(super) fn fault(error: &ClientError, after: Duration, is_remote: bool) -> Fault {
    match error {
        ClientError::Deadline { .. } if is_remote => Fault::Hung,
        ClientError::Cut { .. } => Fault::Cut(after),
        ClientError::Connect { .. } | ClientError::Deadline { .. } => Fault::Unreachable,
        ClientError::Status { .. } => Fault::Busy,
        ClientError::TooLong { .. } | ClientError::Json { .. } => Fault::Garbage,
        ClientError::Tls(_)
        | ClientError::TokenFile { .. }
        | ClientError::Unsendable { .. }
        | ClientError::Path { .. } => Fault::Denied,
    }
}

fn answer(topic: &Topic, reply: &Reply) -> Result<Read<Answer>, WireError> {
    let body = &reply.body;
    Ok(match topic {
        Topic::Agent => map(wire::agent::agent(body, reply.default_acl_policy.as_deref())?, Answer::Agent),
        Topic::Registration(_) => {
            map(wire::registration::registration(body)?, |value| Answer::Registration(Some(value)))
        }
        Topic::Roots => map(wire::ca::roots(body)?, Answer::Roots),
        Topic::Leaf(service) => map(wire::ca::leaf(body, service)?, Answer::Leaf),
        Topic::Chain(_) => map(wire::chain::chain(body)?, Answer::Chain),
        Topic::Connect { .. } | Topic::Health { .. } => {
            map(wire::instance::instances(body)?, Answer::Instances)
        }
        Topic::Services { kind, .. } => map(wire::services::services(body, *kind)?, Answer::Services),
        Topic::Intentions => map(wire::intention::intentions(body)?, Answer::Intentions),
        Topic::IntentionEntries => map(wire::intention::intention_entries(body)?, Answer::Intentions),
        Topic::Datacenters => map(wire::services::datacenters(body)?, Answer::Datacenters),
        Topic::FederationStates => map(wire::instance::federation_states(body)?, Answer::FederationStates),
        Topic::Resolvers => map(wire::resolver::resolvers(body)?, Answer::Resolvers),
        Topic::ProxyDefaults | Topic::ServiceDefaults(_) => {
            map(wire::defaults::defaults(body)?, Answer::Defaults)
        }
        Topic::PreparedQuery { dc, .. } => map(wire::query::result(body, dc)?, Answer::Query),
        Topic::Mesh => map(wire::mesh::mesh(body)?, Answer::Mesh),
        Topic::ExportedServices => map(wire::exported::exported_services(body)?, Answer::ExportedServices),
    })
}

/// Refusals that are answers: there is no such thing.
fn known_absence(topic: &Topic, reply: &Reply) -> Option<Outcome> {
    match topic {
        Topic::Registration(_) if is_absent(reply, UNKNOWN_SERVICE) => {
            Some(Outcome::Heard(Answer::Registration(None), Vec::new()))
        }
        // Its index is blocked on, so that the entry's creation is seen.
        Topic::ProxyDefaults | Topic::ServiceDefaults(_) if is_absent(reply, NO_ENTRY) => {
            Some(Outcome::Heard(Answer::Defaults(Defaults::default()), Vec::new()))
        }
        Topic::Mesh if is_absent(reply, NO_ENTRY) => {
            Some(Outcome::Heard(Answer::Mesh(MeshDefaults::default()), Vec::new()))
        }
        Topic::ExportedServices if is_absent(reply, NO_ENTRY) => {
            Some(Outcome::Heard(Answer::ExportedServices(BTreeSet::new()), Vec::new()))
        }
        // Only a note comes of it, which is not worth a right that a gateway needs for nothing else.
        Topic::ExportedServices if is_unknown_kind(reply) || reply.status == StatusCode::FORBIDDEN => {
            Some(Outcome::Absent(Answer::ExportedServices(BTreeSet::new())))
        }
        Topic::IntentionEntries if is_unknown_kind(reply) => {
            Some(Outcome::Absent(Answer::Intentions(Vec::new())))
        }
        Topic::Mesh if is_unknown_kind(reply) => Some(Outcome::Absent(Answer::Mesh(MeshDefaults::default()))),
        _ => None,
    }
}

/// Consul itself says that there is none, by its index or in its words. Something on the way that does not know the
/// path says 404 as well.
fn is_absent(reply: &Reply, words: &str) -> bool {
    reply.status == StatusCode::NOT_FOUND && (reply.index.is_some() || reply.excerpt().contains(words))
}

/// This version of Consul has no entries of that kind.
fn is_unknown_kind(reply: &Reply) -> bool {
    !reply.status.is_success() && reply.excerpt().contains("invalid config entry kind")
}

fn header_notes(topic: &Topic, reply: &Reply) -> Vec<Note> {
    let mut notes = Vec::new();
    if reply.filtered_by_acls {
        notes.push(Note::new(topic.to_string(), FILTERED, right(topic)));
    }
    if reply.translates_addresses {
        notes.push(Note::new(
            topic.to_string(),
            "Consul rewrites the addresses of other datacenters (translate_wan_addrs), so gateways may be dialled at the wrong ones",
            "turn translate_wan_addrs off on the local agent",
        ));
    }
    notes
}

pub(super) fn status_fault(status: StatusCode) -> Fault {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Fault::Limited,
        status if status.is_server_error() => Fault::Busy,
        status if status.is_client_error() => Fault::Denied,
        _ => Fault::Garbage,
    }
}

fn lost(fault: Fault, error: &dyn std::fmt::Display) -> Outcome {
    Outcome::Lost(fault, Arc::from(error.to_string()))
}

fn map<T>((value, notes): Read<T>, wrap: impl FnOnce(T) -> Answer) -> Read<Answer> {
    (wrap(value), notes)
}

/// Whether nothing is left of a filtered answer. Intentions are an exception: a token that may write one service sees
/// all intentions about it, which is what its sidecar is built from, and none about others, so its list is filtered at
/// all times and may well be empty.
fn is_useless_in_part(answer: &Answer) -> bool {
    !matches!(answer, Answer::Intentions(_)) && answer.is_empty_list()
}

/// Whether another datacenter than `local` has to answer.
fn is_remote(topic: &Topic, local: Option<&Datacenter>) -> bool {
    topic.datacenter().is_some_and(|dc| local != Some(dc))
}

/// What mends a token that is not shown what a datacenter has.
pub(crate) const READ_ALL: &str = "give the token node:read and service:read in every datacenter";

/// What mends a token that may not read the topic.
pub(crate) fn right(topic: &Topic) -> &'static str {
    match topic {
        Topic::Intentions | Topic::IntentionEntries => "give the token intention:read on every service",
        _ => READ_ALL,
    }
}
