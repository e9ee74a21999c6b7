//! Which registered proxy an Envoy is started for. Pure: the local agent's services in, one of them out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::settings::Settings;

/// The kind of a sidecar in Consul's words.
pub(super) const SIDECAR: &str = "connect-proxy";
/// The kind of a mesh gateway in Consul's words.
pub(super) const MESH_GATEWAY: &str = "mesh-gateway";

/// A service as the local agent lists it (`/v1/agent/services`); only what is used here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LocalService {
    /// Its id.
    #[serde(rename = "ID")]
    pub(super) id: String,
    /// Its name.
    pub(super) service: String,
    /// Empty for a typical service.
    pub(super) kind: String,
    /// Its tags.
    pub(super) tags: Option<Vec<String>>,
    /// Its metadata.
    pub(super) meta: Option<BTreeMap<String, String>>,
    /// Only on proxies and gateways.
    pub(super) proxy: Option<LocalProxy>,
}

/// The proxy part of a registration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LocalProxy {
    pub(super) destination_service_name: String,
    #[serde(rename = "DestinationServiceID")]
    pub(super) destination_service_id: String,
    pub(super) config: Option<BTreeMap<String, Value>>,
}

impl LocalService {
    /// The service that the proxy's metrics are counted for.
    pub(super) fn stands_for(&self) -> &str {
        let destination = self.proxy.as_ref().map_or("", |proxy| &proxy.destination_service_name);
        if destination.is_empty() { &self.service } else { destination }
    }

    /// The proxy's own settings.
    pub(super) fn settings(&self) -> Settings {
        Settings(self.proxy.as_ref().and_then(|proxy| proxy.config.clone()).unwrap_or_default())
    }

    fn destination_id(&self) -> &str {
        self.proxy.as_ref().map_or("", |proxy| &proxy.destination_service_id)
    }
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The sidecar of the service with this id.
    SidecarFor(String),
    /// The proxy with this id.
    Proxy(String),
    /// The mesh gateway with this id.
    GatewayId(String),
    /// The only mesh gateway of this service name, or the only one at all.
    Gateway(Option<String>),
}

impl Wanted {
    /// The proxy's own id, where it was named.
    pub(super) fn proxy_id(&self) -> Option<&str> {
        match self {
            Self::Proxy(id) | Self::GatewayId(id) => Some(id),
            Self::SidecarFor(_) | Self::Gateway(_) => None,
        }
    }
}

/// Why there is no such proxy; each text names what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChooseError {
    #[error(
        "no sidecar is registered for service id `{id}` on this Consul agent; add `connect {{ sidecar_service {{}} }}` \
         to its registration and run `consul services register`, or `consul reload`{hint}"
    )]
    NoSidecar { id: String, hint: String },
    #[error(
        "{} sidecars are registered for service id `{id}`: {}; choose one with `--proxy-id ID`",
        proxies.len(), proxies.join(", ")
    )]
    ManySidecars { id: String, proxies: Vec<String> },
    #[error("service id `{id}` is itself a proxy, of kind {kind}; use `--proxy-id {id}`")]
    IsProxy { id: String, kind: String },
    #[error("no proxy with service id `{id}` is registered on this Consul agent{hint}")]
    NoProxy { id: String, hint: String },
    #[error("service id `{id}` is an ordinary service, not a proxy; use `--sidecar-for {id}`")]
    NotAProxy { id: String },
    #[error(
        "service id `{id}` is of kind {kind}; this version of causeway serves sidecars and mesh gateways only"
    )]
    UnsupportedKind { id: String, kind: String },
    #[error("service id `{id}` is not a mesh gateway but of kind {kind}; name the gateway's own id")]
    NotAGateway { id: String, kind: String },
    #[error(
        "no mesh gateway{named} is registered on this Consul agent; add `--register` to register one{hint}"
    )]
    NoGateway { named: String, hint: String },
    #[error("{} mesh gateways are registered here: {}; choose one with `--proxy-id ID`", ids.len(), ids.join(", "))]
    ManyGateways { ids: Vec<String> },
}

