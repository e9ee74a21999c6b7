//! By message equality: what was encoded is decoded again and compared, never its bytes.

mod http;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{self as clusters, cluster::ClusterDiscoveryType},
            core::v3::{HealthStatus, TrafficDirection, TransportSocket, transport_socket},
            endpoint::v3::ClusterLoadAssignment,
            listener::v3::{self as listeners, filter::ConfigType},
            rbac::v3::principal::Identifier,
            route::v3::RouteConfiguration,
        },
        extensions::{
            filters::network::{
                http_connection_manager::v3::{HttpConnectionManager, http_connection_manager as hcm},
                rbac::v3::Rbac as NetworkRbac,
                tcp_proxy::v3::{TcpProxy as TcpProxyMessage, tcp_proxy::ClusterSpecifier},
            },
            transport_sockets::tls::v3::{
                DownstreamTlsContext, Secret as SecretMessage, UpstreamTlsContext,
                common_tls_context::ValidationContextType, secret::Type,
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
            },
        },
    },
    google::protobuf::{Any, Duration},
};
use prost::{Message, Name};

use super::{Source, encode, value};
use crate::{
    model::{chain::Balance, mesh::TlsParams},
    xds::resource::{
        Kind, Resource,
        address::Address,
        cluster::{Cluster, Discovery, HttpVersion, Limits, Outlier, UpstreamTls},
        endpoints::{Endpoint, EndpointHealth, Endpoints},
        filter::{HttpFilter, HttpManager, NetworkFilter, Principal, Rbac, RbacAction, Routes, TcpProxy},
        listener::{Direction, DownstreamTls, FilterChain, Listener},
        route::RouteConfig,
        secret::{Secret, SecretContent, TlsSecrets},
    },
};

fn opened<M: Message + Name + Default>(any: &Any) -> M {
    assert_eq!(any.type_url, M::type_url());
    M::decode(any.value.as_slice()).unwrap()
}

fn cluster() -> Cluster {
    Cluster {
        name: "db".into(),
        stat_name: Some("db_stats".into()),
        connect_timeout_ms: 5_250,
        keepalive: None,
        discovery: Discovery::Eds,
        balance: None,
        tls: None,
        http: HttpVersion::One,
        outlier: None,
        limits: Limits::default(),
    }
}

fn cluster_message(cluster: Cluster) -> clusters::Cluster {
    opened(&encode(&Resource::Cluster(cluster)))
}

fn secrets() -> TlsSecrets {
    TlsSecrets { leaf: "leaf".into(), roots: "roots".into() }
}

#[test]
fn every_kind_has_its_type_url() {
    let route = Resource::Route(RouteConfig {
        name: "r".into(),
        path: None,
        cluster: "c".into(),
        timeout_ms: None,
        idle_timeout_ms: None,
    });
    assert_eq!(encode(&route).type_url, Kind::Route.type_url());
    assert_eq!(encode(&Resource::Cluster(cluster())).type_url, Kind::Cluster.type_url());
}

#[test]
fn an_eds_cluster_fetches_its_endpoints_over_ads() {
    let message = cluster_message(cluster());
    assert_eq!((message.name.as_str(), message.alt_stat_name.as_str()), ("db", "db_stats"));
    assert_eq!(message.connect_timeout, Some(Duration { seconds: 5, nanos: 250_000_000 }));
    assert_eq!(message.eds_cluster_config.unwrap().eds_config, Some(value::config_source(&Source::Ads)));
    let eds = clusters::cluster::DiscoveryType::Eds.into();
    assert_eq!(message.cluster_discovery_type, Some(ClusterDiscoveryType::Type(eds)));
    assert_eq!(message.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 0.0);
    assert_eq!((message.circuit_breakers, message.outlier_detection), (None, None));
    assert!(message.transport_socket.is_none() && message.typed_extension_protocol_options.is_empty());
}

