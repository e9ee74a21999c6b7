//! The terminal filters of listeners, by protocol.

use std::net::SocketAddr;

use crate::{
    model::{
        chain::Protocol,
        instance::{Host, HostPort},
        registration::{LocalAddress, UnixSocket},
    },
    xds::resource::{
        address::{Address, Pipe},
        filter::{ConnectionLimit, HttpFilter, HttpManager, NetworkFilter, Rbac, Routes, TcpProxy},
        route::RouteConfig,
    },
};

/// Envoy's own limit for a whole response, written out; streams of gRPC have none, or every long call would end here.
const RESPONSE_TIMEOUT_MS: u64 = 15_000;

/// Where Envoy can listen: a host name is no such place.
pub fn address(at: &LocalAddress) -> Option<Address> {
    match at {
        LocalAddress::Port(HostPort { host: Host::Ip(ip), port }) => Some(SocketAddr::new(*ip, *port).into()),
        LocalAddress::Port(HostPort { host: Host::Name(_), .. }) => None,
        LocalAddress::Socket(UnixSocket { path, mode }) => {
            Some(Address::Pipe(Pipe { path: path.clone(), mode: *mode }))
        }
    }
}

/// ALPN protocols that a public listener offers.
pub fn alpn(protocol: Protocol) -> Vec<String> {
    let names: &[&str] = match protocol {
        Protocol::Tcp => &[],
        Protocol::Http => &["http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &["h2", "http/1.1"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What a public listener does with a connection.
#[derive(Clone, Debug)]
pub struct Inbound<'a> {
    /// What the application speaks.
    pub protocol: Protocol,
    /// Prefix of the statistics.
    pub stat_prefix: &'a str,
    /// The application's cluster.
    pub cluster: &'a str,
    /// Who may.
    pub rbac: Rbac,
    /// Connections at a time, if limited.
    pub max_connections: Option<u32>,
    /// How long a whole response may take; any time when not given.
    pub timeout_ms: Option<u64>,
    /// How long a request may idle; Envoy's default when not given.
    pub idle_timeout_ms: Option<u64>,
    /// Whether the application is told who calls.
    pub tells_caller: bool,
}

/// Filters that authorize and lead to the local application. Over HTTP the decision is made for each request, so that
/// a new intention holds for connections that are already open and a denied caller is told 403.
pub fn inbound(wanted: Inbound<'_>) -> Vec<NetworkFilter> {
    let Inbound { protocol, stat_prefix, cluster, rbac, .. } = wanted;
    let mut filters: Vec<_> = wanted.max_connections.map(connection_limit).into_iter().collect();
    if protocol == Protocol::Tcp {
        filters.extend([NetworkFilter::Rbac(rbac), tcp_proxy(stat_prefix, cluster)]);
        return filters;
    }
    let timeout_ms = wanted.timeout_ms.filter(|ms| *ms > 0);
    let routes =
        RouteConfig { idle_timeout_ms: wanted.idle_timeout_ms, ..route(stat_prefix, cluster, timeout_ms) };
    let routes = Routes::Inline(routes);
    filters.push(NetworkFilter::Http(HttpManager {
        filters: grpc_filters(protocol).chain([HttpFilter::Rbac(rbac)]).collect(),
        forward_client_cert: wanted.tells_caller,
        ..manager(protocol, stat_prefix, routes)
    }));
    filters
}

/// A limit of connections at a time, which comes first in a chain.
pub fn connection_limit(max_connections: u32) -> NetworkFilter {
    let stat_prefix = "inbound_connection_limit".to_owned();
    NetworkFilter::ConnectionLimit(ConnectionLimit { stat_prefix, max_connections })
}

/// The filter that serves one path of the application and no other.
pub fn exposed(protocol: Protocol, stat_prefix: &str, path: &str, cluster: &str) -> NetworkFilter {
    let routes = RouteConfig { path: Some(path.to_owned()), ..route(stat_prefix, cluster, None) };
    NetworkFilter::Http(manager(protocol, stat_prefix, Routes::Inline(routes)))
}

/// The way from the local application to an upstream's one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// The name of its routes.
    pub routes: &'a str,
    /// What the upstream speaks.
    pub protocol: Protocol,
    /// Prefix of the statistics.
    pub stat_prefix: &'a str,
    /// The cluster.
    pub cluster: &'a str,
    /// For a whole response over HTTP; `None` leaves that to the protocol.
    pub timeout_ms: Option<u64>,
}

/// Its filter and its routes. Within the listener these would stay with its connections for as long as those are kept,
/// and lead to a cluster that is gone: Envoy drains what it replaces in a listener, and requests over it go on, for ten
/// minutes unless told otherwise. Routes of their own count from the next request on, also over the connections of a
/// listener that another one on its address has replaced. This may be one over TCP: it has routes for just those.
pub fn outbound(way: Outbound<'_>) -> (NetworkFilter, RouteConfig) {
    let Outbound { routes, protocol, stat_prefix, cluster, timeout_ms } = way;
    match protocol {
        Protocol::Tcp => (tcp_proxy(stat_prefix, cluster), route(routes, cluster, None)),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
            let limit = (protocol != Protocol::Grpc).then_some(RESPONSE_TIMEOUT_MS);
            let filters = grpc_filters(protocol).collect();
            let named = Routes::Rds(routes.to_owned());
            let manager = HttpManager { filters, ..manager(protocol, stat_prefix, named) };
            (NetworkFilter::Http(manager), route(routes, cluster, timeout_ms.or(limit)))
        }
    }
}

/// Passes bytes on to a cluster.
pub fn tcp_proxy(stat_prefix: &str, cluster: &str) -> NetworkFilter {
    NetworkFilter::TcpProxy(TcpProxy { stat_prefix: stat_prefix.to_owned(), cluster: cluster.to_owned() })
}

fn grpc_filters(protocol: Protocol) -> impl Iterator<Item = HttpFilter> {
    let filters = match protocol {
        Protocol::Grpc => vec![HttpFilter::GrpcStats, HttpFilter::GrpcHttp1Bridge],
        _ => vec![],
    };
    filters.into_iter()
}

fn route(name: &str, cluster: &str, timeout_ms: Option<u64>) -> RouteConfig {
    let (name, cluster) = (name.to_owned(), cluster.to_owned());
    RouteConfig { name, path: None, cluster, timeout_ms, idle_timeout_ms: None }
}

fn manager(protocol: Protocol, stat_prefix: &str, routes: Routes) -> HttpManager {
    HttpManager {
        stat_prefix: stat_prefix.to_owned(),
        http2: protocol.is_http2(),
        routes,
        filters: Vec::new(),
        forward_client_cert: false,
        tracing: None,
    }
}
