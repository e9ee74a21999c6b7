//! Between Envoy's discovery messages and our own.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{ControlPlane, Node, node::UserAgentVersionType},
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, ResourceError, ResourceName,
        },
    },
    google::{protobuf::Any, rpc::Status},
};
use tonic::Code;

use crate::xds::{
    resource::Kind,
    snapshot::Entry,
    subscription::{Request, Response},
    version::Version,
};

/// Shown in Envoy's `control_plane.identifier` (rule 53).
const CONTROL_PLANE: &str = concat!("causeway ", env!("CARGO_PKG_VERSION"));

pub(super) fn request(wire: DeltaDiscoveryRequest) -> Request {
    let versions = wire.initial_resource_versions.into_iter();
    Request {
        type_url: wire.type_url,
        subscribe: wire.resource_names_subscribe,
        unsubscribe: wire.resource_names_unsubscribe,
        initial_versions: versions.map(|(name, version)| (name, Version::from(version.as_str()))).collect(),
        nonce: wire.response_nonce,
        error: wire.error_detail.map(|status| status.message),
    }
}

pub(super) fn response(response: &Response) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: response.system_version.to_string(),
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce.clone(),
        resources: response.resources.iter().map(|entry| resource(entry)).collect(),
        removed_resources: response.removed.clone(),
        resource_errors: response.not_found.iter().map(|name| not_found(response.kind, name)).collect(),
        control_plane: Some(ControlPlane { identifier: CONTROL_PLANE.to_owned() }),
        ..DeltaDiscoveryResponse::default()
    }
}

fn resource(entry: &Entry) -> Resource {
    Resource {
        name: entry.key.name.clone(),
        version: entry.version.to_string(),
        resource: Some(Any { type_url: entry.type_url.to_owned(), value: entry.any.to_vec() }),
        ..Resource::default()
    }
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

/// Envoy's version, if the node tells one.
pub(super) fn envoy_version(node: &Node) -> Option<String> {
    match node.user_agent_version_type.as_ref()? {
        UserAgentVersionType::UserAgentVersion(version) => Some(version.clone()),
        UserAgentVersionType::UserAgentBuildVersion(build) => {
            let version = build.version.as_ref()?;
            Some(format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
        }
    }
}
