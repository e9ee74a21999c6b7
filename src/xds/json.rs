//! Envoy's protobuf messages as the JSON that Envoy itself reads and dumps, in both directions.
//!
//! The descriptors of all messages are embedded at build time and decoded at the first use: by the command line, and by
//! an agent of whose proxies one has an escape hatch. All others never pay for them.

use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy-types.bin"));

/// Why a message could not be shown as JSON, or read from it.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The embedded descriptors cannot be read: this build is broken.
    #[error(
        "read the embedded descriptors of Envoy's messages: {0}; this build of causeway is broken, build it again"
    )]
    Descriptors(String),
    /// No message has that type URL.
    #[error("show {type_url} as JSON: unknown type; the agent and this command may be of different versions")]
    UnknownType {
        /// The type URL.
        type_url: String,
    },
    /// The bytes are not such a message, or it holds a message of an unknown type.
    #[error("show {type_url} as JSON: {reason}")]
    Message {
        /// The type URL.
        type_url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The JSON is not such a message. May quote a value of it, which must not be shown.
    #[error("{0}")]
    Json(String),
}

/// The message of that type as JSON in the form of Envoy's own dumps: field names in snake case, fields at their
/// defaults left out, nested messages of any type shown with their `@type`. The order of keys is stable.
pub fn to_json(type_url: &str, bytes: &[u8]) -> Result<Value, JsonError> {
    let descriptor = descriptor(type_url)?;
    let broken = |reason: String| JsonError::Message { type_url: type_url.to_owned(), reason };
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|error| broken(error.to_string()))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| broken(error.to_string()))
}

/// The bytes of the message of that type that this JSON tells. Fields in snake case or camel case; a field or a nested
/// type that is not known is an error.
pub fn from_json(type_url: &str, json: &Value) -> Result<Vec<u8>, JsonError> {
    let message = DynamicMessage::deserialize(descriptor(type_url)?, json)
        .map_err(|error| JsonError::Json(error.to_string()))?;
    Ok(message.encode_to_vec())
}

fn descriptor(type_url: &str) -> Result<MessageDescriptor, JsonError> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    pool()?.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType { type_url: type_url.to_owned() })
}

fn pool() -> Result<&'static DescriptorPool, JsonError> {
    static POOL: OnceLock<Result<DescriptorPool, String>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).map_err(|error| error.to_string()))
        .as_ref()
        .map_err(|error| JsonError::Descriptors(error.clone()))
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::{
        envoy::config::{
            cluster::v3::Cluster,
            listener::v3::{Filter, FilterChain, Listener, filter},
        },
        envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy},
        google::protobuf::{Any, Duration},
    };
    use prost::Message;
    use serde_json::json;

    use super::*;

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    #[test]
    fn durations_are_text_and_names_are_in_snake_case() {
        let cluster = Cluster {
            name: "counting".into(),
            connect_timeout: Some(Duration { seconds: 5, nanos: 0 }),
            ..Cluster::default()
        };
        let json = to_json(CLUSTER, &cluster.encode_to_vec()).unwrap();
        assert_eq!(json, json!({"name": "counting", "connect_timeout": "5s"}));
    }

    #[test]
    fn nested_messages_carry_their_type() {
        let proxy = TcpProxy {
            stat_prefix: "counting".into(),
            cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster("counting".into())),
            ..TcpProxy::default()
        };
        let type_url = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        let filter = Filter {
            name: "tcp".into(),
            config_type: Some(filter::ConfigType::TypedConfig(Any {
                type_url: type_url.into(),
                value: proxy.encode_to_vec(),
            })),
        };
        let listener = Listener {
            name: "public".into(),
            filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
            ..Listener::default()
        };
        let json =
            to_json("type.googleapis.com/envoy.config.listener.v3.Listener", &listener.encode_to_vec())
                .unwrap();
        assert_eq!(
            json["filter_chains"][0]["filters"][0]["typed_config"],
            json!({"@type": type_url, "stat_prefix": "counting", "cluster": "counting"})
        );
    }

    #[test]
    fn what_cannot_be_shown_is_named() {
        let unknown = to_json("type.googleapis.com/no.such.Message", &[]).unwrap_err();
        assert!(matches!(unknown, JsonError::UnknownType { .. }), "{unknown}");
        let garbage = to_json(CLUSTER, &[0xff, 0xff, 0xff]).unwrap_err();
        assert!(garbage.to_string().contains("Cluster as JSON"), "{garbage}");
    }
}
