//! Names of Envoy's v2 API, which people bring along from Consul up to 1.9, and what v3 has instead.

use serde_json::Value;

use crate::xds::resource::custom::Refused;

/// A field or type of v2 that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outdated {
    what: String,
    instead: String,
    /// The v3 API has no such thing anywhere, so that the message cannot be meant for it.
    pub(super) is_certain: bool,
}

/// Fields of v2 that v3 does not have in the same place.
const FIELDS: [(&str, &str); 9] = [
    (
        "tls_context",
        "`transport_socket`, with a `typed_config` of type envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext or DownstreamTlsContext",
    ),
    ("hosts", "`load_assignment`"),
    ("config", "`typed_config`, with its `@type`"),
    ("per_filter_config", "`typed_per_filter_config`"),
    ("extension_protocol_options", "`typed_extension_protocol_options`"),
    ("verify_subject_alt_name", "`match_typed_subject_alt_names`"),
    ("operation_name", "the listener's `traffic_direction`"),
    ("regex_match", "`string_match` with `safe_regex`"),
    ("use_proxy_proto", "the listener filter envoy.filters.listener.proxy_protocol"),
];

/// Packages of v2 and their successors.
const PACKAGES: [(&str, &str); 9] = [
    ("envoy.config.filter.network.", "envoy.extensions.filters.network.<name>.v3"),
    ("envoy.config.filter.http.", "envoy.extensions.filters.http.<name>.v3"),
    ("envoy.config.filter.listener.", "envoy.extensions.filters.listener.<name>.v3"),
    ("envoy.api.v2.auth.", "envoy.extensions.transport_sockets.tls.v3"),
    ("envoy.api.v2.", "envoy.config.<cluster, listener or route>.v3"),
    ("envoy.config.accesslog.v2", "envoy.extensions.access_loggers.<name>.v3"),
    ("envoy.config.trace.v2", "envoy.config.trace.v3"),
    ("envoy.config.metrics.v2", "envoy.config.metrics.v3"),
    ("envoy.config.", "the same name in v3"),
];

impl Outdated {
    pub(super) fn refusal(&self) -> Refused {
        Refused::new(
            format!("is written for Envoy's v2 API, which is gone: it has {}", self.what),
            format!("write {} instead, and the rest after the v3 API", self.instead),
        )
    }
}

/// Everything of v2 in `json`, outermost first.
pub(super) fn found(json: &Value) -> Vec<Outdated> {
    let mut all = Vec::new();
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "@type"
                    && let Some(old) = value.as_str().and_then(of_type)
                {
                    all.push(old);
                }
                if let Some((field, instead)) = FIELDS.iter().find(|(field, _)| is_field(key, field)) {
                    let what = format!("`{field}`");
                    all.push(Outdated { what, instead: (*instead).to_owned(), is_certain: false });
                }
            }
            all.extend(fields.values().flat_map(found));
        }
        Value::Array(items) => all.extend(items.iter().flat_map(found)),
        _ => {}
    }
    all
}

/// In snake case or in camel case: protobuf's JSON takes both.
fn is_field(key: &str, field: &str) -> bool {
    key == field || key.chars().map(|c| c.to_ascii_lowercase()).eq(field.chars().filter(|c| *c != '_'))
}

fn of_type(type_url: &str) -> Option<Outdated> {
    let name = type_url.rsplit('/').next()?;
    let is_v2 = name.split('.').any(|part| part == "v2" || part.starts_with("v2alpha"));
    let (_, instead) = PACKAGES.iter().find(|(package, _)| is_v2 && name.starts_with(package))?;
    let what = format!("the type {name}");
    Some(Outdated { what, instead: format!("a type of {instead}"), is_certain: true })
}
