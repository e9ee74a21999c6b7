//! What each topic asks of Consul's HTTP API; what an answer to it means is in the file below. Pure.

mod meaning;

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::Value;

pub use crate::consul::topic::meaning::{Outcome, outcome};
pub(crate) use crate::consul::topic::meaning::{READ_ALL, right, unanswered};
use crate::{
    consul::{
        census::Census,
        client::{ClientError, Reply, path},
        index::{Fault, Follow, WAIT, WAIT_REMOTE},
        topic::meaning::{fault, status_fault},
        wire,
    },
    model::{catalog::Topic, instance::ServiceKind, name::Datacenter},
};

/// The datacenters cannot be blocked on (hashicorp/consul#2736); Consul's own agents poll them at this pace.
const DATACENTERS_EVERY: Duration = Duration::from_secs(30);
/// Prepared queries cannot be blocked on either; Consul's own proxies execute them at this pace.
const QUERY_EVERY: Duration = Duration::from_secs(30);
/// The agent's facts change only when it restarts.
const AGENT_EVERY: Duration = Duration::from_secs(60);

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

/// What the question about a whole datacenter is called where topics are counted.
pub(crate) const CENSUS: &str = "census";

/// Every kind of topic, and the census.
pub(crate) const KINDS: [&str; 19] = [
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
    "exported_services",
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
        Topic::ExportedServices => "exported_services",
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
        Topic::ExportedServices => local(&["v1", "config", "exported-services", "default"]),
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
