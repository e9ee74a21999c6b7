//! What a bootstrap has beyond the way to the agent: metrics, tracing, static resources, as the settings of proxies ask
//! for them under Consul's keys. What cannot be read is told, and Envoy starts without it: metrics are not worth
//! traffic.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    envoy::bootstrap::{AdminAddress, Endpoint, socket_address},
    model::{
        note::Note,
        settings::{Settings, duration_ms},
    },
    xds::resource::custom::{CustomKind, CustomMessage, Refused},
};

/// The whole bootstrap as a template of Go's, made for Consul's own xDS.
const TEMPLATE: &str = "envoy_bootstrap_json_tpl";

/// What is added to a bootstrap. The default adds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Tags that every statistic carries, with their values.
    pub stats_tags: Vec<(String, String)>,
    /// Replaces Causeway's own tags.
    pub stats_config: Option<Value>,
    /// Where statistics are sent.
    pub stats_sinks: Vec<Value>,
    /// How often they are sent.
    pub stats_flush_ms: Option<u64>,
    /// Tracing.
    pub tracing: Option<Value>,
    /// Static clusters.
    pub clusters: Vec<Value>,
    /// Static listeners.
    pub listeners: Vec<Value>,
    /// Pages of the admin interface that others may fetch.
    pub pages: Vec<Page>,
}

/// One page of the admin interface with a listener of its own, which serves nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The name that its listener begins with.
    pub name: &'static str,
    /// Where it is served.
    pub at: SocketAddr,
    /// The path that others ask for.
    pub path: String,
    /// Whether all that is below the path is served too.
    pub is_prefix: bool,
    /// The page of the admin interface.
    pub page: &'static str,
    /// Another port of this machine that serves the page instead of the admin interface.
    pub backend: Option<u16>,
}

/// What the command line adds to the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The path that metrics are fetched from.
    pub prometheus_path: String,
    /// The port that serves metrics instead of Envoy.
    pub prometheus_backend: Option<u16>,
    /// Where it is told whether Envoy is ready.
    pub ready: Option<SocketAddr>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { prometheus_path: "/metrics".into(), prometheus_backend: None, ready: None }
    }
}

/// The environment: a variable's value by its name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Extras {
    /// Reads the settings of a proxy, and tells what is wrong with them.
    pub fn read(proxy: &str, settings: &Settings, pages: &Pages, env: Env<'_>) -> (Self, Vec<Note>) {
        Self::read_in(Some(env), proxy, settings, pages)
    }

    /// What is wrong with the settings of a proxy wherever its Envoy starts. An address that names variables of
    /// Envoy's environment is for whoever starts it to judge.
    pub fn notes(proxy: &str, settings: &Settings) -> Vec<Note> {
        Self::read_in(None, proxy, settings, &Pages::default()).1
    }

    fn read_in(env: Option<Env<'_>>, proxy: &str, settings: &Settings, pages: &Pages) -> (Self, Vec<Note>) {
        let mut reading = Reading { proxy, settings, notes: Vec::new() };
        let mut stats_sinks = Vec::new();
        for (key, name, kind) in [
            ("envoy_statsd_url", "envoy.stat_sinks.statsd", "StatsdSink"),
            ("envoy_dogstatsd_url", "envoy.stat_sinks.dog_statsd", "DogStatsdSink"),
        ] {
            stats_sinks.extend(reading.text(key, |url| sink(url, name, kind, env)).flatten());
        }
        stats_sinks.extend(reading.list("envoy_extra_stats_sinks_json", CustomKind::StatsSink));
        let extras = Self {
            stats_tags: reading.tags(),
            stats_config: reading.message("envoy_stats_config_json", CustomKind::StatsConfig),
            stats_sinks,
            stats_flush_ms: reading.text("envoy_stats_flush_interval", |text| {
                let ms = duration_ms(text).filter(|ms| *ms > 0);
                ms.ok_or_else(|| refused("is no duration", "write for example 10s"))
            }),
            tracing: reading.message("envoy_tracing_json", CustomKind::Tracer),
            clusters: reading.list("envoy_extra_static_clusters_json", CustomKind::Cluster),
            listeners: reading.list("envoy_extra_static_listeners_json", CustomKind::Listener),
            pages: reading.pages(pages),
        };
        if settings.has(TEMPLATE) {
            let problem = "is a template for Consul's own xDS";
            reading.note(TEMPLATE, refused(problem, "use the other settings of the bootstrap instead"));
        }
        (extras, reading.notes)
    }

    /// Adds everything to a bootstrap whose admin interface is at `admin`.
    pub(super) fn add_to(&self, bootstrap: &mut Value, admin: &AdminAddress) {
        if let Some(config) = &self.stats_config {
            bootstrap["stats_config"] = config.clone();
        } else if let Some(tags) = bootstrap["stats_config"]["stats_tags"].as_array_mut() {
            tags.extend(
                self.stats_tags.iter().map(|(tag, value)| json!({"tag_name": tag, "fixed_value": value})),
            );
        }
        if !self.stats_sinks.is_empty() {
            bootstrap["stats_sinks"] = self.stats_sinks.clone().into();
        }
        if let Some(ms) = self.stats_flush_ms {
            bootstrap["stats_flush_interval"] = format!("{}.{:03}s", ms / 1000, ms % 1000).into();
        }
        if let Some(tracing) = &self.tracing {
            bootstrap["tracing"] = tracing.clone();
        }
        let backends = self.pages.iter().filter_map(|page| page.backend);
        let own = self.pages.iter().any(|page| page.backend.is_none());
        let clusters =
            own.then(|| local_cluster(SELF_ADMIN, dialled(admin)))
                .into_iter()
                .chain(backends.map(|port| {
                    local_cluster(PROMETHEUS_BACKEND, socket_address(([127, 0, 0, 1], port).into()))
                }))
                .chain(self.clusters.iter().cloned());
        if let Some(all) = bootstrap["static_resources"]["clusters"].as_array_mut() {
            all.extend(clusters);
        }
        let listeners: Vec<Value> =
            self.pages.iter().map(listener).chain(self.listeners.iter().cloned()).collect();
        if !listeners.is_empty() {
            bootstrap["static_resources"]["listeners"] = listeners.into();
        }
    }
}

