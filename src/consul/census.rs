//! A datacenter at a glance: from one answer that lists every node, service and check, a mark for each topic about
//! that datacenter. A mark that changed says that it is time to ask again, never what the answer will be. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    consul::wire::WireError,
    model::{
        catalog::Topic,
        name::{Datacenter, ServiceName},
    },
};

/// What is known of a topic's answer: equal marks, equal answers. Compared within one run of the agent only.
pub(crate) type Mark = u64;

/// The marks of a datacenter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Of all names with their kinds.
    names: Mark,
    /// Of the instances registered under a name.
    registered: BTreeMap<ServiceName, Mark>,
    /// Of the sidecars and Connect-native instances of a service.
    reached: BTreeMap<ServiceName, Mark>,
    /// Of all terminating gateways: which services they stand for is written elsewhere.
    terminating: Option<Mark>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireNode<'a> {
    #[serde(rename = "ID", borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow, default)]
    address: Cow<'a, str>,
    #[serde(borrow, default)]
    tagged_addresses: Option<&'a RawValue>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    services: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    checks: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireService<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(rename = "ID", borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow, default)]
    proxy: Option<WireProxy<'a>>,
    #[serde(default)]
    connect: Option<WireConnect>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireProxy<'a> {
    #[serde(borrow, default)]
    destination_service_name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireConnect {
    #[serde(default)]
    native: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCheck<'a> {
    #[serde(rename = "ServiceID", borrow, default)]
    service_id: Cow<'a, str>,
}

/// The datacenter whose census tells when to ask for `topic` again.
pub(crate) fn datacenter(topic: &Topic) -> Option<&Datacenter> {
    match topic {
        Topic::Connect { dc, .. } | Topic::Health { dc, .. } | Topic::Services { dc, .. } => Some(dc),
        _ => None,
    }
}

impl Census {
    /// Reads `/v1/internal/ui/nodes`.
    pub fn read(body: &[u8]) -> Result<Self, WireError> {
        let shape = |error: serde_json::Error| WireError::Shape(error.to_string());
        let nodes: Option<Vec<WireNode<'_>>> = serde_json::from_slice(body).map_err(shape)?;
        let (mut census, mut names) = (Self::default(), BTreeSet::new());
        for node in nodes.iter().flatten() {
            census.add(node, &mut names).map_err(shape)?;
        }
        census.names = mark(&names);
        Ok(census)
    }

    fn add<'a>(
        &mut self,
        node: &WireNode<'a>,
        names: &mut BTreeSet<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<(), serde_json::Error> {
        // A check of no service is one of the node, and counts for all its services.
        let mut checks: BTreeMap<Cow<'a, str>, Vec<&str>> = BTreeMap::new();
        for check in node.checks.iter().flatten() {
            let WireCheck { service_id } = serde_json::from_str(check.get())?;
            checks.entry(service_id).or_default().push(check.get());
        }
        let raw = |value: Option<&'a RawValue>| value.map(RawValue::get);
        let here = mark(&(
            &node.node,
            raw(node.id),
            &node.address,
            raw(node.tagged_addresses),
            raw(node.meta),
            checks.get(""),
        ));
        for text in node.services.iter().flatten() {
            let service: WireService<'a> = serde_json::from_str(text.get())?;
            let own = if service.id.is_empty() { None } else { checks.get(&service.id) };
            self.count(&service, mark(&(here, text.get(), own)));
            names.insert((service.service, service.kind));
        }
        Ok(())
    }

    /// Marks of instances are added up, so that their order does not count.
    fn count(&mut self, service: &WireService<'_>, instance: Mark) {
        let add = |marks: &mut BTreeMap<ServiceName, Mark>, name: &str| {
            let sum = marks.entry(ServiceName::from(name)).or_default();
            *sum = sum.wrapping_add(instance);
        };
        add(&mut self.registered, &service.service);
        if service.connect.as_ref().is_some_and(|connect| connect.native) {
            add(&mut self.reached, &service.service);
        }
        match (&*service.kind, &service.proxy) {
            ("connect-proxy", Some(proxy)) => add(&mut self.reached, &proxy.destination_service_name),
            ("terminating-gateway", _) => {
                self.terminating = Some(self.terminating.unwrap_or_default().wrapping_add(instance));
            }
            _ => {}
        }
    }

    /// The mark of a topic about this datacenter.
    pub(crate) fn mark(&self, topic: &Topic) -> Mark {
        let of = |marks: &BTreeMap<ServiceName, Mark>, name| marks.get(name).copied().unwrap_or_default();
        match topic {
            Topic::Connect { service, .. } => mark(&(of(&self.reached, service), self.terminating)),
            Topic::Health { service, .. } => of(&self.registered, service),
            _ => self.names,
        }
    }

