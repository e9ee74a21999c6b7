//! What is asked for, by flags or in Consul, and not acted on yet: texts to warn with. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::envoy::{choose::LocalService, register::GatewayRegistration};

/// Settings of a proxy that `consul connect envoy` writes into the bootstrap and `causeway envoy` does not.
const NOT_BUILT: [&str; 12] = [
    "envoy_bootstrap_json_tpl",
    "envoy_dogstatsd_url",
    "envoy_extra_static_clusters_json",
    "envoy_extra_static_listeners_json",
    "envoy_extra_stats_sinks_json",
    "envoy_prometheus_bind_addr",
    "envoy_stats_bind_addr",
    "envoy_stats_config_json",
    "envoy_stats_flush_interval",
    "envoy_stats_tags",
    "envoy_statsd_url",
    "envoy_tracing_json",
];

/// One text for each setting in the proxy's `Proxy.Config` that is not built yet.
pub(super) fn of_settings(service: &LocalService) -> Vec<String> {
    let config = service.proxy.as_ref().and_then(|proxy| proxy.config.as_ref());
    let is_set = |config: &BTreeMap<String, Value>, key: &str| match config.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    NOT_BUILT
        .iter()
        .filter(|key| config.is_some_and(|config| is_set(config, key)))
        .map(|key| {
            format!(
                "`{key}` in the Proxy.Config of `{}` is not built yet: Envoy starts without it",
                service.id
            )
        })
        .collect()
}

/// One text for each address of a gateway that other gateways cannot follow.
pub(super) fn of_addresses(registration: &GatewayRegistration) -> Vec<String> {
    let wan = registration.wan.as_ref().map(|wan| &wan.host);
    [("--address", registration.address.as_ref()), ("--wan-address", wan)]
        .into_iter()
        .filter_map(|(flag, host)| Some((flag, host?)))
        .filter(|(_, host)| host.parse::<std::net::IpAddr>().is_err())
        .map(|(flag, host)| {
            format!(
                "{flag}: `{host}` is a host name, which Causeway's gateways do not follow yet: they leave this gateway \
                 out, with a note; give an IP address"
            )
        })
        .collect()
}