#[test]
fn a_static_cluster_carries_its_endpoints() {
    let at = at("[::1]:80");
    let message = cluster_message(Cluster { discovery: Discovery::Static(vec![at.clone()]), ..cluster() });
    let assignment = message.load_assignment.unwrap();
    assert_eq!(assignment, super::endpoints::fixed("db", &[at]));
    assert_eq!(assignment.endpoints[0].lb_endpoints.len(), 1);
    assert!(message.eds_cluster_config.is_none());
}

fn at(text: &str) -> Address {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

#[test]
fn limits_and_outliers_are_written() {
    let message = cluster_message(Cluster {
        outlier: Some(Outlier {
            interval_ms: Some(100),
            max_ejection_percent: Some(50),
            ..Outlier::default()
        }),
        limits: Limits { max_connections: Some(1), ..Limits::default() },
        ..cluster()
    });
    let thresholds = &message.circuit_breakers.unwrap().thresholds[0];
    assert_eq!((thresholds.max_connections, thresholds.max_requests), (Some(value::number(1)), None));
    let outlier = message.outlier_detection.unwrap();
    assert_eq!(outlier.interval, Some(value::millis(100)));
    assert_eq!((outlier.max_ejection_percent, outlier.consecutive_5xx), (Some(value::number(50)), None));
}

#[test]
fn the_version_of_requests_is_written_where_it_is_not_envoys_default() {
    let options = |http| {
        let message = cluster_message(Cluster { http, ..cluster() });
        let options = message.typed_extension_protocol_options.into_values().next();
        options
            .map(|any| HttpProtocolOptions::decode(&*any.value).unwrap().upstream_protocol_options.unwrap())
    };
    assert_eq!(options(HttpVersion::One), None);
    let UpstreamProtocolOptions::ExplicitHttpConfig(explicit) = options(HttpVersion::Two).unwrap() else {
        panic!("not one version alone")
    };
    assert!(matches!(explicit.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_))));
    let Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(either)) = options(HttpVersion::OfCaller)
    else {
        panic!("not the version of the request")
    };
    assert!(either.http_protocol_options.is_some() && either.http2_protocol_options.is_some());
}

#[test]
fn the_way_of_balancing_is_written() {
    let message = |balance| cluster_message(Cluster { balance, ..cluster() });
    let policy = |balance| message(Some(balance)).lb_policy();
    assert_eq!(message(None).lb_policy(), clusters::cluster::LbPolicy::RoundRobin);
    assert_eq!(policy(Balance::Random), clusters::cluster::LbPolicy::Random);
    assert_eq!(policy(Balance::Maglev), clusters::cluster::LbPolicy::Maglev);
    let least = message(Some(Balance::LeastRequest { choices: Some(3) }));
    let Some(clusters::cluster::LbConfig::LeastRequestLbConfig(config)) = least.lb_config else {
        panic!("no choices")
    };
    assert_eq!(config.choice_count, Some(value::number(3)));
    let ring = message(Some(Balance::RingHash { minimum: Some(2048), maximum: None }));
    let Some(clusters::cluster::LbConfig::RingHashLbConfig(config)) = ring.lb_config else {
        panic!("no ring")
    };
    assert_eq!((config.minimum_ring_size.map(|it| it.value), config.maximum_ring_size), (Some(2048), None));
}

#[test]
fn an_aggregate_leaves_all_to_its_children_and_they_keep_their_load_while_they_can() {
    let discovery = Discovery::Aggregate(vec!["b".into(), "a".into()]);
    let message = cluster_message(Cluster { discovery, ..cluster() });
    assert_eq!(message.lb_policy(), clusters::cluster::LbPolicy::ClusterProvided);
    let of = |in_aggregate| {
        let endpoints = Endpoints { cluster: "a".into(), endpoints: BTreeMap::new(), in_aggregate };
        let message: ClusterLoadAssignment = opened(&encode(&Resource::Endpoints(endpoints)));
        message.policy.and_then(|policy| policy.overprovisioning_factor).map(|factor| factor.value)
    };
    assert_eq!((of(true), of(false)), (Some(100_000), None));
}

fn tls<M: Message + Name + Default>(socket: TransportSocket) -> M {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = socket.config_type else {
        panic!("no config")
    };
    opened(&any)
}

