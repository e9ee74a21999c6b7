//! Network filters.

use envoy_types::{
    pb::{
        envoy::{
            config::listener::v3::{Filter, filter::ConfigType},
            extensions::filters::network::{
                connection_limit::v3::ConnectionLimit as LimitMessage,
                sni_cluster::v3::SniCluster,
                tcp_proxy::v3::{TcpProxy as TcpProxyMessage, tcp_proxy::ClusterSpecifier},
            },
        },
        google::protobuf::{Any, UInt64Value},
    },
    util::pack_any,
};

use crate::xds::{
    encode::{Source, http, rbac, value::millis},
    resource::filter::{ConnectionLimit, NetworkFilter, TcpProxy},
};

pub(super) fn message(filter: &NetworkFilter, source: &Source) -> Filter {
    let (name, config) = match filter {
        NetworkFilter::TcpProxy(proxy) => ("envoy.filters.network.tcp_proxy", tcp_proxy(proxy)),
        NetworkFilter::SniCluster => ("envoy.filters.network.sni_cluster", pack_any(SniCluster {})),
        NetworkFilter::Rbac(rbac) => ("envoy.filters.network.rbac", pack_any(rbac::network(rbac))),
        NetworkFilter::ConnectionLimit(limit) => {
            ("envoy.filters.network.connection_limit", connection_limit(limit))
        }
        NetworkFilter::Http(manager) => {
            ("envoy.filters.network.http_connection_manager", pack_any(http::manager(manager, source)))
        }
    };
    Filter { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}

fn connection_limit(limit: &ConnectionLimit) -> Any {
    pack_any(LimitMessage {
        stat_prefix: limit.stat_prefix.clone(),
        max_connections: Some(UInt64Value { value: limit.max_connections.into() }),
        ..LimitMessage::default()
    })
}

fn tcp_proxy(proxy: &TcpProxy) -> Any {
    pack_any(TcpProxyMessage {
        stat_prefix: proxy.stat_prefix.clone(),
        // Zero switches it off; unset would mean one hour.
        idle_timeout: Some(millis(0)),
        cluster_specifier: Some(ClusterSpecifier::Cluster(proxy.cluster.clone())),
        ..TcpProxyMessage::default()
    })
}
