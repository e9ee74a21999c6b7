//! Every name the mesh is built from, in one place: SNI, SPIFFE ids, clusters, listeners, secrets.
//!
//! Two suffixes, never to be mixed: services end in the trust domain (`<uuid>.consul`, whatever the DNS domain is),
//! servers in the agent's DNS domain (`consul` unless configured).

use std::net::SocketAddr;

use crate::model::{
    chain::{Chain, Target},
    name::{Datacenter, NodeName, ServiceName, TrustDomain},
    registration::{ExposedId, LocalAddress, UpstreamId, UpstreamKind},
};

/// The only namespace of Consul's community edition.
const NAMESPACE: &str = "default";

/// The SDS name of the roots.
pub const ROOTS: &str = "roots";

/// The SDS name of a service's leaf certificate.
pub fn leaf(service: &ServiceName) -> String {
    format!("leaf/{service}")
}

/// The cluster of the local application.
pub const LOCAL_APP: &str = "local_app";

/// `<service>.default.<dc>.internal.<trust domain>`. Lower case like all server names at a gateway: Envoy lowers the
/// name that a client sends before it looks for a chain or a cluster.
pub fn service_sni(service: &ServiceName, dc: &Datacenter, trust_domain: &TrustDomain) -> String {
    format!("{service}.{NAMESPACE}.{dc}.internal.{trust_domain}").to_lowercase()
}

/// `<subset>.<service>.default.<dc>.internal.<trust domain>`.
pub fn subset_sni(
    subset: &str,
    service: &ServiceName,
    dc: &Datacenter,
    trust_domain: &TrustDomain,
) -> String {
    format!("{subset}.{}", service_sni(service, dc, trust_domain)).to_lowercase()
}

/// `<dc>.internal.<trust domain>`: the gateways of a datacenter.
pub fn datacenter_sni(dc: &Datacenter, trust_domain: &TrustDomain) -> String {
    format!("{dc}.internal.{trust_domain}").to_lowercase()
}

/// `server.<dc>.<domain>`: any server of a datacenter.
pub fn servers_sni(dc: &Datacenter, domain: &str) -> String {
    format!("server.{dc}.{domain}").to_lowercase()
}

/// `<node>.server.<dc>.<domain>`: one server.
pub fn server_sni(node: &NodeName, dc: &Datacenter, domain: &str) -> String {
    format!("{node}.server.{dc}.{domain}").to_lowercase()
}

/// The SPIFFE id of a service.
pub fn spiffe_id(service: &ServiceName, dc: &Datacenter, trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/ns/{NAMESPACE}/dc/{dc}/svc/{service}")
}

/// RE2 expression of the SPIFFE ids of a service in any datacenter: intentions do not look at the datacenter.
pub fn spiffe_regex(service: &ServiceName, trust_domain: &TrustDomain) -> String {
    let (trust_domain, service) = (escape(trust_domain.as_str()), escape(service.as_str()));
    format!("^spiffe://{trust_domain}/ns/{NAMESPACE}/dc/[^/]+/svc/{service}$")
}

/// RE2 expression of the SPIFFE ids of every service of the namespace `default`.
pub fn spiffe_regex_any_service(trust_domain: &TrustDomain) -> String {
    format!("^spiffe://{}/ns/{NAMESPACE}/dc/[^/]+/svc/[^/]+$", escape(trust_domain.as_str()))
}

/// RE2 expression of the SPIFFE ids of every service of every namespace.
pub fn spiffe_regex_anything(trust_domain: &TrustDomain) -> String {
    format!("^spiffe://{}/ns/[^/]+/dc/[^/]+/svc/[^/]+$", escape(trust_domain.as_str()))
}

/// The cluster of a chain's target. Consul's hash of the overrides sets customized chains apart.
pub fn target_cluster(chain: &Chain, target: &Target) -> String {
    match &chain.customization_hash {
        Some(hash) => format!("{hash}~{}", target.name),
        None => target.name.clone(),
    }
}

/// The cluster of one of several targets, of which each takes over from the one before: Consul's name since 1.14.
/// `base` is the name of the first one's cluster, which is that of the aggregate.
pub fn failover_cluster(at: usize, base: &str) -> String {
    format!("failover-target~{at}~{base}")
}

/// `<query>.default.<dc>.query.<trust domain>`: cluster and server name of a prepared query.
pub fn query_sni(query: &str, dc: &Datacenter, trust_domain: &TrustDomain) -> String {
    format!("{query}.{NAMESPACE}.{dc}.query.{trust_domain}")
}

/// The id that nothing has: Consul gives no such certificate. It stands where the ids of the peers are not known and
/// without it anybody would be let in.
pub fn nobody(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/nobody")
}

/// Consul's id of an upstream, unique in a proxy: `counting?dc=secondary`, `prepared_query:nearest`.
pub fn upstream_id(upstream: &UpstreamId) -> String {
    let name = match &upstream.destination {
        UpstreamKind::Service(service) => service.to_string(),
        UpstreamKind::PreparedQuery(query) => format!("prepared_query:{query}"),
    };
    match &upstream.datacenter {
        Some(dc) => format!("{name}?dc={dc}"),
        None => name,
    }
}

/// The listener of an upstream.
pub fn upstream_listener(id: &str, bind: &LocalAddress) -> String {
    format!("{id}:{bind}")
}

/// The routes of an upstream: named by the address alone, so that another upstream there leads the connections
/// that clients keep to the listener before it as well.
pub fn upstream_routes(bind: &LocalAddress) -> String {
    format!("upstream:{bind}")
}

/// The listener of an exposed path. Consul strips the path down to letters and digits.
pub fn exposed_listener(path: &ExposedId, address: SocketAddr) -> String {
    format!("exposed_path_{}:{address}", stripped(path))
}

/// The statistics and the routes of an exposed path.
pub fn exposed_filter(path: &ExposedId) -> String {
    format!("exposed_path_filter_{}_{}", stripped(path), path.listener_port)
}

/// The application on another port than its service's.
pub fn exposed_cluster(port: u16) -> String {
    format!("exposed_cluster_{port}")
}

fn stripped(path: &ExposedId) -> String {
    path.path.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// The statistics of an upstream's listener: `upstream.<service>.default.<dc>`.
pub fn upstream_stat_prefix(service: &ServiceName, dc: &Datacenter) -> String {
    format!("upstream.{service}.{NAMESPACE}.{dc}")
}

/// The statistics of a prepared query's listener: `upstream.prepared_query_<query>`.
pub fn query_stat_prefix(id: &str) -> String {
    format!("upstream.{}", id.replace(':', "_"))
}

/// Text as an RE2 expression that matches just it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-') && c.is_ascii() {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_lower_case_and_spiffe_ids_are_not() {
        let (service, dc, domain) = ("Web".into(), "DC1".into(), TrustDomain::from("id.consul"));
        assert_eq!(service_sni(&service, &dc, &domain), "web.default.dc1.internal.id.consul");
        assert_eq!(server_sni(&"SRV1".into(), &dc, "consul"), "srv1.server.dc1.consul");
        assert_eq!(spiffe_id(&service, &dc, &domain), "spiffe://id.consul/ns/default/dc/DC1/svc/Web");
    }

    #[test]
    fn an_expression_matches_just_its_text() {
        assert_eq!(escape("a.b-c_d"), r"a\.b-c_d");
    }
}
