//! What each topic asks of Consul's HTTP API, and what an answer to it means. Pure.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use serde_json::Value;

use crate::{
    consul::{
        census::Census,
        client::{ClientError, Reply, path},
        index::{Fault, Follow, WAIT, WAIT_REMOTE},
        wire::{self, Read, WireError},
    },
    model::{
        catalog::{Answer, Topic},
        instance::ServiceKind,
        mesh::MeshDefaults,
        name::Datacenter,
        note::Note,
        registration::Defaults,
    },
};

/// The datacenters cannot be blocked on (hashicorp/consul#2736); Consul's own agents poll them at this pace.
const DATACENTERS_EVERY: Duration = Duration::from_secs(30);
/// Prepared queries cannot be blocked on either; Consul's own proxies execute them at this pace.
const QUERY_EVERY: Duration = Duration::from_secs(30);
/// The agent's facts change only when it restarts.
const AGENT_EVERY: Duration = Duration::from_secs(60);

const FILTERED: &str = "Consul left something out of its answer that the token may not read";

/// What Consul says to an id that is not registered with the local agent, and where there is no configuration entry.
/// Newer versions than 1.8.7 only add to these words.
const UNKNOWN_SERVICE: &str = "unknown service ID";
const NO_ENTRY: &str = "Config entry not found";

/// What is asked for a topic, without cursor.
#[derive(Debug)]
pub struct Question {
    /// GET, or POST where the question has a body.
    pub method: Method,
    /// The path, encoded.
    pub path: String,
    /// The query's parameters, not encoded.
    pub query: Vec<(&'static str, String)>,
    /// The body, in JSON.
    pub body: Option<Value>,
    /// How the topic is followed after the first answer.
    pub(crate) follow: Follow,
    /// How long Consul may hold it.
    pub(crate) wait: Duration,
}

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

/// What the question about a whole datacenter is called where topics are counted.
pub(crate) const CENSUS: &str = "census";

/// Every kind of topic, and the census.
pub(crate) const KINDS: [&str; 18] = [
    "agent",
    "registration",
    "roots",
    "leaf",
    "chain",
    "connect",
    "health",
    "services",
    "intentions",
    "intention_entries",
    "datacenters",
    "federation_states",
    "proxy_defaults",
    "service_defaults",
    "resolvers",
    "prepared_query",
    "mesh",
    CENSUS,
];

/// A topic's kind, one of [`KINDS`], as metrics label it.
pub(crate) fn kind(topic: &Topic) -> &'static str {
    match topic {
        Topic::Agent => "agent",
        Topic::Registration(_) => "registration",
        Topic::Roots => "roots",
        Topic::Leaf(_) => "leaf",
        Topic::Chain(_) => "chain",
        Topic::Connect { .. } => "connect",
        Topic::Health { .. } => "health",
        Topic::Services { .. } => "services",
        Topic::Intentions => "intentions",
        Topic::IntentionEntries => "intention_entries",
        Topic::Datacenters => "datacenters",
        Topic::FederationStates => "federation_states",
        Topic::ProxyDefaults => "proxy_defaults",
        Topic::ServiceDefaults(_) => "service_defaults",
        Topic::Resolvers => "resolvers",
        Topic::PreparedQuery { .. } => "prepared_query",
        Topic::Mesh => "mesh",
    }
}

/// The question that a topic asks.
pub fn question(topic: &Topic) -> Question {
    let local = |parts: &[&str]| get(path(parts), Follow::Index);
    match topic {
        Topic::Agent => get("/v1/agent/self".into(), Follow::Every(AGENT_EVERY)),
        Topic::Registration(id) => get(path(&["v1", "agent", "service", id.as_str()]), Follow::Hash),
        Topic::Roots => local(&["v1", "agent", "connect", "ca", "roots"]),
        Topic::Leaf(service) => local(&["v1", "agent", "connect", "ca", "leaf", service.as_str()]),
        Topic::Chain(request) => Question {
            method: Method::POST,
            body: Some(wire::chain::question(request)),
            query: vec![("compile-dc", request.datacenter.to_string())],
            ..local(&["v1", "discovery-chain", request.service.as_str()])
        },
        Topic::Connect { dc, service } => {
            remote(local(&["v1", "health", "connect", service.as_str()]), dc.as_str())
        }
        Topic::Health { dc, service } => {
            remote(local(&["v1", "health", "service", service.as_str()]), dc.as_str())
        }
        Topic::Services { dc, kind } => {
            let mut question = remote(local(&["v1", "internal", "ui", "services"]), dc.as_str());
            if let Some(name) = kind.and_then(kind_name) {
                question.query.push(("filter", format!("Service.Kind == \"{name}\"")));
            }
            question
        }
        Topic::Intentions => local(&["v1", "connect", "intentions"]),
        Topic::IntentionEntries => local(&["v1", "config", "service-intentions"]),
        Topic::Datacenters => get("/v1/catalog/datacenters".into(), Follow::Every(DATACENTERS_EVERY)),
        Topic::FederationStates => local(&["v1", "internal", "federation-states", "mesh-gateways"]),
        Topic::ProxyDefaults => local(&["v1", "config", "proxy-defaults", "global"]),
        Topic::Resolvers => local(&["v1", "config", "service-resolver"]),
        Topic::ServiceDefaults(name) => local(&["v1", "config", "service-defaults", name.as_str()]),
        Topic::PreparedQuery { dc, query } => {
            let execute = get(path(&["v1", "query", query, "execute"]), Follow::Every(QUERY_EVERY));
            // Neither `limit` nor `near`: the query itself says how many and, by `_agent`, from where.
            remote(Question { query: vec![("connect", "true".to_owned())], ..execute }, dc.as_str())
        }
        Topic::Mesh => local(&["v1", "config", "mesh", "mesh"]),
    }
}

