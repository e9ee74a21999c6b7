//! Envoy's resources in our own ordered types: what `mesh` builds, what versions are taken from.
//!
//! Only what the mesh uses is here, with Envoy's words; `custom` is the exception, for what users write themselves.
//! Equal values serialize to equal bytes: no maps without order, no floats of ours. `encode` turns them into Envoy's protobuf messages.

pub mod address;
pub mod cluster;
pub mod custom;
pub mod endpoints;
pub mod filter;
pub mod listener;
pub mod per_kind;
pub mod route;
pub mod secret;

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use self::{
    cluster::Cluster,
    custom::{CustomCluster, CustomListener},
    endpoints::Endpoints,
    listener::Listener,
    route::RouteConfig,
    secret::Secret,
};

/// The cluster in Envoy's bootstrap that leads to this agent.
pub const XDS_CLUSTER: &str = "causeway_xds";

/// The five types of resource, in the order in which they are sent (make before break).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// SDS.
    Secret,
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl Kind {
    /// Every kind, in sending order.
    pub const ALL: [Self; 5] = [Self::Secret, Self::Cluster, Self::Endpoints, Self::Listener, Self::Route];

    /// The type URL of the v3 API.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind with that type URL.
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// The short name that operators know: `CDS`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Secret => "SDS",
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
        }
    }
}

/// A resource's kind and name: its identity towards Envoy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of `name` among resources of that kind.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.short(), self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "resources live behind an `Arc` each")]
pub enum Resource {
    /// A certificate or a set of roots.
    Secret(Secret),
    /// A cluster.
    Cluster(Cluster),
    /// The endpoints of an EDS cluster.
    Endpoints(Endpoints),
    /// A listener.
    Listener(Listener),
    /// A route configuration.
    Route(RouteConfig),
    /// A cluster as a user wrote it.
    CustomCluster(Box<CustomCluster>),
    /// A listener as a user wrote it.
    CustomListener(Box<CustomListener>),
}

impl Resource {
    /// Its identity.
    pub fn key(&self) -> Key {
        match self {
            Self::Secret(secret) => Key::new(Kind::Secret, &secret.name),
            Self::Cluster(cluster) => Key::new(Kind::Cluster, &cluster.name),
            Self::Endpoints(endpoints) => Key::new(Kind::Endpoints, &endpoints.cluster),
            Self::Listener(listener) => Key::new(Kind::Listener, &listener.name),
            Self::Route(route) => Key::new(Kind::Route, &route.name),
            Self::CustomCluster(cluster) => Key::new(Kind::Cluster, &cluster.name),
            Self::CustomListener(listener) => Key::new(Kind::Listener, &listener.name),
        }
    }

    /// The resources that this one names and that Envoy must have for it to work.
    pub fn refers_to(&self) -> BTreeSet<Key> {
        let mut refs = BTreeSet::new();
        match self {
            Self::Secret(_) | Self::Endpoints(_) => {}
            Self::Cluster(cluster) => cluster.refers_to(&mut refs),
            Self::Listener(listener) => listener.refers_to(&mut refs),
            Self::Route(route) => route.refers_to(&mut refs),
            Self::CustomCluster(cluster) => cluster.refers_to(&mut refs),
            Self::CustomListener(listener) => listener.refers_to(&mut refs),
        }
        refs
    }
}
