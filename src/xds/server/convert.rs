//! Between Envoy's discovery messages and our own.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{ControlPlane, Node, node::UserAgentVersionType},
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
            ResourceError, ResourceName,
        },
    },
    google::{
        protobuf::{Any, value::Kind as ValueKind},
        rpc::Status,
    },
};
use tonic::Code;

use crate::xds::{
    encode::Source,
    resource::{Kind, XDS_CLUSTER},
    server::agent_id::AgentId,
    snapshot::Entry,
    status::refusal_words,
    subscription::{Request, Response, SotwRequest},
    version::Version,
};

/// The node's metadata key for the bootstrap cluster that leads to this agent, where it is not the usual one.
const XDS_CLUSTER_KEY: &str = "xds_cluster";

/// What a delta client asks.
pub fn delta_request(wire: DeltaDiscoveryRequest) -> Request {
    let versions = wire.initial_resource_versions.into_iter();
    Request {
        type_url: wire.type_url,
        subscribe: wire.resource_names_subscribe,
        unsubscribe: wire.resource_names_unsubscribe,
        initial_versions: versions.map(|(name, version)| (name, Version::from(version.as_str()))).collect(),
        nonce: wire.response_nonce,
        error: wire.error_detail.map(|status| refusal_words(&status.message)),
    }
}

/// What a state-of-the-world client asks.
pub fn sotw_request(wire: DiscoveryRequest) -> SotwRequest {
    SotwRequest {
        type_url: wire.type_url,
        names: wire.resource_names,
        version: wire.version_info,
        nonce: wire.response_nonce,
        error: wire.error_detail.map(|status| refusal_words(&status.message)),
    }
}

pub(super) fn sotw_response(response: &Response, source: &Source, agent: &AgentId) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: response.system_version.to_string(),
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce.clone(),
        resources: response.resources.iter().map(|entry| any(entry, source)).collect(),
        resource_errors: response.not_found.iter().map(|name| not_found(response.kind, name)).collect(),
        control_plane: Some(control_plane(response, agent)),
        ..DiscoveryResponse::default()
    }
}

pub(super) fn delta_response(
    response: &Response,
    source: &Source,
    agent: &AgentId,
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: response.system_version.to_string(),
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce.clone(),
        resources: response.resources.iter().map(|entry| resource(entry, source)).collect(),
        removed_resources: response.removed.clone(),
        resource_errors: response.not_found.iter().map(|name| not_found(response.kind, name)).collect(),
        control_plane: Some(control_plane(response, agent)),
        ..DeltaDiscoveryResponse::default()
    }
}

fn control_plane(response: &Response, agent: &AgentId) -> ControlPlane {
    ControlPlane { identifier: agent.says(&response.revision) }
}

/// Nothing has a time to live, so that there is none to be renewed (rule 38).
fn resource(entry: &Entry, source: &Source) -> Resource {
    Resource {
        name: entry.key.name.clone(),
        version: entry.version.to_string(),
        resource: Some(any(entry, source)),
        ..Resource::default()
    }
}

fn any(entry: &Entry, source: &Source) -> Any {
    Any { type_url: entry.type_url.to_owned(), value: entry.bytes(source).into() }
}

/// Clients that know of these errors fail at once instead of after 15 s (rule 52).
fn not_found(kind: Kind, name: &str) -> ResourceError {
    ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned(), ..ResourceName::default() }),
        error_detail: Some(Status {
            code: Code::NotFound.into(),
            message: format!("{} {name}: this proxy has no such resource", kind.short()),
            ..Status::default()
        }),
    }
}

/// The cluster in the node's bootstrap that leads to this agent.
pub fn xds_cluster(node: &Node) -> String {
    let value = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(XDS_CLUSTER_KEY));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(ValueKind::StringValue(name)) if !name.is_empty() => name.clone(),
        _ => XDS_CLUSTER.to_owned(),
    }
}

/// Envoy's version, if the node tells one.
pub fn envoy_version(node: &Node) -> Option<String> {
    match node.user_agent_version_type.as_ref()? {
        UserAgentVersionType::UserAgentVersion(version) => Some(version.clone()),
        UserAgentVersionType::UserAgentBuildVersion(build) => {
            let version = build.version.as_ref()?;
            Some(format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
        }
    }
}
