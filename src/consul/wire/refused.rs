//! What Consul offers and this agent leaves out, as tables of fields: one that is set becomes a note, so that nothing is
//! left out in silence. What refuses more than a field (an upstream, a target, a proxy) is noted where it is read.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{consul::wire::read::is_set, model::note::Note};

/// A field that does not count.
pub(crate) struct Refused {
    field: &'static str,
    /// Where in it what it asks for is written, if it is an object that may be there without asking for anything.
    within: Option<&'static str>,
    /// The texts that ask for no more than what is done anyway.
    harmless: &'static [&'static str],
    /// What becomes of traffic without it.
    instead: &'static str,
    remedy: &'static str,
}

const EXTENSIONS: Refused = Refused {
    field: "EnvoyExtensions",
    within: None,
    harmless: &[],
    instead: "Envoy is configured without them",
    remedy: "leave EnvoyExtensions out, or do not count on them",
};

const ACCESS_LOGS: Refused = Refused {
    field: "AccessLogs",
    within: Some("Enabled"),
    harmless: &[],
    instead: "Envoy writes no access log",
    remedy: "leave AccessLogs out, or read Envoy's statistics",
};

const MUTUAL_TLS: Refused = Refused {
    field: "MutualTLSMode",
    within: None,
    harmless: &["strict"],
    instead: "callers without a certificate are refused",
    remedy: "set MutualTLSMode to strict",
};

const BY_LOCALITY: Refused = Refused {
    field: "PrioritizeByLocality",
    within: Some("Mode"),
    harmless: &["none"],
    instead: "instances of all localities are used alike",
    remedy: "leave PrioritizeByLocality out",
};

/// Fields of `Proxy` in a registration. Consul merges those of the central configuration into it.
pub(crate) const OF_PROXIES: [Refused; 3] = [EXTENSIONS, ACCESS_LOGS, MUTUAL_TLS];

/// Fields of proxy-defaults and service-defaults.
pub(crate) const OF_DEFAULTS: [Refused; 8] = [
    ACCESS_LOGS,
    BY_LOCALITY,
    EXTENSIONS,
    MUTUAL_TLS,
    Refused {
        field: "RateLimits",
        within: None,
        harmless: &[],
        instead: "requests are not limited by their rate",
        remedy: "leave RateLimits out",
    },
    Refused {
        field: "Mode",
        within: None,
        harmless: &["default", "direct"],
        instead: "only the upstreams that a registration names are served",
        remedy: "name the upstreams in the registrations and leave Mode out",
    },
    Refused {
        field: "Destination",
        within: None,
        harmless: &[],
        instead: "its hosts cannot be reached through the mesh",
        remedy: "let callers reach its addresses themselves",
    },
    Refused {
        field: "FailoverPolicy",
        within: Some("Mode"),
        harmless: &["sequential"],
        instead: "failover targets follow in order",
        remedy: "leave FailoverPolicy out",
    },
];

/// Keys of `Config`, in registrations and in proxy-defaults, beside those that are noted where they would be used.
pub(crate) const OF_SETTINGS: [Refused; 1] = [Refused {
    field: "xds_fetch_timeout_ms",
    within: None,
    harmless: &[],
    instead: "Envoy waits for first endpoints and routes as long as it does by itself",
    remedy: "leave it out: they are sent with their cluster or listener",
}];

/// Fields of the mesh entry.
pub(crate) const OF_MESH: [Refused; 3] = [
    Refused {
        field: "Peering",
        within: Some("PeerThroughMeshGateways"),
        harmless: &[],
        instead: "no peer is served",
        remedy: "leave Peering out, and join datacenters by WAN federation",
    },
    Refused {
        field: "TransparentProxy",
        within: Some("MeshDestinationsOnly"),
        harmless: &[],
        instead: "no traffic is captured, so none is kept from leaving the mesh",
        remedy: "leave TransparentProxy out, and keep applications from other addresses by a firewall",
    },
    Refused {
        field: "ValidateClusters",
        within: None,
        harmless: &[],
        instead: "Envoy checks the clusters that routes name as it does by itself",
        remedy: "leave ValidateClusters out: clusters are sent before what leads to them",
    },
];

/// Fields of a compiled chain.
pub(crate) const OF_CHAINS: [Refused; 1] = [EXTENSIONS];