/// The cluster of Envoy's own admin interface, by Consul's name.
const SELF_ADMIN: &str = "self_admin";
/// The cluster of what serves metrics instead, by Consul's name.
const PROMETHEUS_BACKEND: &str = "prometheus_backend";

struct Reading<'a> {
    proxy: &'a str,
    settings: &'a Settings,
    notes: Vec<Note>,
}

impl Reading<'_> {
    /// What is written as a text under `key`, read; a problem is told under its name.
    fn text<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, Refused>) -> Option<T> {
        let Some(text) = self.settings.text(key) else {
            if self.settings.has(key) {
                self.note(key, refused("is not a text", "write it as one"));
            }
            return None;
        };
        read(text).map_err(|refused| self.note(key, refused)).ok()
    }

    fn note(&mut self, key: &str, Refused { problem, remedy }: Refused) {
        let about = format!("bootstrap of {}", self.proxy);
        self.notes.push(Note::new(
            about,
            format!("its {key} {problem}, and Envoy starts without it"),
            remedy,
        ));
    }

    fn message(&mut self, key: &str, kind: CustomKind) -> Option<Value> {
        self.text(key, |text| message(text, kind))
    }

    /// Objects with commas between them, in brackets or without.
    fn list(&mut self, key: &str, kind: CustomKind) -> Vec<Value> {
        let read = self.text(key, |text| {
            let text = text.trim();
            let list = if text.starts_with('[') { text.to_owned() } else { format!("[{text}]") };
            let items: Vec<Value> = serde_json::from_str(&list)
                .map_err(|error| refused(format!("is no JSON: {error}"), "correct it"))?;
            items.iter().map(|item| message(&item.to_string(), kind)).collect()
        });
        read.unwrap_or_default()
    }

    /// `envoy_stats_tags`: a list of `name=value`.
    fn tags(&mut self) -> Vec<(String, String)> {
        const KEY: &str = "envoy_stats_tags";
        let Some(value) = self.settings.0.get(KEY).filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let items = value.as_array().map(Vec::as_slice);
        let tags: Option<Vec<_>> = items.and_then(|items| {
            let pair = |item: &Value| {
                let (tag, value) = item.as_str()?.split_once('=').filter(|(tag, _)| !tag.is_empty())?;
                Some((tag.to_owned(), value.to_owned()))
            };
            items.iter().map(pair).collect()
        });
        if tags.is_none() {
            self.note(KEY, refused("is not a list of texts like name=value", "write it so"));
        }
        tags.unwrap_or_default()
    }

    fn pages(&mut self, pages: &Pages) -> Vec<Page> {
        let prometheus = self.text("envoy_prometheus_bind_addr", bindable).map(|at| Page {
            name: "envoy_prometheus_metrics",
            at,
            path: pages.prometheus_path.clone(),
            is_prefix: false,
            page: "/stats/prometheus",
            backend: pages.prometheus_backend,
        });
        let of_admin = |name, at, page: &'static str, is_prefix| {
            let path = page.to_owned();
            Page { name, at, path, is_prefix, page, backend: None }
        };
        let stats = self.text("envoy_stats_bind_addr", bindable);
        let stats = stats.map(|at| of_admin("envoy_metrics", at, "/stats", true));
        let ready = pages.ready.map(|at| of_admin("envoy_ready", at, "/ready", false));
        [prometheus, stats, ready].into_iter().flatten().collect()
    }
}

