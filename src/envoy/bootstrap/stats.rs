//! Tags for Envoy's statistics: what Consul's dashboards and alerts already query by (`consul.destination.service`,
//! `consul.destination.datacenter`, ...), taken from the names of clusters and listeners.
//!
//! Envoy removes a pattern's first group from the name of the statistic and takes the second, if there is one, as the
//! tag's value. All patterns see the whole name.
//!
//! They are written for speed: Envoy's main thread runs each of them on each of the 128 statistics of every cluster
//! that is added, with C++'s `std::regex`, and does nothing else meanwhile: what matters is the time until a change is
//! acknowledged, times the thousands of services of a gateway. Hence
//! - a first word of letters and `\.` after it, by which Envoy knows the names that a pattern is for;
//! - parts of fixed length spelt out, since each turn of a loop copies the matcher's state;
//! - what is rare as the second alternative;
//! - no pattern that fails on most clusters: `^` does not keep `std::regex` from trying every other place too, which
//!   costs more than a match. So the hash and the subset are empty where a cluster has none, as with Consul's own
//!   bootstrap.

use serde_json::{Value, json};

/// The only namespace of Consul without the enterprise extensions.
pub(super) const NAMESPACE: &str = "default";

/// One part of a name.
const PART: &str = "[^.]+";
/// A trust domain: Consul's clusters have a UUID for a name.
const DOMAIN: &str = r"........-....-....-....-............\.consul";
/// A discovery chain's hash of its overrides: eight digits.
const HASH: &str = "[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]";
/// Which of several successive targets it is.
const FAILOVER: &str = "(?:|failover-target~[0-9]+~)";
/// Whatever stands before a service or its subset.
const MARKS: &str = "(?:|[^.]+~)";

/// Tags of the cluster names `[failover-target~n~][hash~][subset.]service.default.datacenter.internal.trust-domain`
/// and, for a whole datacenter behind its gateways, `datacenter.internal.trust-domain`. The last one removes the whole
/// name; the others need to remove no more than their value.
fn destination_tags() -> [(&'static str, String); 9] {
    let subset = format!(r"(?:|{PART}\.)");
    let datacenter = format!(r"\.{NAMESPACE}\.{PART}");
    let end = format!(r"\.internal\.{DOMAIN}\.");
    // Before a datacenter there may be no service.
    let service = format!(r"(?:{PART}\.{subset}{NAMESPACE}\.|)");
    [
        ("custom_hash", format!(r"({FAILOVER}(?:|({HASH})~)[^.~]+\.{subset}{NAMESPACE}\.{PART}{end})")),
        ("service_subset", format!(r"({MARKS}(?:|([^.~]+)\.)[^.~]+{datacenter}{end})")),
        ("service", format!(r"{subset}{MARKS}([^.~]+){datacenter}{end}")),
        ("namespace", format!(r"{subset}{PART}\.({NAMESPACE})\.{PART}{end}")),
        ("datacenter", format!(r"{service}({PART}){end}")),
        ("routing_type", format!(r"{service}{PART}\.(internal)\.{DOMAIN}\.")),
        ("trust_domain", format!(r"{service}{PART}\.internal\.({DOMAIN})\.")),
        ("target", format!(r"{MARKS}((?:|[^.~]+\.)[^.~]+{datacenter}){end}")),
        ("full_target", format!(r"(({service}{PART}\.internal\.{DOMAIN})\.)")),
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
        for kind in ["tcp", "http"] {
            let regex = format!(r"^{kind}\.upstream\.{regex}");
            tags.push(json!({"tag_name": format!("consul.upstream.{tag}"), "regex": regex}));
        }
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
