//! What settings ask of clusters and listeners beyond where they lead: limits, ejection, balance, TLS.
//!
//! An upstream is built without them; [`apply`] lays them over its resources afterwards, whatever its chain made of it.

use crate::{
    mesh::{built::Parts, cluster, reader::Reader, sidecar::Sidecar},
    model::{
        mesh::MeshDefaults,
        note::Note,
        registration::{Upstream, UpstreamKind},
        settings::Settings,
    },
    xds::resource::{
        Resource,
        cluster::{Cluster, Discovery, Limits, Outlier},
        custom::Refused,
    },
};

/// The one way of spreading connections over threads that Consul knows.
const EXACT_BALANCE: &str = "exact_balance";

/// Settings and where problems with them are told.
pub(super) struct Reading<'a> {
    pub(super) sidecar: &'a Sidecar<'a>,
    /// Whose settings: `upstream counting`.
    pub(super) about: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) notes: &'a mut Vec<Note>,
}

/// The upstream with central configuration laid under its own, as Consul 1.9 and later merge it: for its settings the
/// override of the service, then the defaults; for its gateway mode the proxy's own in between. What Consul has merged
/// already stays as it is.
pub(super) fn merged(sidecar: &Sidecar<'_>, wanted: &Upstream, reader: &mut Reader<'_>) -> Option<Upstream> {
    let UpstreamKind::Service(service) = &wanted.id.destination else { return Some(wanted.clone()) };
    let (_, own) = reader.defaults(&sidecar.destination.service)?;
    let (all, specific) = (&own.upstreams.all, own.upstreams.by_service.get(service));
    let mut settings = all.settings.clone();
    if let Some(specific) = specific {
        settings = specific.settings.over(&settings);
    }
    let gateway_mode = wanted
        .gateway_mode
        .or(specific.and_then(|specific| specific.gateway_mode))
        .or(sidecar.registration.gateway_mode)
        .or(all.gateway_mode);
    Some(Upstream { settings: wanted.settings.over(&settings), gateway_mode, ..wanted.clone() })
}

/// Lays an upstream's options over its resources.
pub(super) fn apply(reading: &mut Reading<'_>, mesh: &MeshDefaults, parts: &mut Parts) {
    let (limits, outlier) = (limits(reading), outlier(reading));
    let exact_balance = exact_balance(reading, "balance_outbound_connections");
    for resource in &mut parts.resources {
        match resource {
            Resource::Cluster(cluster) => {
                if let Some(tls) = &mut cluster.tls {
                    tls.params = mesh.outgoing.clone();
                }
                limit(cluster, &limits, &outlier);
            }
            Resource::Listener(listener) => listener.exact_balance = exact_balance,
            _ => {}
        }
    }
}

/// Endpoints are in the children of an aggregate: theirs are the limits and the ejections.
fn limit(cluster: &mut Cluster, limits: &Limits, outlier: &Outlier) {
    if matches!(cluster.discovery, Discovery::Aggregate(_)) {
        return;
    }
    cluster.limits = limits.clone();
    let was = cluster.outlier.take().unwrap_or_default();
    cluster.outlier = Some(Outlier {
        interval_ms: outlier.interval_ms.or(was.interval_ms),
        consecutive_5xx: outlier.consecutive_5xx.or(was.consecutive_5xx),
        enforcing_consecutive_5xx: outlier.enforcing_consecutive_5xx.or(was.enforcing_consecutive_5xx),
        base_ejection_time_ms: outlier.base_ejection_time_ms.or(was.base_ejection_time_ms),
        max_ejection_percent: outlier.max_ejection_percent.or(was.max_ejection_percent),
    });
}

/// `limits`.
pub(super) fn limits(reading: &mut Reading<'_>) -> Limits {
    let section = reading.section("limits");
    let mut number = |key| reading.number(&section, "limits", key, u32::MAX);
    Limits {
        max_connections: number("max_connections"),
        max_pending_requests: number("max_pending_requests"),
        max_requests: number("max_concurrent_requests"),
    }
}

/// `passive_health_check`. A time or a number of failures of zero leaves Envoy's own, as with Consul's interval.
pub(super) fn outlier(reading: &mut Reading<'_>) -> Outlier {
    const SECTION: &str = "passive_health_check";
    const PERCENT: u32 = 100;
    let section = reading.section(SECTION);
    Outlier {
        interval_ms: reading.duration_ms(&section, SECTION, "interval"),
        consecutive_5xx: reading.number(&section, SECTION, "max_failures", u32::MAX).filter(|n| *n > 0),
        enforcing_consecutive_5xx: reading.number(&section, SECTION, "enforcing_consecutive_5xx", PERCENT),
        base_ejection_time_ms: reading.duration_ms(&section, SECTION, "base_ejection_time"),
        max_ejection_percent: reading.number(&section, SECTION, "max_ejection_percent", PERCENT),
    }
}

/// `balance_inbound_connections` and `balance_outbound_connections`.
pub(super) fn exact_balance(reading: &mut Reading<'_>, key: &str) -> bool {
    match reading.settings.text(key) {
        Some(EXACT_BALANCE) => true,
        Some(other) => {
            reading.note(
                format!("has a setting {key} of {other:?}, and goes without it"),
                "set it to exact_balance",
            );
            false
        }
        None if reading.settings.has(key) => {
            reading.misfit(key, "a text");
            false
        }
        None => false,
    }
}

impl Reading<'_> {
    fn section(&mut self, key: &str) -> Settings {
        let section = self.settings.section(key);
        if section.is_none() && self.settings.has(key) {
            self.misfit(key, "an object");
        }
        section.unwrap_or_default()
    }

    /// A whole number up to `most`.
    fn number(&mut self, section: &Settings, name: &str, key: &str, most: u32) -> Option<u32> {
        let read = section.number(key).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= most);
        if read.is_none() && section.has(key) {
            self.misfit(&format!("{name}.{key}"), &format!("a whole number from 0 to {most}"));
        }
        read
    }

    fn duration_ms(&mut self, section: &Settings, name: &str, key: &str) -> Option<u64> {
        let read = section.duration_ms(key);
        if read.is_none() && section.has(key) {
            self.misfit(&format!("{name}.{key}"), "a duration");
        }
        cluster::time_ms(read)
    }

    fn misfit(&mut self, key: &str, kind: &str) {
        let problem = format!("has a setting {key} that is not {kind}, and goes without it");
        self.note(problem, "correct it where it is set: Config, proxy-defaults or service-defaults");
    }

    /// What is written as a text under `key`, read; a refusal is told.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, Refused>) -> Option<T> {
        let Some(text) = self.settings.text(key) else {
            if self.settings.has(key) {
                self.misfit(key, "a text");
            }
            return None;
        };
        match parse(text) {
            Ok(read) => Some(read),
            Err(Refused { problem, remedy }) => {
                self.note(format!("has an {key} that {problem}; it goes without it"), &remedy);
                None
            }
        }
    }

    pub(super) fn note(&mut self, problem: String, remedy: &str) {
        self.notes.push(self.sidecar.note(self.about, problem, remedy));
    }
}
