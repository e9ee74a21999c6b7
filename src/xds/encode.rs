//! Our resources as Envoy's protobuf messages, one file for each kind.
//!
//! Says how a thing is written for Envoy and decides nothing: what a proxy gets is `mesh`'s business. Encoded bytes are
//! never compared or hashed, since protobuf maps have no order; see [`crate::xds::version`].

mod cluster;
mod custom;
mod endpoints;
mod filter;
mod http;
mod listener;
mod rbac;
mod route;
mod secret;
mod tls;
mod value;

#[cfg(test)]
mod tests;

use envoy_types::{pb::google::protobuf::Any, util::pack_any};

use crate::xds::resource::Resource;

/// The resource as what travels in a discovery response: its type URL and its bytes.
pub fn encode(resource: &Resource) -> Any {
    match resource {
        Resource::Secret(secret) => pack_any(secret::message(secret)),
        Resource::Cluster(cluster) => pack_any(cluster::message(cluster)),
        Resource::Endpoints(endpoints) => pack_any(endpoints::message(endpoints)),
        Resource::Listener(listener) => pack_any(listener::message(listener)),
        Resource::Route(route) => pack_any(route::message(route)),
        Resource::CustomCluster(cluster) => pack_any(custom::cluster(cluster)),
        Resource::CustomListener(listener) => pack_any(custom::listener(listener)),
    }
}
