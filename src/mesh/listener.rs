//! The terminal filters of listeners, by protocol.

use crate::{
    model::chain::Protocol,
    xds::resource::{
        filter::{HttpFilter, HttpManager, NetworkFilter, Rbac, Routes, TcpProxy},
        route::RouteConfig,
    },
};

/// Envoy's own limit for a whole response, written out; streams of gRPC have none, or every long call would end here.
const RESPONSE_TIMEOUT_MS: u64 = 15_000;

/// ALPN protocols that a public listener offers.
pub fn alpn(protocol: Protocol) -> Vec<String> {
    let names: &[&str] = match protocol {
        Protocol::Tcp => &[],
        Protocol::Http => &["http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &["h2", "http/1.1"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Filters that authorize and lead to the local application. Over HTTP the decision is made for each request, so that
/// a new intention holds for connections that are already open and a denied caller is told 403.
pub fn inbound(protocol: Protocol, stat_prefix: &str, cluster: &str, rbac: Rbac) -> Vec<NetworkFilter> {
    if protocol == Protocol::Tcp {
        return vec![NetworkFilter::Rbac(rbac), tcp_proxy(stat_prefix, cluster)];
    }
    let filters = grpc_filters(protocol).chain([HttpFilter::Rbac(rbac)]).collect();
    vec![http(protocol, stat_prefix, cluster, None, filters, true)]
}

/// Filters that lead from the local application to an upstream's one cluster. `timeout_ms` is for a whole response.
pub fn outbound(
    protocol: Protocol,
    stat_prefix: &str,
    cluster: &str,
    timeout_ms: Option<u64>,
) -> NetworkFilter {
    if protocol == Protocol::Tcp {
        return tcp_proxy(stat_prefix, cluster);
    }
    let timeout_ms = timeout_ms.or((protocol != Protocol::Grpc).then_some(RESPONSE_TIMEOUT_MS));
    http(protocol, stat_prefix, cluster, timeout_ms, grpc_filters(protocol).collect(), false)
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

fn http(
    protocol: Protocol,
    stat_prefix: &str,
    cluster: &str,
    timeout_ms: Option<u64>,
    filters: Vec<HttpFilter>,
    forward_client_cert: bool,
) -> NetworkFilter {
    let routes = RouteConfig { name: stat_prefix.to_owned(), cluster: cluster.to_owned(), timeout_ms };
    NetworkFilter::Http(HttpManager {
        stat_prefix: stat_prefix.to_owned(),
        http2: protocol.is_http2(),
        routes: Routes::Inline(routes),
        filters,
        forward_client_cert,
    })
}
