//! Catalogs of any size, heard as the agent hears them: a recorded golden case gives what does not grow, and bodies
//! of Consul's shape what does.
#![allow(dead_code, reason = "each measurement uses a part of it")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use causeway::{
    consul::{
        client::Reply,
        topic::{self, Outcome},
    },
    mesh::{self, Options},
    model::{
        catalog::{Catalog, Heard, Topic},
        name::ProxyId,
    },
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::ports::port_of;

/// Endpoints of each service.
const ENDPOINTS: usize = 10;

/// A proxy and what it reaches.
#[derive(Clone)]
pub(crate) struct Sketch {
    case: &'static str,
    /// The proxy's service id.
    pub(crate) proxy: ProxyId,
    /// How many services it reaches.
    pub(crate) services: usize,
    trust_domain: String,
}

impl Sketch {
    /// A sidecar with that many upstreams in its own datacenter.
    pub(crate) fn sidecar(upstreams: usize) -> Self {
        Self::new("tcp-local", "web-sidecar-proxy", upstreams)
    }

    /// A mesh gateway with that many local services.
    pub(crate) fn gateway(services: usize) -> Self {
        Self::new("gateway-without-federation", "edge", services)
    }

    fn new(case: &'static str, proxy: &str, services: usize) -> Self {
        let mut sketch = Self { case, proxy: proxy.into(), services, trust_domain: String::new() };
        let roots = sketch.recorded(&Topic::Roots).expect("every case has roots");
        sketch.trust_domain = roots["TrustDomain"].as_str().unwrap().to_owned();
        sketch
    }

    /// Everything that the proxy needs.
    pub(crate) fn catalog(&self) -> Catalog {
        let (mut catalog, mut asked) = (Catalog::default(), BTreeSet::new());
        loop {
            let needs = mesh::needs(&catalog, &self.proxy, Options::default());
            let new: Vec<Topic> = needs.into_iter().filter(|topic| asked.insert(topic.clone())).collect();
            if new.is_empty() {
                return catalog;
            }
            for topic in new {
                match self.body(&topic) {
                    Some(body) => hear(&mut catalog, &topic, &body),
                    None => panic!("{topic} is needed and not recorded in the golden case {}", self.case),
                }
            }
        }
    }

    /// Changes one endpoint of one service: each round gives it another port.
    pub(crate) fn change(&self, catalog: &mut Catalog, service: usize, round: usize) {
        let name = name(service);
        let topics: Vec<Topic> = catalog.topics().map(|(topic, _)| topic.clone()).collect();
        let is_it =
            |topic: &Topic| matches!(topic, Topic::Connect { service, .. } if service.as_str() == name);
        let topic = topics.into_iter().find(is_it).expect("every service is asked for");
        let port = port_of(round);
        hear(catalog, &topic, &instances(&name, service, port));
    }

    fn body(&self, topic: &Topic) -> Option<Value> {
        match topic {
            Topic::Registration(_) => self.registration(),
            Topic::Chain(request) => Some(self.chain(request.service.as_str(), request.datacenter.as_str())),
            Topic::Connect { service, .. } => {
                let number = service.as_str().trim_start_matches("service-").parse().unwrap();
                Some(instances(service.as_str(), number, 20_000))
            }
            Topic::Services { kind: None, .. } => {
                Some((0..self.services).map(|number| json!({"Name": name(number), "Nodes": ["n"]})).collect())
            }
            // The release that was recorded knows no such entries, and says so.
            Topic::Mesh => Some(Value::String("invalid config entry kind: mesh".into())),
            Topic::ExportedServices => {
                Some(Value::String("invalid config entry kind: exported-services".into()))
            }
            _ => self.recorded(topic),
        }
    }

    fn registration(&self) -> Option<Value> {
        let mut body = self.recorded(&Topic::Registration(self.proxy.clone()))?;
        if body["Kind"] == "connect-proxy" {
            let upstream = |number| json!({"DestinationName": name(number), "LocalBindPort": 5_000 + number});
            body["Proxy"]["Upstreams"] = (0..self.services).map(upstream).collect();
        }
        Some(body)
    }

    fn chain(&self, service: &str, dc: &str) -> Value {
        let (node, target) = (format!("resolver:{service}.default.{dc}"), format!("{service}.default.{dc}"));
        let sni = format!("{target}.internal.{}", self.trust_domain);
        json!({"Chain": {
            "ServiceName": service, "Namespace": "default", "Datacenter": dc, "Protocol": "tcp", "StartNode": node,
            "Nodes": {&node: {"Type": "resolver", "Name": target,
                "Resolver": {"Default": true, "ConnectTimeout": "5s", "Target": target}}},
            "Targets": {&target: {"ID": target, "Service": service, "Namespace": "default", "Datacenter": dc,
                "MeshGateway": {}, "Subset": {}, "Name": sni, "SNI": sni}},
        }})
    }

    fn recorded(&self, topic: &Topic) -> Option<Value> {
        let file = topic.to_string().replace('/', "_") + ".json";
        let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/recorded");
        let text = fs::read_to_string(golden.join(self.case).join("consul").join(file)).ok()?;
        let answered: Value = serde_json::from_str(&text).unwrap();
        // A body that is a text stands for a refusal: "there is none".
        Some(answered["body"].clone())
    }
}

/// The name of a service.
pub(crate) fn name(number: usize) -> String {
    format!("service-{number:05}")
}

/// Sidecars of a service, the first of them on that port.
fn instances(service: &str, number: usize, port: u32) -> Value {
    let instance = |nth: usize| {
        let id = format!("{service}-{nth}-sidecar-proxy");
        let address = format!("10.{}.{}.{}", nth + 1, number / 250, number % 250 + 1);
        let port = if nth == 0 { port } else { 20_000 };
        json!({
            "Node": {"Node": format!("node-{nth}"), "Address": address, "Datacenter": "primary"},
            "Service": {"ID": id, "Service": format!("{service}-sidecar-proxy"), "Kind": "connect-proxy",
                "Address": "", "Port": port, "Weights": {"Passing": 1, "Warning": 1},
                "Proxy": {"DestinationServiceName": service}},
            "Checks": [],
        })
    };
    (0..ENDPOINTS).map(instance).collect()
}

fn hear(catalog: &mut Catalog, topic: &Topic, body: &Value) {
    let (status, body) = match body {
        Value::String(text) => (StatusCode::NOT_FOUND, text.clone()),
        body => (StatusCode::OK, body.to_string()),
    };
    let reply = Reply::recorded(format!("read {topic}"), status, &HeaderMap::new(), body.into());
    match topic::outcome(topic, &reply) {
        Outcome::Heard(answer, notes) => {
            assert!(notes.is_empty(), "{topic}: {notes:?}");
            catalog.hear(topic.clone(), Heard::fresh(answer));
        }
        Outcome::Absent(answer) => drop(catalog.hear(topic.clone(), Heard::fresh(answer))),
        Outcome::Lost(_, reason) => panic!("{topic}: {reason}"),
    }
}
