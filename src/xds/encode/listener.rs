//! Listeners.

use std::net::{IpAddr, Ipv6Addr};

use envoy_types::{
    pb::envoy::{
        config::{
            core::v3::{Address as AddressMessage, TrafficDirection, address::Address as Specifier},
            listener::v3::{
                FilterChain as ChainMessage, FilterChainMatch, Listener as Message, ListenerFilter,
                listener::{
                    ConnectionBalanceConfig,
                    connection_balance_config::{BalanceType, ExactBalance},
                },
                listener_filter::ConfigType,
            },
        },
        extensions::filters::listener::tls_inspector::v3::TlsInspector,
    },
    util::pack_any,
};

use crate::xds::{
    encode::{
        Source, filter, tls,
        value::{address, millis, yes},
    },
    resource::{
        address::Address,
        listener::{Direction, FilterChain, Listener},
    },
};

/// How long a client may take to say which server it wants. One that says nothing holds a connection for no longer.
const INSPECTION_TIMEOUT_MS: u64 = 10_000;

pub(super) fn message(listener: &Listener, source: &Source) -> Message {
    let direction = match listener.direction {
        Direction::Inbound => TrafficDirection::Inbound,
        Direction::Outbound => TrafficDirection::Outbound,
        Direction::Unspecified => TrafficDirection::Unspecified,
    };
    Message {
        name: listener.name.clone(),
        stat_prefix: listener.stat_prefix.clone().unwrap_or_default(),
        address: Some(bound(&listener.address)),
        traffic_direction: direction.into(),
        listener_filters: listener.tls_inspector.then(tls_inspector).into_iter().collect(),
        listener_filters_timeout: listener.tls_inspector.then(|| millis(INSPECTION_TIMEOUT_MS)),
        filter_chains: listener.chains.iter().map(|c| chain(c, source)).collect(),
        connection_balance_config: listener.exact_balance.then(exact_balance),
        enable_reuse_port: listener.exact_balance.then(yes),
        ..Message::default()
    }
}

/// Envoy (1.40) takes a listener with nothing but this for unchanged, since the message is empty but for its kind, and
/// goes on without. `enable_reuse_port`, which is its default and means nothing for Unix sockets, makes the difference that
/// it sees.
fn exact_balance() -> ConnectionBalanceConfig {
    ConnectionBalanceConfig { balance_type: Some(BalanceType::ExactBalance(ExactBalance {})) }
}

/// Every address of IPv6 means every address: clients over IPv4 come as well.
fn bound(at: &Address) -> AddressMessage {
    let mut message = address(at);
    if let (Address::Socket(at), Some(Specifier::SocketAddress(socket))) = (at, &mut message.address) {
        socket.ipv4_compat = at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    }
    message
}

fn tls_inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(TlsInspector::default()))),
        ..ListenerFilter::default()
    }
}

fn chain(chain: &FilterChain, source: &Source) -> ChainMessage {
    let matching = (!chain.server_names.is_empty()).then(|| FilterChainMatch {
        server_names: chain.server_names.iter().cloned().collect(),
        ..FilterChainMatch::default()
    });
    ChainMessage {
        name: chain.name.clone(),
        filter_chain_match: matching,
        transport_socket: chain.tls.as_ref().map(|downstream| tls::downstream(downstream, source)),
        filters: chain.filters.iter().map(|f| filter::message(f, source)).collect(),
        ..ChainMessage::default()
    }
}
