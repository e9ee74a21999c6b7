//! The truth: what a federation of three datacenters holds, and what Consul says of it to each question. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// How many datacenters there are; the agent is in the first.
pub(super) const DATACENTERS: usize = 3;
/// Services of the mesh; each may run in every datacenter.
pub(super) const SERVICES: [&str; 4] = ["api", "cache", "db", "web"];
/// How many instances of a service a datacenter has at most.
pub(super) const INSTANCES: usize = 3;
/// How many mesh gateways a datacenter has.
pub(super) const GATEWAYS: usize = 2;
/// The proxies that are registered with the agent.
pub(super) const PROXIES: [&str; 3] = ["web-proxy", "api-proxy", "gateway"];
/// Upstreams that the first proxy may have: service, datacenter, gateway mode.
pub(super) const UPSTREAMS: [(&str, usize, &str); 4] =
    [("api", 0, ""), ("cache", 0, "remote"), ("db", 1, "local"), ("cache", 2, "remote")];

const TRUST_DOMAIN: &str = "648a28a2-a54b-ce76-1815-728d71168ada.consul";
/// Recorded answers that have certificates.
const ROOTS: [&str; 2] = [
    include_str!("../../../tests/golden/recorded/dc-gateway-local/consul/roots.json"),
    include_str!("../../../tests/golden/recorded/chain-failover/consul/roots.json"),
];
const LEAF: &str = include_str!("../../../tests/golden/recorded/dc-gateway-local/consul/leaf_web.json");

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Passing,
    Warning,
    Critical,
}

/// All that Consul knows.
#[derive(Clone, Debug)]
pub(super) struct Land {
    /// By datacenter, service and number.
    pub(super) instances: BTreeMap<(usize, usize, usize), Health>,
    /// By datacenter and number: health, and how often the address changed.
    pub(super) gateways: BTreeMap<(usize, usize), (Health, usize)>,
    /// The first proxy's upstreams, as numbers in [`UPSTREAMS`].
    pub(super) upstreams: BTreeSet<usize>,
    /// Which service may call which, as numbers in [`SERVICES`].
    pub(super) allowed: BTreeSet<(usize, usize)>,
    /// The chain of `cache` in the first datacenter fails over to the second.
    pub(super) has_failover: bool,
    /// `api` is `cache` in truth.
    pub(super) has_redirect: bool,
    /// `db` speaks HTTP.
    pub(super) is_http: bool,
    /// Which CA, and how many leaves it has issued.
    pub(super) authority: (usize, usize),
    /// Rises with every change of a gateway.
    pub(super) touched: u64,
    /// How many snapshots were restored before.
    pub(super) restored: u64,
}

/// What Consul says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) body: String,
    /// Addresses of instances that take traffic, where the answer lists instances.
    pub(super) takes_traffic: Option<BTreeSet<String>>,
    /// Whether it can be waited on, and how.
    pub(super) waits: Waits,
    /// Of which time it is: how many snapshots were restored before, and how many changes were made then.
    pub(super) as_of: (u64, u64),
}

/// How an answer can be waited on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Never,
    Index,
    Hash,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Question {
    /// What is asked, whatever is waited for.
    pub(super) fn key(&self) -> String {
        let is_how = |name: &str| matches!(name, "index" | "wait" | "hash" | "consistent");
        let query = self.query.iter().filter(|(name, _)| !is_how(name));
        let query: Vec<String> = query.map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}?{}{}", self.path, query.join("&"), self.body)
    }

    /// Whether the leader has to answer, and to be sure that it is.
    pub(super) fn is_consistent(&self) -> bool {
        self.query.contains_key("consistent")
    }

    /// Whether it only asks whether anything is shown at all.
    pub(super) fn is_sight(&self) -> bool {
        ["/v1/health/service/consul", "/v1/catalog/nodes"].contains(&self.path.as_str())
    }

    /// The datacenter that has to answer.
    pub(super) fn datacenter(&self) -> usize {
        self.query.get("dc").map_or(0, |name| number(name))
    }
}

/// The name of a datacenter.
pub(super) fn dc(number: usize) -> String {
    format!("dc{}", number + 1)
}

fn number(dc: &str) -> usize {
    (0..DATACENTERS).find(|number| self::dc(*number) == dc).unwrap_or_default()
}

