//! Network and HTTP filters.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::xds::resource::{Key, Kind, custom::CustomMessage, route::RouteConfig};

/// A network filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkFilter {
    /// `envoy.filters.network.tcp_proxy`.
    TcpProxy(TcpProxy),
    /// `envoy.filters.network.sni_cluster`: the cluster named by the server name.
    SniCluster,
    /// `envoy.filters.network.rbac`.
    Rbac(Rbac),
    /// `envoy.filters.network.connection_limit`.
    ConnectionLimit(ConnectionLimit),
    /// `envoy.filters.network.http_connection_manager`.
    Http(HttpManager),
}

/// Closes connections beyond a number as soon as they come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionLimit {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// Connections at a time; at least one.
    pub max_connections: u32,
}

/// `tcp_proxy`. Its idle timeout is off: Consul multiplexes over long connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// The cluster; behind `sni_cluster` empty, since that filter has chosen.
    pub cluster: String,
}

/// `http_connection_manager`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpManager {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// The other side speaks HTTP/2, which has no upgrade to a websocket. Callers may still come over HTTP/1.1.
    pub http2: bool,
    /// The routes.
    pub routes: Routes,
    /// Its filters before the router, which is always last.
    pub filters: Vec<HttpFilter>,
    /// Takes over the caller's identity into `x-forwarded-client-cert` (inbound only).
    pub forward_client_cert: bool,
    /// Tracing, as a user wrote it.
    pub tracing: Option<CustomMessage>,
}

/// Where a connection manager's routes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Routes {
    /// Written in the listener.
    Inline(RouteConfig),
    /// RDS over ADS, under this name.
    Rds(String),
}

/// An HTTP filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpFilter {
    /// `envoy.filters.http.rbac`.
    Rbac(Rbac),
    /// `envoy.filters.http.grpc_stats`, for all methods.
    GrpcStats,
    /// `envoy.filters.http.grpc_http1_bridge`.
    GrpcHttp1Bridge,
}

/// Under which name the decision stands among the filters of a connection manager. Routes overrule filters by name.
pub const RBAC_HTTP_FILTER: &str = "envoy.filters.http.rbac";

/// Role-based access control, of a network or an HTTP filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rbac {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// What happens to a connection that a policy matches; the opposite happens to all others.
    pub action: RbacAction,
    /// The policies by name: any permission, these principals.
    pub policies: BTreeMap<String, BTreeSet<Principal>>,
}

/// What a matching policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RbacAction {
    /// Allows; everything else is denied.
    Allow,
    /// Denies; everything else is allowed.
    Deny,
}

/// Who a policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// Anybody.
    Any,
    /// The client certificate's URI SAN matches this RE2 expression as a whole.
    SpiffeRegex(String),
    /// All of these.
    All(Vec<Principal>),
    /// Not this one.
    Not(Box<Principal>),
}

impl NetworkFilter {
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        match self {
            Self::TcpProxy(proxy) if !proxy.cluster.is_empty() => {
                refs.insert(Key::new(Kind::Cluster, &proxy.cluster));
            }
            Self::Http(manager) => {
                match &manager.routes {
                    Routes::Inline(routes) => routes.refers_to(refs),
                    Routes::Rds(name) => drop(refs.insert(Key::new(Kind::Route, name))),
                }
                if let Some(tracing) = &manager.tracing {
                    tracing.refers_to(refs);
                }
            }
            Self::TcpProxy(_) | Self::SniCluster | Self::Rbac(_) | Self::ConnectionLimit(_) => {}
        }
    }
}