/// Fields of a resolver in a compiled chain.
pub(crate) const OF_RESOLVERS: [Refused; 1] = [BY_LOCALITY];

/// Notes on those fields of `table` that ask for anything.
pub(crate) fn note(fields: &BTreeMap<String, Value>, table: &[Refused], about: &str, notes: &mut Vec<Note>) {
    notes.extend(table.iter().filter(|refused| refused.is_asked(fields.get(refused.field))).map(|refused| {
        let problem = format!("{} has no effect: {}", refused.field, refused.instead);
        Note::new(about, problem, refused.remedy)
    }));
}

impl Refused {
    fn is_asked(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return false };
        let asked = self
            .within
            .and_then(|name| value.as_object().map(|fields| fields.get(name).unwrap_or(&Value::Null)));
        let asked = asked.unwrap_or(value);
        is_set(asked) && !asked.as_str().is_some_and(|text| self.harmless.contains(&text))
    }
}

/// The namespace or partition, if it is another than that of a Consul without any.
pub(crate) fn foreign<'a>(namespace: &'a str, partition: &'a str) -> Option<(&'static str, &'a str)> {
    [("namespace", namespace), ("partition", partition)]
        .into_iter()
        .find(|(_, name)| !matches!(*name, "" | "default"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::consul::wire::{agent, chain, defaults, instance, registration};

    fn lines(notes: &[Note]) -> String {
        notes.iter().map(Note::to_string).collect::<Vec<_>>().join("\n")
    }

    /// The notes on a registration, on its upstreams too.
    fn registered(body: Value) -> String {
        match registration::registration(body.to_string().as_bytes()) {
            Ok((registration, mut notes)) => {
                let unread = registration.upstreams.into_iter().filter_map(Result::err);
                notes.extend(unread.map(|unread| unread.note));
                lines(&notes)
            }
            Err(error) => error.to_string(),
        }
    }

    fn read<T>(
        read: impl Fn(&[u8]) -> Result<crate::consul::wire::Read<T>, crate::consul::wire::WireError>,
        body: Value,
    ) -> String {
        match read(body.to_string().as_bytes()) {
            Ok((_, notes)) => lines(&notes),
            Err(error) => error.to_string(),
        }
    }

    fn proxy(more: Value) -> Value {
        let mut body = json!({"Kind": "connect-proxy", "ID": "web-proxy", "Service": "web-proxy", "Port": 20000,
            "Proxy": {"DestinationServiceName": "web"}});
        for (name, value) in more.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(fields) => body[name].as_object_mut().unwrap().extend(fields.clone()),
                None => body[name] = value.clone(),
            }
        }
        body
    }

    #[test]
    fn each_field_that_does_not_count_is_noted() {
        let central = json!({"Kind": "proxy-defaults", "Name": "global", "AccessLogs": {"Enabled": true},
            "PrioritizeByLocality": {"Mode": "failover"}, "Mode": "transparent", "FailoverPolicy": {"Mode": "order-by-locality"},
            "Config": {"xds_fetch_timeout_ms": 9999},
            "Destination": {"Addresses": ["db.example"], "Port": 443}});
        let own = proxy(
            json!({"Proxy": {"AccessLogs": {"Enabled": true}, "MutualTLSMode": "permissive", "Mode": "transparent",
            "EnvoyExtensions": [{"Name": "builtin/lua"}]}}),
        );
        let compiled = json!({"Chain": {"ServiceName": "a", "Datacenter": "dc1", "StartNode": "r",
            "EnvoyExtensions": [{"Name": "builtin/lua"}],
            "Targets": {"t": {"Service": "a", "SNI": "s", "Name": "n"}},
            "Nodes": {"r": {"Type": "resolver", "Resolver": {"Target": "t", "PrioritizeByLocality": {"Mode": "failover"}}}}}});
        insta::assert_snapshot!(
            [read(defaults::defaults, central), read(registration::registration, own), read(chain::chain, compiled)].join("\n"),
            @r"
            proxy-defaults global: AccessLogs has no effect: Envoy writes no access log; leave AccessLogs out, or read Envoy's statistics
            proxy-defaults global: PrioritizeByLocality has no effect: instances of all localities are used alike; leave PrioritizeByLocality out
            proxy-defaults global: Mode has no effect: only the upstreams that a registration names are served; name the upstreams in the registrations and leave Mode out
            proxy-defaults global: Destination has no effect: its hosts cannot be reached through the mesh; let callers reach its addresses themselves
            proxy-defaults global: FailoverPolicy has no effect: failover targets follow in order; leave FailoverPolicy out
            proxy-defaults global: xds_fetch_timeout_ms has no effect: Envoy waits for first endpoints and routes as long as it does by itself; leave it out: they are sent with their cluster or listener
            proxy web-proxy: EnvoyExtensions has no effect: Envoy is configured without them; leave EnvoyExtensions out, or do not count on them
            proxy web-proxy: AccessLogs has no effect: Envoy writes no access log; leave AccessLogs out, or read Envoy's statistics
            proxy web-proxy: MutualTLSMode has no effect: callers without a certificate are refused; set MutualTLSMode to strict
            proxy web-proxy: the proxy mode `transparent` is not supported; name its upstreams in the registration and leave Proxy.Mode out
            chain of a: EnvoyExtensions has no effect: Envoy is configured without them; leave EnvoyExtensions out, or do not count on them
            chain of a, node r: PrioritizeByLocality has no effect: instances of all localities are used alike; leave PrioritizeByLocality out
            "
        );
    }

    #[test]
    fn what_asks_for_no_more_than_is_done_is_not_noted() {
        let central = json!({"Kind": "proxy-defaults", "Name": "global", "AccessLogs": {"Enabled": false, "Type": "stdout"},
            "PrioritizeByLocality": {"Mode": "none"}, "Mode": "direct", "FailoverPolicy": {"Mode": "sequential"},
            "Destination": null, "MutualTLSMode": "strict", "TransparentProxy": {}});
        assert_eq!(read(defaults::defaults, central), "");
        let own = json!({"Namespace": "default", "Partition": "default",
            "Proxy": {"AccessLogs": {}, "MutualTLSMode": "", "EnvoyExtensions": null, "Mode": "direct"}});
        assert_eq!(read(registration::registration, proxy(own)), "");
    }

    #[test]
    fn what_is_elsewhere_or_has_several_ports_is_refused() {
        let agent = |body: &[u8]| agent::agent(body, None);
        let upstream = |fields: Value| {
            let mut upstream = json!({"DestinationName": "db", "LocalBindPort": 5000});
            upstream.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            registered(json!({"Kind": "connect-proxy", "ID": "web-proxy", "Service": "web-proxy",
                "Port": 20000, "Proxy": {"DestinationServiceName": "web", "Upstreams": [upstream]}}))
        };
        let several = json!([
            {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "a", "Service": "a", "Port": 80}},
            {"Node": {"Node": "n", "Address": "10.0.0.1"},
                "Service": {"ID": "b", "Service": "b", "Ports": [{"Name": "http", "Port": 80, "Default": true}]}},
        ]);
        insta::assert_snapshot!(
            [
                read(registration::registration, proxy(json!({"Namespace": "team"}))),
                read(registration::registration, proxy(json!({"Partition": "team"}))),
                read(registration::registration, proxy(json!({"Kind": "api-gateway"}))),
                upstream(json!({"DestinationNamespace": "team"})),
                upstream(json!({"DestinationPartition": "team"})),
                upstream(json!({"DestinationPeer": "other"})),
                upstream(json!({"DestinationPort": "admin"})),
                read(instance::instances, several),
                read(agent, json!({"Config": {"Datacenter": "dc1", "NodeName": "n", "Partition": "team"}})),
            ]
            .join("\n"),
            @r"
            it is in the namespace `team`, which is not supported; register it in default
            it is in the partition `team`, which is not supported; register it in default
            proxy web-proxy: the kind `api-gateway` is not supported; register a connect-proxy or a mesh-gateway under this id
            upstream db: it is in a peer, a partition or a namespace, which are not supported; name a service of the federation's default namespace
            upstream db: it is in a peer, a partition or a namespace, which are not supported; name a service of the federation's default namespace
            upstream db: it is in a peer, a partition or a namespace, which are not supported; name a service of the federation's default namespace
            upstream db: it names a port of a service with several, which are not supported; register a service of its own for that port, and leave DestinationPort out
            instance b of service b on node n: it has several ports, which are not supported; register a service of its own for each port
            Consul agent: it is in the partition `team`, which is not supported; run the agent beside a Consul of the partition default
            "
        );
    }
}