fn said(body: &Value) -> Said {
    Said { status: 200, body: body.to_string(), takes_traffic: None, waits: Waits::Index, as_of: (0, 0) }
}

fn refused(status: u16, words: &str) -> Said {
    Said { status, body: words.to_owned(), takes_traffic: None, waits: Waits::Index, as_of: (0, 0) }
}

impl Land {
    /// Two instances of everything everywhere.
    pub(super) fn new() -> Self {
        let mut instances = BTreeMap::new();
        for (dc, service) in (0..DATACENTERS).flat_map(|dc| (0..SERVICES.len()).map(move |s| (dc, s))) {
            instances.extend([((dc, service, 0), Health::Passing), ((dc, service, 1), Health::Passing)]);
        }
        let all = (0..DATACENTERS).flat_map(|dc| (0..GATEWAYS).map(move |n| (dc, n)));
        Self {
            instances,
            gateways: all.map(|place| (place, (Health::Passing, 0))).collect(),
            upstreams: (0..UPSTREAMS.len()).collect(),
            allowed: BTreeSet::from([(3, 0), (0, 2)]),
            has_failover: false,
            has_redirect: false,
            is_http: false,
            authority: (0, 0),
            touched: 10,
            restored: 0,
        }
    }

    /// What Consul says to a question; nothing where the simulation does not know it.
    pub(super) fn answer(&self, question: &Question) -> Option<Said> {
        let parts: Vec<&str> = question.path.trim_start_matches('/').split('/').collect();
        let at = question.datacenter();
        Some(match parts.as_slice() {
            ["v1", "agent", "self"] => Said { waits: Waits::Never, ..said(&agent()) },
            ["v1", "agent", "services"] => Said { waits: Waits::Never, ..said(&json!({})) },
            ["v1", "agent", "service", id] => self.registration(id),
            ["v1", "agent", "connect", "ca", "roots"] => said(&self.roots()),
            ["v1", "agent", "connect", "ca", "leaf", service] => said(&self.leaf(service)),
            ["v1", "discovery-chain", service] => said(&self.chain(service, question)),
            ["v1", "health", "connect", service] => self.listed(self.sidecars(at, service)),
            ["v1", "health", "service", "mesh-gateway"] => self.listed(self.gateways_of(at)),
            ["v1", "health", "service", "consul"] => self.listed(vec![server(at)]),
            ["v1", "internal", "ui", "services"] => said(&self.services(at, question.query.get("filter"))),
            ["v1", "internal", "federation-states", "mesh-gateways"] => self.states(),
            ["v1", "connect", "intentions"] => said(&self.intentions()),
            ["v1", "catalog", "nodes"] => said(&json!([{"Node": "server"}])),
            ["v1", "catalog", "services"] => said(&json!({"consul": []})),
            ["v1", "internal", "acl", "authorize"] => {
                Said { waits: Waits::Never, ..refused(401, "ACL support disabled") }
            }
            ["v1", "catalog", "datacenters"] => {
                let all: Vec<String> = (0..DATACENTERS).map(dc).collect();
                Said { waits: Waits::Never, ..said(&json!(all)) }
            }
            ["v1", "config", "service-resolver"] => said(&json!([])),
            ["v1", "config", "service-defaults", "db"] if self.is_http => {
                said(&json!({"Kind": "service-defaults", "Name": "db", "Protocol": "http"}))
            }
            ["v1", "config", "proxy-defaults" | "service-defaults", _] => {
                refused(404, "Config entry not found")
            }
            ["v1", "config", kind, ..] => {
                let words = format!("rpc error making call: invalid config entry kind: {kind}");
                Said { waits: Waits::Never, ..refused(500, &words) }
            }
            _ => return None,
        })
    }

    fn registration(&self, id: &str) -> Said {
        let body = match id {
            "gateway" => gateway_registration(),
            "web-proxy" => {
                let wanted = self.upstreams.iter().map(|number| upstream(*number));
                sidecar_registration(id, "web", 0, &wanted.collect::<Vec<_>>())
            }
            "api-proxy" => sidecar_registration(id, "api", 1, &[upstream(2)]),
            _ => return Said { waits: Waits::Hash, ..refused(404, "unknown service ID") },
        };
        Said { waits: Waits::Hash, ..said(&body) }
    }

