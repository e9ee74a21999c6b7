//! Resources without the secrets in them, for people to look at.

use base64::{Engine, prelude::BASE64_STANDARD};
use envoy_types::pb::google::protobuf::Any;
use serde_json::Value;

use crate::{
    model::secret::{REDACTED, SecretText, names_a_secret},
    xds::{
        encode, json,
        resource::{
            Resource,
            secret::{Secret, SecretContent},
        },
    },
};

/// The resource as Envoy is given it, without private keys, and without what looks like a secret in a message that a
/// user wrote.
pub(super) fn encoded(resource: &Resource) -> Any {
    match resource {
        Resource::Secret(Secret { name, content: SecretContent::Leaf { chain_pem, .. } }) => {
            let content =
                SecretContent::Leaf { chain_pem: chain_pem.clone(), key_pem: SecretText::from(REDACTED) };
            encode::encode(&Resource::Secret(Secret { name: name.clone(), content }))
        }
        Resource::CustomCluster(_) | Resource::CustomListener(_) => without_secrets(encode::encode(resource)),
        other => encode::encode(other),
    }
}

/// What cannot be looked into is not shown at all.
fn without_secrets(any: Any) -> Any {
    let shown = json::to_json(&any.type_url, &any.value).and_then(|mut json| {
        hide(&mut json, false);
        json::from_json(&any.type_url, &json)
    });
    Any { value: shown.unwrap_or_default(), ..any }
}

fn hide(value: &mut Value, is_secret: bool) {
    match value {
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| hide_field(name, value, is_secret))
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(text) if is_secret => REDACTED.clone_into(text),
                    item => hide(item, is_secret),
                }
            }
        }
        _ => {}
    }
}

fn hide_field(name: &str, value: &mut Value, is_secret: bool) {
    let is_secret = names_a_secret(name, is_secret);
    match value {
        Value::String(text) if is_secret && name == "inline_bytes" => {
            *text = BASE64_STANDARD.encode(REDACTED)
        }
        Value::String(text) if is_secret && name != "@type" => REDACTED.clone_into(text),
        value => hide(value, is_secret),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_users_message_keeps_its_shape_and_loses_its_secrets() {
        const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let key = json!({ "private_key": { "inline_string": "KEY" }, "password": { "inline_bytes": "S0VZ" },
            "certificate_chain": { "inline_string": "CHAIN" } });
        let tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "db.example", "common_tls_context": { "tls_certificates": [key] },
        });
        let cluster = json!({ "name": "db", "transport_socket": {
            "name": "envoy.transport_sockets.tls", "typed_config": tls } });
        let any = Any { type_url: CLUSTER.into(), value: json::from_json(CLUSTER, &cluster).unwrap() };
        let shown = json::to_json(CLUSTER, &without_secrets(any).value).unwrap();
        let text = shown.to_string();
        assert!(text.contains("db.example") && text.contains("CHAIN") && text.contains(REDACTED), "{text}");
        assert!(!text.contains("KEY") && !text.contains("S0VZ"), "{text}");
    }
}
