//! Clusters.

use envoy_types::{
    pb::{
        envoy::{
            config::{
                cluster::v3::{
                    CircuitBreakers, Cluster as Message, OutlierDetection, UpstreamConnectionOptions,
                    circuit_breakers::Thresholds,
                    cluster::{
                        ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType,
                        EdsClusterConfig, LbConfig, LbPolicy, LeastRequestLbConfig, RingHashLbConfig,
                    },
                },
                core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, TcpKeepalive},
            },
            extensions::clusters::{
                aggregate::v3::ClusterConfig, common::dns::v3::DnsLookupFamily, dns::v3::DnsCluster,
            },
            extensions::upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                    explicit_http_config::ProtocolConfig,
                },
            },
            r#type::v3::Percent,
        },
        google::protobuf::{Any, UInt64Value},
    },
    util::pack_any,
};

use crate::{
    model::chain::Balance,
    xds::{
        encode::{
            Source, endpoints, tls,
            value::{config_source, millis, number},
        },
        resource::cluster::{Cluster, Discovery, Dns, HttpVersion, Keepalive, Limits, Outlier, Resolution},
    },
};

const DNS: &str = "envoy.cluster.dns";
const AGGREGATE: &str = "envoy.clusters.aggregate";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn message(cluster: &Cluster, source: &Source) -> Message {
    let mut message = Message {
        name: cluster.name.clone(),
        alt_stat_name: cluster.stat_name.clone().unwrap_or_default(),
        connect_timeout: Some(millis(cluster.connect_timeout_ms)),
        upstream_connection_options: cluster.keepalive.as_deref().map(keepalive),
        // Envoy's default of 50 would send traffic to endpoints known to be unhealthy.
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..CommonLbConfig::default()
        }),
        outlier_detection: cluster.outlier.as_ref().map(outlier),
        circuit_breakers: limits(&cluster.limits),
        transport_socket: cluster.tls.as_ref().map(|upstream| tls::upstream(upstream, source)),
        ..Message::default()
    };
    if let Some(options) = http(cluster.http) {
        message.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack_any(options));
    }
    if let Some(balance) = cluster.balance {
        spread(&mut message, balance);
    }
    match &cluster.discovery {
        Discovery::Eds => {
            message.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
            let eds_config = Some(config_source(source));
            message.eds_cluster_config = Some(EdsClusterConfig { eds_config, ..EdsClusterConfig::default() });
        }
        Discovery::Static(addresses) => {
            message.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
            message.load_assignment = Some(endpoints::fixed(&cluster.name, addresses));
        }
        Discovery::Dns(dns) => resolve(&mut message, dns),
        Discovery::Aggregate(children) => aggregate(&mut message, children),
    }
    message
}

fn spread(message: &mut Message, balance: Balance) {
    let policy = match balance {
        Balance::RoundRobin => LbPolicy::RoundRobin,
        Balance::Random => LbPolicy::Random,
        Balance::LeastRequest { choices } => {
            message.lb_config = choices.map(|count| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    choice_count: Some(number(count)),
                    ..LeastRequestLbConfig::default()
                })
            });
            LbPolicy::LeastRequest
        }
        Balance::RingHash { minimum, maximum } => {
            let size = |value: Option<u64>| value.map(|value| UInt64Value { value });
            message.lb_config = (minimum, maximum).ne(&(None, None)).then(|| {
                LbConfig::RingHashLbConfig(RingHashLbConfig {
                    minimum_ring_size: size(minimum),
                    maximum_ring_size: size(maximum),
                    ..RingHashLbConfig::default()
                })
            });
            LbPolicy::RingHash
        }
        Balance::Maglev => LbPolicy::Maglev,
    };
    message.lb_policy = policy.into();
}

fn resolve(message: &mut Message, dns: &Dns) {
    let config = DnsCluster {
        dns_refresh_rate: Some(millis(dns.refresh_ms)),
        // A name may have addresses of both families, and a host without IPv6 routes must not be left with those.
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        all_addresses_in_single_endpoint: dns.resolution == Resolution::Logical,
        ..DnsCluster::default()
    };
    message.cluster_discovery_type = Some(custom(DNS, pack_any(config)));
    message.load_assignment = Some(endpoints::resolved(&message.name, dns));
}

/// Which endpoint is taken is decided by the children: their load balancing, health and outlier detection count.
fn aggregate(message: &mut Message, children: &[String]) {
    message.lb_policy = LbPolicy::ClusterProvided.into();
    let config = ClusterConfig { clusters: children.to_vec() };
    message.cluster_discovery_type = Some(custom(AGGREGATE, pack_any(config)));
    message.common_lb_config = None;
}

fn custom(name: &str, config: Any) -> ClusterDiscoveryType {
    ClusterDiscoveryType::ClusterType(CustomClusterType { name: name.to_owned(), typed_config: Some(config) })
}

fn http(version: HttpVersion) -> Option<HttpProtocolOptions> {
    let one = Http1ProtocolOptions::default;
    let two = Http2ProtocolOptions::default;
    let options = match version {
        // Envoy's default.
        HttpVersion::One => return None,
        HttpVersion::Two => {
            let protocol_config = Some(ProtocolConfig::Http2ProtocolOptions(two()));
            UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config })
        }
        HttpVersion::OfCaller => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(one()),
                http2_protocol_options: Some(two()),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    Some(HttpProtocolOptions { upstream_protocol_options: Some(options), ..HttpProtocolOptions::default() })
}

fn outlier(outlier: &Outlier) -> OutlierDetection {
    OutlierDetection {
        interval: outlier.interval_ms.map(millis),
        consecutive_5xx: outlier.consecutive_5xx.map(number),
        enforcing_consecutive_5xx: outlier.enforcing_consecutive_5xx.map(number),
        base_ejection_time: outlier.base_ejection_time_ms.map(millis),
        max_ejection_percent: outlier.max_ejection_percent.map(number),
        ..OutlierDetection::default()
    }
}

fn keepalive(keepalive: &Keepalive) -> UpstreamConnectionOptions {
    let Keepalive { time_s, interval_s, probes } = *keepalive;
    UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_time: time_s.map(number),
            keepalive_interval: interval_s.map(number),
            keepalive_probes: probes.map(number),
        }),
        ..UpstreamConnectionOptions::default()
    }
}

fn limits(limits: &Limits) -> Option<CircuitBreakers> {
    (*limits != Limits::default()).then(|| CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: limits.max_connections.map(number),
            max_pending_requests: limits.max_pending_requests.map(number),
            max_requests: limits.max_requests.map(number),
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    })
}