    fn roots(&self) -> Value {
        let recorded: Value = serde_json::from_str(ROOTS[self.authority.0]).unwrap();
        json!({"TrustDomain": TRUST_DOMAIN, "Roots": recorded["body"]["Roots"]})
    }

    /// Certificates are told apart by how often the chain has them.
    fn leaf(&self, service: &str) -> Value {
        let recorded: Value = serde_json::from_str(LEAF).unwrap();
        let certificate = recorded["body"]["CertPEM"].as_str().unwrap();
        let key = format!(
            "-----BEGIN PRIVATE KEY-----\n{service}{:?}\n-----END PRIVATE KEY-----\n",
            self.authority
        );
        json!({"CertPEM": certificate, "PrivateKeyPEM": key, "Service": service})
    }

    fn chain(&self, service: &str, question: &Question) -> Value {
        let compiled_in = question.query.get("compile-dc").map_or(0, |name| number(name));
        let overrides: Value = serde_json::from_str(&question.body).unwrap_or_default();
        let mode = overrides["OverrideMeshGateway"]["Mode"].as_str().unwrap_or_default();
        let target = |service: &str, at: usize| format!("{service}.default.{}", dc(at));
        let real = if service == "api" && self.has_redirect { "cache" } else { service };
        let first = target(real, compiled_in);
        let mut targets = vec![(real, compiled_in)];
        let mut resolver = json!({"ConnectTimeout": "5s", "Default": real == service, "Target": first});
        if real == "cache" && compiled_in == 0 && self.has_failover {
            targets.push(("cache", 1));
            resolver["Failover"] = json!({"Targets": [target("cache", 1)]});
            resolver["Default"] = false.into();
        }
        // An override that decides nothing is not told apart.
        let is_customized = !mode.is_empty() && targets.iter().any(|(_, at)| *at != 0);
        let targets: BTreeMap<String, Value> = targets
            .into_iter()
            .map(|(service, at)| {
                let id = target(service, at);
                let sni = format!("{service}.default.{}.internal.{TRUST_DOMAIN}", dc(at));
                let mode = if at == 0 { "" } else { mode };
                let value = json!({"ID": id, "Service": service, "Namespace": "default", "Datacenter": dc(at),
                    "MeshGateway": {"Mode": mode}, "Subset": {}, "SNI": sni, "Name": sni});
                (id, value)
            })
            .collect();
        let node = format!("resolver:{first}");
        let hash = if is_customized { "c225dc1c" } else { "" };
        let protocol = if service == "db" && self.is_http { "http" } else { "tcp" };
        json!({"Chain": {"ServiceName": service, "Namespace": "default", "Datacenter": dc(compiled_in),
            "Protocol": protocol, "CustomizationHash": hash, "StartNode": node,
            "Nodes": {node.clone(): {"Type": "resolver", "Name": first, "Resolver": resolver}},
            "Targets": targets}})
    }

    fn sidecars(&self, at: usize, service: &str) -> Vec<(Value, String, Health)> {
        let Some(of) = SERVICES.iter().position(|name| *name == service) else { return Vec::new() };
        let there = self.instances.iter().filter(|((dc, service, _), _)| (*dc, *service) == (at, of));
        let listed = there.map(|((_, _, n), health)| {
            let ip = format!("10.{}.{}.{}", at + 1, of + 1, n + 1);
            let about = json!({"Kind": "connect-proxy", "ID": format!("{service}-proxy-{n}"),
                "Service": format!("{service}-proxy"), "Address": ip, "Port": 20000,
                "Proxy": {"DestinationServiceName": service}});
            (entry(at, &format!("{service}{n}"), &ip, &about, *health), format!("{ip}:20000"), *health)
        });
        listed.collect()
    }

    fn gateways_of(&self, at: usize) -> Vec<(Value, String, Health)> {
        let there = self.gateways.iter().filter(|((dc, _), _)| *dc == at);
        let listed = there.map(|((_, n), (health, moved))| {
            let lan = format!("10.{}.200.{}", at + 1, n + 1);
            let wan = format!("172.16.{}.{}", at + 1, n + 1 + 10 * (moved % 20));
            let about = json!({"Kind": "mesh-gateway", "ID": format!("mesh-gateway-{n}"), "Service": "mesh-gateway",
                "Address": lan, "Port": 8443, "ModifyIndex": self.touched,
                "TaggedAddresses": {"wan": {"Address": wan, "Port": 8443}}});
            let entry = entry(at, &format!("gateway{n}"), &lan, &about, *health);
            let dialled = if at == 0 { lan } else { wan };
            (entry, format!("{dialled}:8443"), *health)
        });
        listed.collect()
    }

