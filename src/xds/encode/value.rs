//! Small messages that occur everywhere: durations, addresses, where to fetch from, matchers.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address as Message, AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource,
            DataSource, GrpcService, HeaderValue, Pipe, SocketAddress, address,
            api_config_source::ApiType,
            config_source::ConfigSourceSpecifier,
            data_source,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            socket_address::PortSpecifier,
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{BoolValue, Duration, UInt32Value},
};

use crate::{
    model::secret::SecretText,
    xds::{
        encode::{Protocol, Source, TOKEN_HEADER},
        resource::address::Address,
    },
};

const MILLIS_PER_SECOND: u64 = 1_000;
const NANOS_PER_MILLI: i32 = 1_000_000;

pub(super) fn millis(ms: u64) -> Duration {
    let nanos = i32::try_from(ms % MILLIS_PER_SECOND).unwrap_or_default() * NANOS_PER_MILLI;
    Duration { seconds: i64::try_from(ms / MILLIS_PER_SECOND).unwrap_or(i64::MAX), nanos }
}

pub(super) fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(super) fn yes() -> BoolValue {
    BoolValue { value: true }
}

pub(super) fn address(at: &Address) -> Message {
    let address = match at {
        Address::Socket(at) => socket(&at.ip().to_string(), at.port()),
        Address::Pipe(pipe) => {
            address::Address::Pipe(Pipe { path: pipe.path.clone(), mode: pipe.mode.unwrap_or_default() })
        }
    };
    Message { address: Some(address) }
}

/// A host name, which Envoy resolves.
pub(super) fn host(name: &str, port: u16) -> Message {
    Message { address: Some(socket(name, port)) }
}

fn socket(host: &str, port: u16) -> address::Address {
    address::Address::SocketAddress(SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    })
}

/// Where to fetch a resource that is named, v3.
pub(super) fn config_source(source: &Source) -> ConfigSource {
    let specifier = match source {
        Source::Ads => ConfigSourceSpecifier::Ads(AggregatedConfigSource::default()),
        Source::Services { protocol, cluster, token } => {
            ConfigSourceSpecifier::ApiConfigSource(services(*protocol, cluster, token.as_ref()))
        }
    };
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(specifier),
        ..ConfigSource::default()
    }
}

/// Envoy shows the token with its configuration, as it shows it with its bootstrap, from where it came.
fn services(protocol: Protocol, cluster: &str, token: Option<&SecretText>) -> ApiConfigSource {
    let api_type = match protocol {
        Protocol::Delta => ApiType::DeltaGrpc,
        Protocol::StateOfTheWorld => ApiType::Grpc,
    };
    let header = |token: &SecretText| HeaderValue {
        key: TOKEN_HEADER.to_owned(),
        value: token.expose().to_owned(),
        ..HeaderValue::default()
    };
    let envoy = EnvoyGrpc { cluster_name: cluster.to_owned(), ..EnvoyGrpc::default() };
    ApiConfigSource {
        api_type: api_type.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)),
            initial_metadata: token.map(header).into_iter().collect(),
            ..GrpcService::default()
        }],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    }
}

pub(super) fn inline(text: &str) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
        ..DataSource::default()
    }
}

pub(super) fn exactly(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.to_owned())), ..StringMatcher::default() }
}

pub(super) fn regex(expression: &str) -> StringMatcher {
    let regex = RegexMatcher { regex: expression.to_owned(), ..RegexMatcher::default() };
    StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex)), ..StringMatcher::default() }
}