#[test]
fn upstream_tls_verifies_who_answers() {
    let sans = BTreeSet::from(["spiffe://a".to_owned(), "spiffe://b".to_owned()]);
    let context =
        UpstreamTls { sni: "db.dc1".into(), sans, secrets: secrets(), params: TlsParams::default() };
    let message = cluster_message(Cluster { tls: Some(context), ..cluster() });
    let context: UpstreamTlsContext = tls(message.transport_socket.unwrap());
    assert_eq!(context.sni, "db.dc1");
    let common = context.common_tls_context.unwrap();
    assert_eq!(common.tls_params.unwrap().tls_minimum_protocol_version, 3);
    assert_eq!(common.tls_certificate_sds_secret_configs[0].name, "leaf");
    let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type
    else {
        panic!("not combined")
    };
    let roots = combined.validation_context_sds_secret_config.unwrap();
    assert_eq!((roots.name.as_str(), roots.sds_config), ("roots", Some(value::config_source(&Source::Ads))));
    let matchers = combined.default_validation_context.unwrap().match_typed_subject_alt_names;
    let texts: Vec<_> = matchers.into_iter().map(|m| (m.san_type, m.matcher)).collect();
    assert_eq!(texts, [(3, Some(value::exactly("spiffe://a"))), (3, Some(value::exactly("spiffe://b")))]);
}

#[test]
fn endpoints_have_weight_and_health() {
    let with = |weight, health| Endpoint { weight, health };
    let endpoints = BTreeMap::from([
        (at("127.0.0.1:1"), with(1, EndpointHealth::Healthy)),
        (at("127.0.0.1:2"), with(7, EndpointHealth::Unhealthy)),
        (at("127.0.0.1:3"), with(1, EndpointHealth::Unknown)),
    ]);
    let resource = Resource::Endpoints(Endpoints { cluster: "db".into(), endpoints, in_aggregate: false });
    let message: ClusterLoadAssignment = opened(&encode(&resource));
    assert_eq!((message.cluster_name.as_str(), message.endpoints.len()), ("db", 1));
    let told: Vec<_> = message.endpoints[0]
        .lb_endpoints
        .iter()
        .map(|e| (e.health_status(), e.load_balancing_weight))
        .collect();
    assert_eq!(
        told,
        [
            (HealthStatus::Healthy, Some(value::number(1))),
            (HealthStatus::Unhealthy, Some(value::number(7))),
            (HealthStatus::Unknown, Some(value::number(1))),
        ]
    );
}

#[test]
fn no_endpoints_is_said_in_so_many_words() {
    let resource = Resource::Endpoints(Endpoints {
        cluster: "db".into(),
        endpoints: BTreeMap::new(),
        in_aggregate: false,
    });
    let message: ClusterLoadAssignment = opened(&encode(&resource));
    assert_eq!(message, super::endpoints::fixed("db", &[]));
}

fn listener(filters: Vec<NetworkFilter>) -> Listener {
    let chain = FilterChain { name: "only".into(), server_names: BTreeSet::new(), tls: None, filters };
    Listener {
        name: "l".into(),
        stat_prefix: None,
        address: at("127.0.0.1:80"),
        direction: Direction::Inbound,
        tls_inspector: false,
        exact_balance: false,
        chains: vec![chain],
    }
}

fn listener_message(listener: Listener) -> listeners::Listener {
    opened(&encode(&Resource::Listener(listener)))
}

fn filter<M: Message + Name + Default>(filter: NetworkFilter) -> M {
    let message = listener_message(listener(vec![filter]));
    let Some(ConfigType::TypedConfig(any)) = &message.filter_chains[0].filters[0].config_type else {
        panic!("no config")
    };
    opened(any)
}

