//! Owns the path of the dashboard's request as it is shown: the hops, with what Envoy and the counter say of them.
//! Pure: Envoy's cluster list in, hops out. It must not know how Envoy is asked.

use serde::{Deserialize, Serialize};

use crate::lab::demo::counting::Count;

/// One hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// What it is: `dashboard`, `envoy`, `mesh-gateway`, `counting`.
    pub kind: String,
    /// For people.
    pub title: String,
    /// Where it is, if known; a name or an address.
    pub detail: Option<String>,
    /// Its datacenter, if known.
    pub datacenter: Option<String>,
    /// Whether it was told by what is really there, rather than by how the mesh is laid out.
    pub observed: bool,
}

/// `GET /clusters?format=json` of Envoy's admin interface, what is needed of it.
#[derive(Debug, Default, Deserialize)]
pub struct EnvoyClusters {
    #[serde(default)]
    cluster_statuses: Vec<ClusterStatus>,
}

#[derive(Debug, Deserialize)]
struct ClusterStatus {
    name: String,
    #[serde(default)]
    host_statuses: Vec<HostStatus>,
}

#[derive(Debug, Deserialize)]
struct HostStatus {
    address: Address,
}

#[derive(Debug, Deserialize)]
struct Address {
    socket_address: Option<SocketAddress>,
}

#[derive(Debug, Deserialize)]
struct SocketAddress {
    address: String,
    port_value: u32,
}

impl EnvoyClusters {
    /// The addresses Envoy has for a mesh service, sorted, and the datacenter in the cluster's name
    /// (`counting.default.secondary.internal.<trust domain>`).
    fn upstream(&self, service: &str) -> Option<(Vec<String>, Option<String>)> {
        let is_upstream =
            |cluster: &&ClusterStatus| cluster.name.split(['.', '~']).any(|part| part == service);
        let cluster = self.cluster_statuses.iter().find(is_upstream)?;
        let sockets = cluster.host_statuses.iter().filter_map(|host| host.address.socket_address.as_ref());
        let mut hosts: Vec<String> =
            sockets.map(|socket| format!("{}:{}", socket.address, socket.port_value)).collect();
        hosts.sort();
        let (before, _) = cluster.name.split_once(".internal.").unwrap_or_default();
        let datacenter = before.rsplit('.').next().filter(|name| !name.is_empty());
        Some((hosts, datacenter.map(str::to_owned)))
    }
}

/// The hops from the dashboard to the counter, given what is known now.
pub fn hops(
    datacenter: &str,
    upstream: &str,
    clusters: Option<&EnvoyClusters>,
    answer: Option<&Count>,
) -> Vec<Hop> {
    let hop =
        |kind: &str, title: &str, detail: Option<String>, datacenter: Option<&str>, observed: bool| Hop {
            kind: kind.into(),
            title: title.into(),
            detail,
            datacenter: datacenter.map(str::to_owned),
            observed,
        };
    let (hosts, cluster_datacenter) =
        clusters.and_then(|clusters| clusters.upstream("counting")).unwrap_or_default();
    let there = answer.map(|answer| answer.datacenter.clone()).or(cluster_datacenter);
    let there = there.as_deref();
    let gateway = (!hosts.is_empty()).then(|| hosts.join(", "));
    let is_gateway_seen = gateway.is_some();
    let instance = answer.map(|answer| answer.instance.clone());
    let here = Some(datacenter);
    vec![
        hop("dashboard", "Dashboard", None, here, true),
        hop("envoy", "Its Envoy", Some(upstream.to_owned()), here, clusters.is_some()),
        hop("mesh-gateway", "Mesh gateway", gateway, here, is_gateway_seen),
        hop("mesh-gateway", "Mesh gateway", None, there, answer.is_some()),
        hop("envoy", "Envoy of counting", None, there, answer.is_some()),
        hop("counting", "Counting", instance, there, answer.is_some()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTERS: &str = r#"{"cluster_statuses":[
        {"name":"local_agent","host_statuses":[{"address":{"pipe":{"path":"/x"}}}]},
        {"name":"counting.default.secondary.internal.1234.consul","host_statuses":[
            {"address":{"socket_address":{"address":"127.1.0.3","port_value":8443}}},
            {"address":{"socket_address":{"address":"127.1.0.2","port_value":8443}}}]}]}"#;

    #[test]
    fn the_gateway_is_read_from_the_upstreams_cluster() {
        let clusters: EnvoyClusters = serde_json::from_str(CLUSTERS).unwrap();
        let hops = hops("primary", "127.1.0.20:5000", Some(&clusters), None);
        assert_eq!(hops[2].detail.as_deref(), Some("127.1.0.2:8443, 127.1.0.3:8443"));
        assert_eq!(hops[3].datacenter.as_deref(), Some("secondary"));
        assert!(hops[2].observed && !hops[5].observed);
    }

    #[test]
    fn an_envoy_that_does_not_answer_leaves_the_hops_unobserved() {
        let hops = hops("primary", "127.1.0.20:5000", None, None);
        assert_eq!(hops.len(), 6);
        assert_eq!(hops.iter().filter(|hop| hop.observed).count(), 1);
    }
}
