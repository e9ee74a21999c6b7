//! Small messages that occur everywhere: durations, addresses, where to fetch from, matchers.

use std::net::SocketAddr;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress, address,
            config_source::ConfigSourceSpecifier, data_source, socket_address::PortSpecifier,
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{BoolValue, Duration, UInt32Value},
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

pub(super) fn address(at: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// Over the ADS stream, v3.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        ..ConfigSource::default()
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
