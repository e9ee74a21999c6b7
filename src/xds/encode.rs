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
use prost::Message as _;

use crate::{model::secret::SecretText, xds::resource::Resource};

/// Where Envoy is told to fetch what a resource names: endpoints, routes and secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The aggregated stream that brings the resource.
    Ads,
    /// Streams of their own, to the service of their type: for an Envoy without ADS.
    Services {
        /// What is spoken on them.
        protocol: Protocol,
        /// The cluster in Envoy's bootstrap that leads to this agent.
        cluster: String,
        /// What the client presents and is to present on those streams too. It is the client's own, so a resource
        /// with it is for no other stream.
        token: Option<SecretText>,
    },
}

impl Source {
    /// How many bytes longer a resource is for each place that it names, than over ADS.
    pub fn extra_bytes(&self) -> usize {
        match self {
            Self::Ads => 0,
            // Lengths that go before it grow as well, by less than it takes over ADS.
            Self::Services { .. } => value::config_source(self).encoded_len(),
        }
    }
}

/// The two ways of saying what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Changes only.
    Delta,
    /// Everything of a type.
    StateOfTheWorld,
}

/// The metadata under which a stream presents its Consul token, as to Consul's own xDS.
pub const TOKEN_HEADER: &str = "x-consul-token";

/// The resource as what travels in a discovery response over ADS: its type URL and its bytes.
pub fn encode(resource: &Resource) -> Any {
    encode_for(resource, &Source::Ads)
}

/// The same, for a client that fetches what the resource names from there.
pub fn encode_for(resource: &Resource, source: &Source) -> Any {
    match resource {
        Resource::Secret(secret) => pack_any(secret::message(secret)),
        Resource::Cluster(cluster) => pack_any(cluster::message(cluster, source)),
        Resource::Endpoints(endpoints) => pack_any(endpoints::message(endpoints)),
        Resource::Listener(listener) => pack_any(listener::message(listener, source)),
        Resource::Route(route) => pack_any(route::message(route)),
        Resource::CustomCluster(cluster) => pack_any(custom::cluster(cluster, source)),
        Resource::CustomListener(listener) => pack_any(custom::listener(listener, source)),
    }
}
