//! Tags for Envoy's statistics: what Consul's dashboards and alerts already query by (`consul.destination.service`,
//! `consul.destination.datacenter`, ...), taken from the names of clusters and listeners.
//!
//! Envoy removes a pattern's first group from the name of the statistic and takes the second as the tag's value. All
//! patterns see the whole name. Each pattern matches only names that have the part it is for, so that no statistic
//! carries an empty tag.

use serde_json::{Value, json};

/// The only namespace of Consul without the enterprise extensions.
pub(super) const NAMESPACE: &str = "default";

/// A hash before the name: the cluster of a discovery chain with overrides.
const HASH: &str = "(?:[^.~]+~)?";
/// One part of a name.
const PART: &str = "[^.]+";
/// What follows the datacenter: a trust domain is always two parts, `<cluster id>.consul`.
const DOMAIN: &str = r"[^.]+\.consul";

/// Tags of the cluster names `[hash~][subset.]service.namespace.datacenter.internal.trust-domain` and, for a whole
/// datacenter behind its gateways, `datacenter.internal.trust-domain`.
fn destination_tags() -> [(&'static str, String); 9] {
    let subset = format!(r"(?:{PART}\.)?");
    let service = format!(r"{PART}\.{PART}\.{PART}");
    [
        ("custom_hash", format!(r"(([^.~]+)~){subset}{service}\.internal\.{DOMAIN}\.")),
        ("service_subset", format!(r"({HASH}({PART})\.{service}\.internal\.{DOMAIN}\.)")),
        ("service", format!(r"({HASH}{subset}([^.~]+)\.{PART}\.{PART}\.internal\.{DOMAIN}\.)")),
        ("namespace", format!(r"({HASH}{subset}{PART}\.({PART})\.{PART}\.internal\.{DOMAIN}\.)")),
        ("datacenter", format!(r"((?:{HASH}{subset}{PART}\.{PART}\.)?({PART})\.internal\.{DOMAIN}\.)")),
        ("routing_type", format!(r"((?:{HASH}{subset}{PART}\.{PART}\.)?{PART}\.(internal)\.{DOMAIN}\.)")),
        ("trust_domain", format!(r"((?:{HASH}{subset}{PART}\.{PART}\.)?{PART}\.internal\.({DOMAIN})\.)")),
        ("target", format!(r"({HASH}((?:[^.~]+\.)?[^.~]+\.{PART}\.{PART})\.internal\.{DOMAIN}\.)")),
        ("full_target", format!(r"(((?:{HASH}{subset}{PART}\.{PART}\.)?{PART}\.internal\.{DOMAIN})\.)")),
    ]
}

/// Tags of the listeners' prefixes `upstream.service.namespace.datacenter`.
fn upstream_tags() -> [(&'static str, String); 3] {
    [
        ("service", format!(r"(({PART})\.{PART}\.{PART}\.)")),
        ("namespace", format!(r"({PART}\.({PART})\.{PART}\.)")),
        ("datacenter", format!(r"({PART}\.{PART}\.({PART})\.)")),
    ]
}

/// The `stats_config` of a proxy of `service` in `datacenter`.
pub(super) fn config(service: &str, datacenter: &str) -> Value {
    let mut tags = Vec::new();
    for (tag, regex) in destination_tags() {
        tags.push(
            json!({"tag_name": format!("consul.destination.{tag}"), "regex": format!(r"^cluster\.{regex}")}),
        );
    }
    for (tag, regex) in upstream_tags() {
        let regex = format!(r"^(?:tcp|http)\.upstream\.{regex}");
        tags.push(json!({"tag_name": format!("consul.upstream.{tag}"), "regex": regex}));
    }
    for (tag, value) in [
        ("local_cluster", service),
        ("consul.source.service", service),
        ("consul.source.namespace", NAMESPACE),
        ("consul.source.datacenter", datacenter),
    ] {
        tags.push(json!({"tag_name": tag, "fixed_value": value}));
    }
    json!({"use_all_default_tags": true, "stats_tags": tags})
}
