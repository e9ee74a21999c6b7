//! Network filters.

use envoy_types::{
    pb::{
        envoy::{
            config::listener::v3::{Filter, filter::ConfigType},
            extensions::filters::network::{
                sni_cluster::v3::SniCluster,
                tcp_proxy::v3::{TcpProxy as TcpProxyMessage, tcp_proxy::ClusterSpecifier},
            },
        },
        google::protobuf::Any,
    },
    util::pack_any,
};

use crate::xds::{
    encode::{Source, http, rbac, value::millis},
    resource::filter::{NetworkFilter, TcpProxy},
};

pub(super) fn message(filter: &NetworkFilter, source: &Source) -> Filter {
    let (name, config) = match filter {
        NetworkFilter::TcpProxy(proxy) => ("envoy.filters.network.tcp_proxy", tcp_proxy(proxy)),
        NetworkFilter::SniCluster => ("envoy.filters.network.sni_cluster", pack_any(SniCluster {})),
        NetworkFilter::Rbac(rbac) => ("envoy.filters.network.rbac", pack_any(rbac::network(rbac))),
        NetworkFilter::Http(manager) => {
            ("envoy.filters.network.http_connection_manager", pack_any(http::manager(manager, source)))
        }
    };
    Filter { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
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