    fn listed(&self, all: Vec<(Value, String, Health)>) -> Said {
        let entries: Vec<&Value> = all.iter().map(|(entry, ..)| entry).collect();
        let takes = all.iter().filter(|(.., health)| *health != Health::Critical);
        let takes_traffic = Some(takes.map(|(_, address, _)| address.clone()).collect());
        Said { takes_traffic, as_of: (self.restored, self.touched), ..said(&json!(entries)) }
    }

    fn states(&self) -> Said {
        let all: Vec<_> = (0..DATACENTERS).flat_map(|at| self.gateways_of(at)).collect();
        let by_dc = (0..DATACENTERS).map(|at| {
            let entries: Vec<Value> = self.gateways_of(at).into_iter().map(|(entry, ..)| entry).collect();
            (dc(at), json!(entries))
        });
        let body: serde_json::Map<String, Value> = by_dc.collect();
        Said { body: Value::Object(body).to_string(), ..self.listed(all) }
    }

    fn services(&self, at: usize, filter: Option<&String>) -> Value {
        let gateway = json!({"Name": "mesh-gateway", "Kind": "mesh-gateway"});
        if filter.is_some() {
            return json!([gateway]);
        }
        let mut all = vec![json!({"Name": "consul"}), gateway];
        for (number, name) in SERVICES.iter().enumerate() {
            if self.instances.keys().any(|(dc, service, _)| (*dc, *service) == (at, number)) {
                all.push(json!({"Name": name}));
                all.push(json!({"Name": format!("{name}-proxy"), "Kind": "connect-proxy"}));
            }
        }
        json!(all)
    }

    fn intentions(&self) -> Value {
        let all = self.allowed.iter().map(|(source, destination)| {
            json!({"SourceNS": "default", "SourceName": SERVICES[*source], "SourceType": "consul",
                "DestinationNS": "default", "DestinationName": SERVICES[*destination], "Action": "allow"})
        });
        all.collect()
    }
}

fn agent() -> Value {
    json!({"Config": {"Datacenter": dc(0), "NodeName": "vm", "Version": "1.8.7"},
        "DebugConfig": {"ACLDefaultPolicy": "deny", "ACLsEnabled": false, "DNSDomain": "consul.",
            "PrimaryDatacenter": dc(0), "TranslateWANAddrs": false}})
}

fn server(at: usize) -> (Value, String, Health) {
    let ip = format!("10.{}.250.1", at + 1);
    let about = json!({"ID": "consul", "Service": "consul", "Port": 8300});
    (entry(at, "server", &ip, &about, Health::Passing), format!("{ip}:8300"), Health::Passing)
}

fn entry(at: usize, node: &str, ip: &str, service: &Value, health: Health) -> Value {
    let status = match health {
        Health::Passing => "passing",
        Health::Warning => "warning",
        Health::Critical => "critical",
    };
    json!({"Node": {"Node": node, "Address": ip, "Datacenter": dc(at)}, "Service": service,
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "own", "Status": status}]})
}

fn upstream(number: usize) -> Value {
    let (service, at, mode) = UPSTREAMS[number];
    json!({"DestinationType": "service", "DestinationName": service, "Datacenter": dc(at),
        "LocalBindPort": 5000 + number, "MeshGateway": {"Mode": mode}})
}

fn sidecar_registration(id: &str, service: &str, number: usize, upstreams: &[Value]) -> Value {
    json!({"Kind": "connect-proxy", "ID": id, "Service": format!("{service}-proxy"),
        "Address": format!("10.1.0.{}", 20 + number), "Port": 21000,
        "Proxy": {"DestinationServiceName": service, "DestinationServiceID": service, "LocalServicePort": 8080,
            "Upstreams": upstreams}})
}

fn gateway_registration() -> Value {
    json!({"Kind": "mesh-gateway", "ID": "gateway", "Service": "mesh-gateway", "Address": "10.1.200.1", "Port": 8443,
        "Meta": {"consul-wan-federation": "1"}, "Proxy": {"Config": {}}})
}
