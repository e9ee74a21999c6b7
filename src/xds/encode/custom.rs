//! Messages of users, with what the mesh insists on.

use envoy_types::{
    pb::envoy::{
        config::{
            cluster::v3::Cluster,
            listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::Tracing,
        },
    },
    util::pack_any,
};
use prost::{Message, Name};

use crate::xds::{
    encode::{Source, filter, http, tls},
    resource::{
        custom::{CustomCluster, CustomListener, CustomMessage, Guard},
        filter::{ConnectionLimit, HttpFilter, NetworkFilter, Rbac},
    },
};

pub(super) fn cluster(custom: &CustomCluster, source: &Source) -> Cluster {
    let mut message: Cluster = decoded(&custom.message);
    if let Some(tls) = &custom.tls {
        message.transport_socket = Some(tls::upstream(tls, source));
        message.transport_socket_matches.clear();
    }
    message
}

pub(super) fn listener(custom: &CustomListener, source: &Source) -> Listener {
    let mut message: Listener = decoded(&custom.message);
    if let Some(guard) = &custom.guard {
        for chain in message.filter_chains.iter_mut().chain(&mut message.default_filter_chain) {
            protect(chain, guard, source);
        }
    }
    message
}

pub(super) fn tracing(custom: &CustomMessage) -> Tracing {
    decoded(custom)
}

fn decoded<M: Message + Default>(custom: &CustomMessage) -> M {
    M::decode(custom.bytes()).expect("its bytes were made from a message of this type")
}

fn protect(chain: &mut FilterChain, guard: &Guard, source: &Source) {
    chain.transport_socket = Some(tls::downstream(&guard.tls, source));
    let mut filters = Vec::with_capacity(chain.filters.len() + 2);
    if let Some(max_connections) = guard.max_connections {
        let stat_prefix = "inbound_connection_limit".to_owned();
        let limit = NetworkFilter::ConnectionLimit(ConnectionLimit { stat_prefix, max_connections });
        filters.push(filter::message(&limit, source));
    }
    if !authorize_requests(&mut chain.filters, &guard.rbac) {
        filters.push(filter::message(&NetworkFilter::Rbac(guard.rbac.clone()), source));
    }
    filters.append(&mut chain.filters);
    chain.filters = filters;
}

/// Puts the decision in front of all filters of the connection manager, if there is one.
fn authorize_requests(filters: &mut [Filter], rbac: &Rbac) -> bool {
    for filter in filters {
        let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
        if any.type_url != HttpConnectionManager::type_url() {
            continue;
        }
        let Ok(mut manager) = HttpConnectionManager::decode(&*any.value) else { continue };
        let decision = http::filter(&HttpFilter::Rbac(rbac.clone()));
        // An upgrade with filters of its own passes by all others.
        let upgrades = manager.upgrade_configs.iter_mut().map(|upgrade| &mut upgrade.filters);
        for filters in upgrades.filter(|filters| !filters.is_empty()) {
            filters.insert(0, decision.clone());
        }
        manager.http_filters.insert(0, decision);
        *any = pack_any(manager);
        return true;
    }
    false
}
