//! What an Envoy has, read from its admin interface: `/config_dump` and, for endpoints, `/clusters`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    envoy::report::{Field, fields, form},
    xds::{
        resource::{Key, Kind},
        status::refusal_words,
    },
};

/// Envoy's answer is not what its admin interface gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read Envoy's {page}: {problem}; is it the admin interface of an Envoy that has all of it?")]
pub struct Unreadable {
    page: &'static str,
    problem: String,
}

/// Everything dynamic that an Envoy has.
#[derive(Clone, Debug)]
pub struct Actual {
    pub(super) transport: Transport,
    pub(super) resources: BTreeMap<Key, Found>,
    /// What its clusters and listeners name, those left out that drain.
    pub(super) named: BTreeSet<Key>,
    /// The names of endpoints that nothing but warming clusters have.
    pub(super) warming_endpoints: BTreeSet<String>,
}

/// How it gets its configuration, as far as that shows in what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transport {
    /// Over one stream. Otherwise its resources name other sources than the intended ones do.
    pub(super) is_ads: bool,
    /// Each resource has its version; otherwise all of a type share that of the last response.
    pub(super) is_delta: bool,
}

/// One resource of an Envoy's.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) active: Option<Held>,
    pub(super) warming: Option<Held>,
    pub(super) error: Option<Refused>,
}

/// A resource in the form that is compared.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) version: Option<String>,
    /// None if only the version is known.
    pub(super) form: Option<Value>,
}

/// Two resources, compared.
#[derive(Debug, PartialEq)]
pub(super) enum Comparison {
    Same,
    Differs(Vec<Field>),
}

/// What Envoy says of a refusal.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) details: String,
    version: Option<String>,
    form: Option<Value>,
}

impl Held {
    /// Compared with what Envoy has; by version where the contents of one of them are not known.
    pub(super) fn differing(&self, held: &Self) -> Comparison {
        let fields = match (&self.form, &held.form) {
            (Some(a), Some(b)) => fields::differing(a, b),
            _ if self.version == held.version => return Comparison::Same,
            _ => return Comparison::Differs(Vec::new()),
        };
        if fields.is_empty() { Comparison::Same } else { Comparison::Differs(fields) }
    }

    /// Envoy tells no version of endpoints.
    pub(super) fn has_version_of(&self, held: Option<&Self>) -> bool {
        let version = held.and_then(|held| held.version.as_ref());
        version.is_none() || version == self.version.as_ref()
    }

    pub(super) fn over(mut self, transport: Transport) -> Self {
        if let Some(form) = self.form.as_mut().filter(|_| !transport.is_ads) {
            form::without_sources(form);
        }
        self
    }
}

impl Refused {
    /// Whether it is this that was refused. Envoy does not always tell the version.
    pub(super) fn is_about(&self, wanted: &Held) -> bool {
        let same_version = self.version.is_some() && self.version == wanted.version;
        same_version || (self.form.is_some() && self.form == wanted.form)
    }
}

impl Actual {
    /// Reads the answers to `/config_dump?include_eds` and `/clusters?format=json`.
    ///
    /// # Errors
    /// A section is missing that every Envoy has.
    pub fn read(config_dump: &Value, clusters: &Value) -> Result<Self, Unreadable> {
        let dump = Dump::read(config_dump)?;
        let bootstrap = dump.section("BootstrapConfigDump")?;
        let mut actual = Self {
            transport: Transport::read(&bootstrap["bootstrap"]["dynamic_resources"]),
            resources: BTreeMap::new(),
            named: BTreeSet::new(),
            warming_endpoints: BTreeSet::new(),
        };
        let of_clusters = dump.section("ClustersConfigDump")?;
        actual.note(Kind::Cluster, &of_clusters["dynamic_active_clusters"], "cluster", false);
        actual.note(Kind::Cluster, &of_clusters["dynamic_warming_clusters"], "cluster", true);
        let secrets = dump.section("SecretsConfigDump")?;
        actual.note(Kind::Secret, &secrets["dynamic_active_secrets"], "secret", false);
        actual.note(Kind::Secret, &secrets["dynamic_warming_secrets"], "secret", true);
        actual.note_listeners(&dump.section("ListenersConfigDump")?["dynamic_listeners"]);
        // An Envoy that never had an HTTP listener has no such section.
        if let Some(routes) = dump.find("RoutesConfigDump") {
            actual.note(Kind::Route, &routes["dynamic_route_configs"], "route_config", false);
        }
        actual.note_endpoints(&dump, clusters)?;
        for found in actual.resources.values_mut() {
            let transport = actual.transport;
            found.active = found.active.take().map(|held| held.over(transport));
            found.warming = found.warming.take().map(|held| held.over(transport));
        }
        Ok(actual)
    }