/// The one registered proxy that is wanted.
pub(super) fn choose<'a>(
    services: &'a [LocalService],
    wanted: &Wanted,
) -> Result<&'a LocalService, ChooseError> {
    match wanted {
        Wanted::SidecarFor(id) => sidecar_for(services, id),
        Wanted::Proxy(id) => {
            let found = by_id(services, id)?;
            match found.kind.as_str() {
                SIDECAR | MESH_GATEWAY => Ok(found),
                "" => Err(ChooseError::NotAProxy { id: id.clone() }),
                kind => Err(ChooseError::UnsupportedKind { id: id.clone(), kind: kind.to_owned() }),
            }
        }
        Wanted::GatewayId(id) => {
            let found = by_id(services, id)?;
            if found.kind == MESH_GATEWAY {
                return Ok(found);
            }
            Err(ChooseError::NotAGateway { id: id.clone(), kind: kind_in_words(&found.kind).to_owned() })
        }
        Wanted::Gateway(name) => gateway(services, name.as_deref()),
    }
}

fn sidecar_for<'a>(services: &'a [LocalService], id: &str) -> Result<&'a LocalService, ChooseError> {
    // Consul compares service ids here without regard to case.
    let sidecars = services.iter().filter(|service| service.kind == SIDECAR);
    let found: Vec<_> = sidecars.clone().filter(|it| it.destination_id().eq_ignore_ascii_case(id)).collect();
    if let [only] = found[..] {
        return Ok(only);
    }
    if !found.is_empty() {
        let proxies = found.iter().map(|service| service.id.clone()).collect();
        return Err(ChooseError::ManySidecars { id: id.to_owned(), proxies });
    }
    if let Some(proxy) = services.iter().find(|service| service.id == id && !service.kind.is_empty()) {
        return Err(ChooseError::IsProxy { id: id.to_owned(), kind: proxy.kind.clone() });
    }
    let by_name: Vec<_> = sidecars
        .clone()
        .filter(|it| it.stands_for() == id && !it.destination_id().is_empty())
        .map(LocalService::destination_id)
        .collect();
    let hint = if by_name.is_empty() {
        near(id, sidecars.map(LocalService::destination_id), "service ids that have a sidecar here")
    } else {
        format!("; `{id}` is a service name, and --sidecar-for takes a service id: {}", by_name.join(", "))
    };
    Err(ChooseError::NoSidecar { id: id.to_owned(), hint })
}

fn by_id<'a>(services: &'a [LocalService], id: &str) -> Result<&'a LocalService, ChooseError> {
    services.iter().find(|service| service.id == id).ok_or_else(|| {
        let proxies = services.iter().filter(|service| !service.kind.is_empty());
        let hint = near(id, proxies.map(|service| service.id.as_str()), "proxies here");
        ChooseError::NoProxy { id: id.to_owned(), hint }
    })
}

fn gateway<'a>(services: &'a [LocalService], name: Option<&str>) -> Result<&'a LocalService, ChooseError> {
    let gateways = services.iter().filter(|service| service.kind == MESH_GATEWAY);
    let found: Vec<_> =
        gateways.clone().filter(|service| name.is_none_or(|name| service.service == name)).collect();
    match found[..] {
        [only] => Ok(only),
        [] => Err(ChooseError::NoGateway {
            named: name.map(|name| format!(" of service `{name}`")).unwrap_or_default(),
            hint: near("", gateways.map(|service| service.service.as_str()), "mesh gateway services here"),
        }),
        _ => Err(ChooseError::ManyGateways { ids: found.iter().map(|service| service.id.clone()).collect() }),
    }
}

fn kind_in_words(kind: &str) -> &str {
    if kind.is_empty() { "ordinary service" } else { kind }
}

/// At most eight of the names, the most alike first.
fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, what: &str) -> String {
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by_key(|name| strsim::damerau_levenshtein(name, wanted));
    names.truncate(8);
    if names.is_empty() { String::new() } else { format!("; {what}: {}", names.join(", ")) }
}
