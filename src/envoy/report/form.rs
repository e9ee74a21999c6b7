//! The one form in which intended and actual are compared.
//!
//! Messages are Envoy's JSON without defaults. Certificates are their fingerprints. What holds a secret is one word on
//! both sides: the agent and Envoy leave different parts out, and neither may be told. Endpoints are a list of
//! addresses with health and weight, which is what Envoy tells of them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Map, Value, json};

use crate::{
    model::secret::{REDACTED, names_a_secret},
    xds::{
        json::{self, JsonError},
        resource::{Key, Kind},
    },
};

/// What Envoy takes when nobody says anything of failover, in percent.
const DEFAULT_OVERPROVISIONING: u64 = 140;

/// What Envoy takes when nobody says anything of weight.
const DEFAULT_WEIGHT: u64 = 1;

/// What stands for a source of configuration where sources are not compared.
const SOURCE: &str = "[the agent]";

/// Of a message as the agent makes it.
pub(super) fn of_message(kind: Kind, bytes: &[u8]) -> Result<Value, JsonError> {
    let json = json::to_json(kind.type_url(), bytes)?;
    Ok(if kind == Kind::Endpoints { of_assignment(&json) } else { tidied(json) })
}

/// Of a message as Envoy shows it: read and written again, so that both sides are spelt by the same hand. What is not
/// known here is compared as Envoy spells it.
pub(super) fn of_dump(kind: Kind, dumped: &Value) -> Value {
    let mut fields = dumped.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("@type");
    }
    let type_url = kind.type_url();
    let read = json::from_json(type_url, &fields).and_then(|bytes| json::to_json(type_url, &bytes));
    tidied(read.unwrap_or(fields))
}

/// Of endpoints, from Envoy's host statuses and the policy of its endpoint config.
pub(super) fn of_hosts(hosts: &Value, policy: Option<&Value>) -> Value {
    let hosts = hosts.as_array().map(Vec::as_slice).unwrap_or_default();
    // A host that is gone from EDS may stay until its health check fails.
    let is_meant = |host: &&Value| host["health_status"]["pending_dynamic_removal"] != json!(true);
    let endpoints = hosts.iter().filter(is_meant).map(|host| {
        let health = &host["health_status"]["eds_health_status"];
        (address(&host["address"]), endpoint(health, &host["weight"], &host["priority"]))
    });
    assignment(endpoints.collect(), &policy.unwrap_or(&Value::Null)["overprovisioning_factor"])
}

fn of_assignment(json: &Value) -> Value {
    let mut endpoints = Map::new();
    for locality in json["endpoints"].as_array().into_iter().flatten() {
        for host in locality["lb_endpoints"].as_array().into_iter().flatten() {
            let weight = &host["load_balancing_weight"];
            let about = endpoint(&host["health_status"], weight, &locality["priority"]);
            endpoints.insert(address(&host["endpoint"]["address"]), about);
        }
    }
    assignment(endpoints, &json["policy"]["overprovisioning_factor"])
}

fn assignment(endpoints: Map<String, Value>, overprovisioning: &Value) -> Value {
    let overprovisioning = overprovisioning.as_u64().unwrap_or(DEFAULT_OVERPROVISIONING);
    json!({"endpoints": endpoints, "overprovisioning_factor": overprovisioning})
}

/// Unknown health counts as healthy, at Envoy as here.
fn endpoint(health: &Value, weight: &Value, priority: &Value) -> Value {
    let health = health.as_str().filter(|health| *health != "UNKNOWN").unwrap_or("HEALTHY");
    json!({
        "health": health,
        "weight": weight.as_u64().unwrap_or(DEFAULT_WEIGHT),
        "priority": priority.as_u64().unwrap_or_default(),
    })
}

fn address(address: &Value) -> String {
    let socket = &address["socket_address"];
    let (host, port) = (socket["address"].as_str(), socket["port_value"].as_u64());
    match (host, port.and_then(|port| u16::try_from(port).ok())) {
        (Some(host), Some(port)) => match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        },
        // A Unix socket, or what only a later Envoy knows.
        _ => address["pipe"]["path"]
            .as_str()
            .map_or_else(|| address.to_string(), |path| format!("unix:{path}")),
    }
}

/// Without secrets, and with certificates as what tells them apart.
fn tidied(mut json: Value) -> Value {
    tidy(&mut json);
    json
}

fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "certificate_chain" | "trusted_ca" => *value = certificates(value),
                    name if names_a_secret(name, false) => *value = REDACTED.into(),
                    _ => tidy(value),
                }
            }
        }
        _ => {}
    }
}

/// A certificate's serial number and fingerprint say which it is; text without certificates only whether it is the same.
fn certificates(source: &Value) -> Value {
    let Some(pem) = source["inline_string"].as_str() else { return source.clone() };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            certificates.iter().map(|der| certificate(der)).collect()
        }
        _ => json!({"sha256": sha256(pem.as_bytes())}),
    }
}

fn certificate(der: &[u8]) -> Value {
    let serial = x509_parser::parse_x509_certificate(der).map(|(_, read)| read.raw_serial_as_string());
    match serial {
        Ok(serial) => json!({"serial": serial, "sha256": sha256(der)}),
        Err(_) => json!({"sha256": sha256(der)}),
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// The endpoints that a cluster fetches, if it does.
pub(super) fn endpoints_name(cluster: &Value) -> Option<String> {
    if cluster["type"] != "EDS" {
        return None;
    }
    let own = cluster["eds_cluster_config"]["service_name"].as_str().filter(|name| !name.is_empty());
    own.or_else(|| cluster["name"].as_str()).map(str::to_owned)
}

/// What a cluster or listener makes Envoy ask for: endpoints, routes and secrets.
pub(super) fn named_by(kind: Kind, form: &Value, named: &mut BTreeSet<Key>) {
    match kind {
        Kind::Cluster => {
            named.extend(endpoints_name(form).map(|name| Key::new(Kind::Endpoints, name)));
            fetched(form, named);
        }
        Kind::Listener => fetched(form, named),
        Kind::Secret | Kind::Endpoints | Kind::Route => {}
    }
}

fn fetched(value: &Value, named: &mut BTreeSet<Key>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| fetched(item, named)),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            if let Some(name) = text("route_config_name").filter(|_| fields.contains_key("config_source")) {
                named.insert(Key::new(Kind::Route, name));
            }
            if let Some(name) = text("name").filter(|_| fields.contains_key("sds_config")) {
                named.insert(Key::new(Kind::Secret, name));
            }
            fields.values().for_each(|value| fetched(value, named));
        }
        _ => {}
    }
}

/// Leaves open where things are fetched from.
pub(super) fn without_sources(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_sources),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "eds_config" | "sds_config" | "config_source" => *value = SOURCE.into(),
                    _ => without_sources(value),
                }
            }
        }
        _ => {}
    }
}