    fn note(&mut self, kind: Kind, entries: &Value, field: &str, is_warming: bool) {
        for entry in items(entries) {
            let message = &entry[field];
            let own = &message[if kind == Kind::Endpoints { "cluster_name" } else { "name" }];
            // A secret that has not come yet has its name beside the message only.
            let Some(name) = own.as_str().or_else(|| entry["name"].as_str()) else { continue };
            let key = Key::new(kind, name);
            if let Some(held) = self.held(kind, entry, field) {
                let found = self.resources.entry(key.clone()).or_default();
                *(if is_warming { &mut found.warming } else { &mut found.active }) = Some(held);
            }
            self.note_error(key, entry);
        }
    }

    /// A listener may be in use, warming, and draining at once, each in a version of its own.
    fn note_listeners(&mut self, entries: &Value) {
        for entry in items(entries) {
            let Some(name) = entry["name"].as_str() else { continue };
            let key = Key::new(Kind::Listener, name);
            let active = self.held(Kind::Listener, &entry["active_state"], "listener");
            let warming = self.held(Kind::Listener, &entry["warming_state"], "listener");
            if active.is_some() || warming.is_some() {
                self.resources.insert(key.clone(), Found { active, warming, error: None });
            }
            self.note_error(key, entry);
        }
    }

    fn held(&mut self, kind: Kind, entry: &Value, field: &str) -> Option<Held> {
        let message = entry.get(field)?;
        let form = form::of_dump(kind, message);
        form::named_by(kind, &form, &mut self.named);
        let version = entry["version_info"].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Held { version, form: Some(form) })
    }

    fn note_error(&mut self, key: Key, entry: &Value) {
        let error = &entry["error_state"];
        let Some(details) = error["details"].as_str() else { return };
        let failed = error.get("failed_configuration");
        let refused = Refused {
            details: refusal_words(details),
            version: error["version_info"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
            form: failed.map(|failed| form::of_dump(key.kind, failed)),
        };
        self.resources.entry(key).or_default().error = Some(refused);
    }

    /// Endpoints as the clusters that are in use have them.
    fn note_endpoints(&mut self, dump: &Dump<'_>, clusters: &Value) -> Result<(), Unreadable> {
        let statuses = clusters["cluster_statuses"].as_array().ok_or(Unreadable {
            page: "/clusters?format=json",
            problem: "it has no cluster_statuses".to_owned(),
        })?;
        let statuses: BTreeMap<&str, &Value> =
            statuses.iter().filter_map(|status| Some((status["name"].as_str()?, status))).collect();
        let policies = dump.policies();
        let mut found = Vec::new();
        for (key, cluster) in self.resources.iter().filter(|(key, _)| key.kind == Kind::Cluster) {
            let name = |held: &Option<Held>| form::endpoints_name(held.as_ref()?.form.as_ref()?);
            if let Some(name) = name(&cluster.active) {
                let Some(status) = statuses.get(key.name.as_str()) else { continue };
                let form = form::of_hosts(&status["host_statuses"], policies.get(name.as_str()).copied());
                found.push((Key::new(Kind::Endpoints, name), form));
            } else if let Some(name) = name(&cluster.warming) {
                self.warming_endpoints.insert(name);
            }
        }
        for (key, form) in found {
            let held = Held { version: None, form: Some(form) };
            self.resources.insert(key, Found { active: Some(held), ..Found::default() });
        }
        Ok(())
    }
}

impl Transport {
    fn read(dynamic: &Value) -> Self {
        let ads = dynamic.get("ads_config");
        let api = ads.unwrap_or(&dynamic["cds_config"]["api_config_source"]);
        let kind = api["api_type"].as_str().unwrap_or_default();
        Self { is_ads: ads.is_some(), is_delta: matches!(kind, "DELTA_GRPC" | "AGGREGATED_DELTA_GRPC") }
    }
}

/// The sections of a config dump, by the names of their types.
struct Dump<'a>(BTreeMap<&'a str, &'a Value>);

impl<'a> Dump<'a> {
    fn read(dump: &'a Value) -> Result<Self, Unreadable> {
        let configs = dump["configs"].as_array().ok_or_else(|| Self::lacks("configs"))?;
        let name = |section: &'a Value| Some((section["@type"].as_str()?.rsplit('.').next()?, section));
        Ok(Self(configs.iter().filter_map(name).collect()))
    }

    fn find(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).copied()
    }

    fn section(&self, name: &str) -> Result<&'a Value, Unreadable> {
        self.find(name).ok_or_else(|| Self::lacks(name))
    }

    fn lacks(what: &str) -> Unreadable {
        Unreadable { page: "/config_dump?include_eds", problem: format!("it has no {what}") }
    }

    /// What is said of failover, by the name of the endpoints.
    fn policies(&self) -> BTreeMap<&'a str, &'a Value> {
        let Some(endpoints) = self.find("EndpointsConfigDump") else { return BTreeMap::new() };
        let configs = items(&endpoints["dynamic_endpoint_configs"]).map(|entry| &entry["endpoint_config"]);
        configs.filter_map(|config| Some((config["cluster_name"].as_str()?, &config["policy"]))).collect()
    }
}

fn items(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}