#[test]
fn a_gateway_listener_chooses_by_server_name() {
    let mut gateway = listener(vec![NetworkFilter::SniCluster]);
    gateway.tls_inspector = true;
    gateway.chains[0].server_names = BTreeSet::from(["*.dc2".into()]);
    let message = listener_message(gateway);
    assert_eq!(message.listener_filters[0].name, "envoy.filters.listener.tls_inspector");
    assert!(message.listener_filters_timeout.is_some());
    assert_eq!(message.filter_chains[0].filter_chain_match.as_ref().unwrap().server_names, ["*.dc2"]);
    assert_eq!(message.filter_chains[0].filters[0].name, "envoy.filters.network.sni_cluster");
    assert_eq!(message.traffic_direction(), TrafficDirection::Inbound);
}

#[test]
fn a_listener_without_server_names_inspects_nothing() {
    let message = listener_message(listener(Vec::new()));
    assert!(message.listener_filters.is_empty() && message.listener_filters_timeout.is_none());
    assert_eq!(message.filter_chains[0].filter_chain_match, None);
    assert_eq!(message.address, Some(value::address(&at("127.0.0.1:80"))));
}

#[test]
fn downstream_tls_requires_a_certificate() {
    let mut public = listener(Vec::new());
    public.chains[0].tls =
        Some(DownstreamTls { secrets: secrets(), alpn: vec!["h2".into()], params: TlsParams::default() });
    let message = listener_message(public);
    let context: DownstreamTlsContext = tls(message.filter_chains[0].transport_socket.clone().unwrap());
    assert_eq!(context.require_client_certificate, Some(value::yes()));
    let common = context.common_tls_context.unwrap();
    assert_eq!(common.alpn_protocols, ["h2"]);
    let Some(ValidationContextType::ValidationContextSdsSecretConfig(roots)) = common.validation_context_type
    else {
        panic!("roots are not fetched")
    };
    assert_eq!(roots.name, "roots");
}

#[test]
fn tcp_proxy_never_idles_out() {
    let proxy = TcpProxy { stat_prefix: "p".into(), cluster: "db".into() };
    let message: TcpProxyMessage = filter(NetworkFilter::TcpProxy(proxy));
    assert_eq!(message.idle_timeout, Some(Duration::default()));
    assert_eq!(message.cluster_specifier, Some(ClusterSpecifier::Cluster("db".into())));
}

#[test]
fn principals_nest() {
    let regex = Principal::SpiffeRegex("^a$".into());
    let all = Principal::All(vec![regex, Principal::Not(Box::new(Principal::Any))]);
    let policies = BTreeMap::from([("p".to_owned(), BTreeSet::from([all]))]);
    let rbac = Rbac { stat_prefix: "r".into(), action: RbacAction::Deny, policies };
    let rules = filter::<NetworkRbac>(NetworkFilter::Rbac(rbac)).rules.unwrap();
    assert_eq!(rules.action, 1);
    let policy = &rules.policies["p"];
    assert_eq!(policy.permissions.len(), 1);
    let Some(Identifier::AndIds(set)) = &policy.principals[0].identifier else { panic!("not all of") };
    let Some(Identifier::Authenticated(who)) = &set.ids[0].identifier else { panic!("not a name") };
    assert_eq!(who.principal_name, Some(value::regex("^a$")));
    let Some(Identifier::NotId(not)) = &set.ids[1].identifier else { panic!("not a negation") };
    assert_eq!(not.identifier, Some(Identifier::Any(true)));
}

#[test]
fn secrets_travel_inline() {
    let content = SecretContent::Leaf { chain_pem: "chain".into(), key_pem: "key".into() };
    let message: SecretMessage = opened(&encode(&Resource::Secret(Secret { name: "leaf".into(), content })));
    let Some(Type::TlsCertificate(leaf)) = message.r#type else { panic!("not a certificate") };
    assert_eq!(
        (leaf.certificate_chain, leaf.private_key),
        (Some(value::inline("chain")), Some(value::inline("key")))
    );
    let content = SecretContent::Roots { pem: "pem".into() };
    let message: SecretMessage = opened(&encode(&Resource::Secret(Secret { name: "roots".into(), content })));
    let Some(Type::ValidationContext(roots)) = message.r#type else { panic!("not roots") };
    assert_eq!(roots.trusted_ca, Some(value::inline("pem")));
}