fn refused(problem: impl Into<String>, remedy: impl Into<String>) -> Refused {
    Refused { problem: problem.into(), remedy: remedy.into() }
}

fn message(text: &str, kind: CustomKind) -> Result<Value, Refused> {
    CustomMessage::parse(kind, text).map(|message| message.json().clone())
}

fn bindable(text: &str) -> Result<SocketAddr, Refused> {
    let with =
        |problem| refused(problem, "give an IP address and a port, for example 127.0.0.1:9102 or [::1]:9102");
    let at: Endpoint = text.parse().map_err(|_| with("is no address"))?;
    let ip = at.ip().ok_or_else(|| with("is a host name"))?;
    Ok(SocketAddr::new(ip, at.port))
}

/// A sink at `udp://ip:port` or `unix:///path`, in which `$NAME` stands for a variable of the environment. Without an
/// environment nothing is said of one that names variables.
fn sink(url: &str, name: &str, kind: &str, env: Option<Env<'_>>) -> Result<Option<Value>, Refused> {
    let url = match env {
        Some(env) => expanded(url, env)?,
        None if url.contains('$') => return Ok(None),
        None => url.to_owned(),
    };
    // Not quoted: it may hold a password.
    let with = |problem| refused(problem, "give udp://ip:port or unix:///path");
    let address = if let Some(at) = url.strip_prefix("udp://") {
        let at: Endpoint =
            at.trim_end_matches('/').parse().map_err(|_| with("has no address behind udp://"))?;
        let ip = at.ip().ok_or_else(|| with("has a host name, and Envoy takes an IP address only"))?;
        socket_address(SocketAddr::new(ip, at.port))
    } else if let Some(path) = url.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
        json!({"pipe": {"path": path}})
    } else {
        return Err(with("is no address of a statistics server"));
    };
    let type_url = format!("type.googleapis.com/envoy.config.metrics.v3.{kind}");
    Ok(Some(json!({"name": name, "typed_config": {"@type": type_url, "address": address}})))
}

/// The text with `$NAME` and `${NAME}` replaced.
fn expanded(text: &str, env: Env<'_>) -> Result<String, Refused> {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        whole.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, next) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(found) => found,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        let value = env(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            refused(
                format!("names ${name}, which is not in the environment"),
                format!("set {name} where Envoy is started"),
            )
        })?;
        whole.push_str(&value);
        rest = next;
    }
    whole.push_str(rest);
    Ok(whole)
}

/// Where an admin interface that listens here is dialled.
fn dialled(admin: &AdminAddress) -> Value {
    let at = match admin {
        AdminAddress::Unix(path) => return json!({"pipe": {"path": path.to_string_lossy()}}),
        AdminAddress::Tcp(at) => *at,
    };
    socket_address(match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], at.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, at.port())),
        _ => at,
    })
}

fn local_cluster(name: &str, address: Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn listener(page: &Page) -> Value {
    const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
    let cluster = if page.backend.is_some() { PROMETHEUS_BACKEND } else { SELF_ADMIN };
    let matching = if page.is_prefix { "prefix" } else { "path" };
    json!({
        "name": format!("{}_listener", page.name),
        "address": socket_address(page.at),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": format!("type.googleapis.com/{MANAGER}"),
                "stat_prefix": page.name,
                "codec_type": "HTTP1",
                "route_config": {
                    "name": "self_admin_route",
                    "virtual_hosts": [{"name": SELF_ADMIN, "domains": ["*"], "routes": [
                        {"match": {matching: page.path}, "route": {"cluster": cluster, "prefix_rewrite": page.page}},
                        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
                    ]}],
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": format!("type.googleapis.com/{ROUTER}")},
                }],
            },
        }]}],
    })
}
