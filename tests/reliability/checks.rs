//! What the catalogs say of health: an endpoint turns unhealthy by right only where a check of Consul's changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use causeway::lab::plan::{PRIMARY, SECONDARY};
use serde_json::Value;

use crate::{lab::rig::Rig, reliability::watch::Turned};

/// A question that every server of a working datacenter answers at once.
const ASK: Duration = Duration::from_secs(5);

/// The checks that count for something, each with its state and the index of its last change.
type Marks = BTreeSet<String>;

/// Every check of both datacenters.
#[derive(Default)]
pub(super) struct Checks {
    /// Of each instance, by the address and port where it is reached.
    instances: BTreeMap<String, Marks>,
    /// Of each datacenter. An endpoint that is a gateway's stands for what lies behind it.
    datacenters: BTreeMap<&'static str, Marks>,
    gateways: BTreeSet<String>,
}

impl Checks {
    /// As the leaders have them now.
    pub(super) async fn now(rig: &Rig) -> anyhow::Result<Self> {
        let mut checks = Self::default();
        for datacenter in [PRIMARY, SECONDARY] {
            let leader = rig.lab.leader(datacenter).await?.name.clone();
            let query = [("consistent", "")];
            let nodes = rig.consul(&leader)?.get("/v1/internal/ui/nodes", &query, ASK).await?;
            let nodes: Value = nodes.ok()?.json()?;
            for node in nodes.as_array().context("a list of nodes")? {
                checks.add(datacenter, node);
            }
        }
        Ok(checks)
    }

    fn add(&mut self, datacenter: &'static str, node: &Value) {
        let all: Vec<&Value> = node["Checks"].as_array().into_iter().flatten().collect();
        let mark =
            |check: &&Value| format!("{} {} {}", check["CheckID"], check["Status"], check["ModifyIndex"]);
        let of_node = all.iter().map(|check| format!("{} {}", node["Node"], mark(check)));
        self.datacenters.entry(datacenter).or_default().extend(of_node);
        for service in node["Services"].as_array().into_iter().flatten() {
            // Consul leaves the address out where it is the node's.
            let own = service["Address"].as_str().filter(|address| !address.is_empty());
            let address = own.or(node["Address"].as_str()).unwrap_or_default();
            let at = format!("{address}:{}", service["Port"]);
            let counts = |check: &&&Value| check["ServiceID"] == "" || check["ServiceID"] == service["ID"];
            if service["Kind"] == "mesh-gateway" {
                self.gateways.insert(at.clone());
            }
            self.instances.insert(at, all.iter().filter(counts).map(mark).collect());
        }
    }

    /// Whether what counts for the endpoint is another now than `before`.
    pub(super) fn justify(&self, before: &Self, turned: &Turned) -> bool {
        let at = &turned.endpoint;
        if self.instances.get(at) != before.instances.get(at) {
            return true;
        }
        let is_instance = before.instances.contains_key(at) && !before.gateways.contains(at);
        let changed = |datacenter: &&str| {
            let is_meant = turned.list.contains(&format!("{datacenter}."));
            is_meant && self.datacenters.get(datacenter) != before.datacenters.get(datacenter)
        };
        !is_instance && [PRIMARY, SECONDARY].iter().any(changed)
    }
}

#[test]
fn an_endpoint_turns_by_right_where_its_checks_changed() {
    let node = |status: &str| {
        serde_json::json!({ "Node": "vm", "Address": "127.0.0.2", "Services": [
            { "ID": "web", "Address": "", "Port": 21000 }, { "ID": "api", "Address": "127.0.0.3", "Port": 21001 },
            { "ID": "mesh-gateway", "Kind": "mesh-gateway", "Address": "", "Port": 8443 },
        ], "Checks": [
            { "CheckID": "serfHealth", "ServiceID": "", "Status": "passing", "ModifyIndex": 7 },
            { "CheckID": "api", "ServiceID": "api", "Status": status, "ModifyIndex": 9 },
        ] })
    };
    let checks = |status: &str| {
        let mut checks = Checks::default();
        checks.add(PRIMARY, &node(status));
        checks
    };
    let (before, after) = (checks("passing"), checks("critical"));
    let turned = |list: &str, endpoint: &str| {
        after.justify(&before, &Turned { envoy: "one", list: list.to_owned(), endpoint: endpoint.to_owned() })
    };
    assert!(turned("api.default.primary.internal.x.consul", "127.0.0.3:21001"));
    assert!(!turned("web.default.primary.internal.x.consul", "127.0.0.2:21000"), "another instance's check");
    assert!(turned("api.default.primary.internal.x.consul", "127.0.0.2:8443"), "behind a gateway");
    assert!(turned("primary.internal.x.consul", "127.255.0.1:8443"), "a gateway's other address");
    assert!(!turned("secondary.internal.x.consul", "127.255.0.1:8443"), "the other datacenter");
}