    /// Whether answers can change without any mark: a configuration entry links services to terminating gateways.
    pub(crate) fn is_blind(&self) -> bool {
        self.terminating.is_some()
    }
}

fn mark(value: &impl Hash) -> Mark {
    // Of fixed keys, and never kept: see `Mark`.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(kind: &str, name: &str, destination: &str) -> Value {
        json!({"Kind": kind, "ID": name, "Service": name, "Port": 80, "Proxy": {"DestinationServiceName": destination}})
    }

    fn node(name: &str, services: &[Value], checks: &[Value]) -> Value {
        json!({"Node": name, "Address": "10.0.0.1", "TaggedAddresses": null, "Services": services, "Checks": checks})
    }

    fn check(service: &str, status: &str) -> Value {
        json!({"CheckID": "c", "ServiceID": service, "Status": status})
    }

    fn two_nodes(checks: &[Value]) -> Value {
        let native = json!({"ID": "db", "Service": "db", "Connect": {"Native": true}});
        let web = [service("", "web", ""), service("connect-proxy", "web-proxy", "web")];
        json!([node("n1", &web, checks), node("n2", &[native, service("", "api", "")], &[])])
    }

    fn read(nodes: &Value) -> Census {
        Census::read(nodes.to_string().as_bytes()).unwrap()
    }

    fn connect(service: &str) -> Topic {
        Topic::Connect { dc: "dc1".into(), service: service.into() }
    }

    fn health(service: &str) -> Topic {
        Topic::Health { dc: "dc1".into(), service: service.into() }
    }

    /// The topics whose marks differ.
    fn changed(before: &Value, after: &Value) -> Vec<String> {
        let (before, after) = (read(before), read(after));
        let names = ["web", "web-proxy", "db", "api", "new"];
        let topics = names.iter().flat_map(|name| [connect(name), health(name)]);
        topics
            .chain([Topic::Services { dc: "dc1".into(), kind: None }])
            .filter(|topic| before.mark(topic) != after.mark(topic))
            .map(|topic| topic.to_string())
            .collect()
    }

    #[test]
    fn a_check_marks_the_service_it_is_about() {
        let passing = two_nodes(&[check("web-proxy", "passing")]);
        assert_eq!(changed(&passing, &passing), [""; 0]);
        let critical = two_nodes(&[check("web-proxy", "critical")]);
        assert_eq!(changed(&passing, &critical), ["connect/web@dc1", "health/web-proxy@dc1"]);
    }

    #[test]
    fn a_check_of_the_node_marks_all_on_it() {
        let (passing, critical) = (two_nodes(&[check("", "passing")]), two_nodes(&[check("", "critical")]));
        let expected = ["connect/web@dc1", "health/web@dc1", "health/web-proxy@dc1"];
        assert_eq!(changed(&passing, &critical), expected);
    }

    #[test]
    fn a_new_address_and_a_new_name_are_seen_and_the_order_is_not() {
        let before = two_nodes(&[]);
        let mut moved = before.clone();
        moved[1]["Address"] = "10.0.0.2".into();
        assert_eq!(changed(&before, &moved), ["connect/db@dc1", "health/db@dc1", "health/api@dc1"]);
        let mut more = before.clone();
        more.as_array_mut().unwrap().push(node("n3", &[service("connect-proxy", "new", "api")], &[]));
        assert_eq!(changed(&before, &more), ["connect/api@dc1", "health/new@dc1", "services@dc1"]);
        let mut turned = before.clone();
        turned.as_array_mut().unwrap().reverse();
        assert_eq!(changed(&before, &turned), [""; 0]);
    }

    #[test]
    fn a_terminating_gateway_marks_every_service_that_it_may_stand_for() {
        let before = two_nodes(&[]);
        let mut after = before.clone();
        after.as_array_mut().unwrap().push(node("n3", &[service("terminating-gateway", "new", "")], &[]));
        assert!(!read(&before).is_blind() && read(&after).is_blind());
        let seen = changed(&before, &after);
        assert_eq!(seen.iter().filter(|topic| topic.starts_with("connect/")).count(), 5, "{seen:?}");
    }

    #[test]
    fn what_is_no_list_of_nodes_is_refused() {
        for body in ["{}", "[{}]", r#"[{"Node": "n", "Services": [{}]}]"#, "rubbish"] {
            assert!(Census::read(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(Census::read(b"null").unwrap(), Census::read(b"[]").unwrap());
    }
}