/// The question whose answer lists every node, service and check of a datacenter.
pub(crate) fn census(dc: &Datacenter) -> Question {
    remote(get("/v1/internal/ui/nodes".into(), Follow::Index), dc.as_str())
}

/// What an answer to [`census`] means.
pub(crate) fn counted(dc: &Datacenter, reply: &Reply) -> Result<Census, (Fault, Arc<str>)> {
    if !reply.status.is_success() {
        return Err((status_fault(reply.status), Arc::from(reply.refusal().to_string())));
    }
    Census::read(&reply.body).map_err(|error| (Fault::Garbage, Arc::from(format!("census of {dc}: {error}"))))
}

/// What [`census`] without an answer means, as in [`unanswered`].
pub(crate) fn uncounted(
    dc: &Datacenter,
    error: &ClientError,
    after: Duration,
    local: Option<&Datacenter>,
) -> (Fault, Arc<str>) {
    (fault(error, after, local != Some(dc)), Arc::from(error.to_string()))
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

fn fault(error: &ClientError, after: Duration, is_remote: bool) -> Fault {
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

/// A note on an answer that became empty, if it is one of intentions or of another datacenter than `local`: to a token
/// that may not read them Consul answers with nothing, and before Consul 1.11 that cannot be told from the truth
/// (hashicorp/consul#12623).
pub(crate) fn emptied(
    topic: &Topic,
    before: &Answer,
    now: &Answer,
    local: Option<&Datacenter>,
) -> Option<Note> {
    let what = match topic {
        Topic::Intentions | Topic::IntentionEntries => "there are intentions",
        topic if is_remote(topic, local) => "instances are registered there",
        _ => return None,
    };
    (!is_empty(before) && is_empty(now)).then(|| {
        Note::new(
            topic.to_string(),
            "its answer became empty, which Consul also says to a token that may not read it",
            format!("if {what}, {}", right(topic)),
        )
    })
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

fn status_fault(status: StatusCode) -> Fault {
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
    !matches!(answer, Answer::Intentions(_)) && is_empty(answer)
}

/// Whether another datacenter than `local` has to answer.
fn is_remote(topic: &Topic, local: Option<&Datacenter>) -> bool {
    match topic {
        Topic::Connect { dc, .. }
        | Topic::Health { dc, .. }
        | Topic::Services { dc, .. }
        | Topic::PreparedQuery { dc, .. } => local != Some(dc),
        _ => false,
    }
}

/// What mends a token that may not read the topic.
fn right(topic: &Topic) -> &'static str {
    match topic {
        Topic::Intentions | Topic::IntentionEntries => "give the token intention:read on every service",
        _ => "give the token node:read and service:read in every datacenter",
    }
}

fn is_empty(answer: &Answer) -> bool {
    match answer {
        Answer::Instances(instances) => instances.is_empty(),
        Answer::Services(services) => services.is_empty(),
        Answer::Query(result) => result.instances.is_empty(),
        Answer::Intentions(intentions) => intentions.is_empty(),
        Answer::FederationStates(states) => states.is_empty(),
        _ => false,
    }
}

fn get(path: String, follow: Follow) -> Question {
    Question { method: Method::GET, path, query: Vec::new(), body: None, follow, wait: WAIT }
}

fn remote(mut question: Question, dc: &str) -> Question {
    question.query.push(("dc", dc.to_owned()));
    question.wait = WAIT_REMOTE;
    question
}

/// The kind's name in Consul's filters; ordinary services have the empty one.
fn kind_name(kind: ServiceKind) -> Option<&'static str> {
    match kind {
        ServiceKind::Typical => Some(""),
        ServiceKind::ConnectProxy => Some("connect-proxy"),
        ServiceKind::MeshGateway => Some("mesh-gateway"),
        ServiceKind::TerminatingGateway => Some("terminating-gateway"),
        ServiceKind::IngressGateway => Some("ingress-gateway"),
        ServiceKind::Other => None,
    }
}

#[cfg(test)]
mod tests;
