//! Who may import whom, read from the sources.
//!
//! Cargo keeps layers apart between crates; inside one crate only a test can. A new arrow in [`LAYERS`] is a
//! decision: it comes with a record under `docs/adr/`.
//!
//! `source` turns the text of `src/` into modules with their imports; `rules` judges them; `planted` proves, on
//! small sources with a fault planted in each, that every rule bites.

mod planted;
mod rules;
mod source;

use std::path::Path;

use self::rules::Layer;

const PURE: bool = true;
const SHELL: bool = false;

/// A module belongs to the layer with the longest matching name. It may import its own layer, and every module
/// at or below the names listed. A pure layer decides and does nothing else: see `rules::impurities`.
#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    // The root of the library: declarations of modules and nothing else.
    layer("lib", &[], PURE),

    // Words that everybody speaks.
    layer("model", &[], PURE),
    layer("fault", &[], PURE),
    layer("lifecycle", &[], SHELL),
    layer("config", &["config", "model"], SHELL), // reads the file and the environment, then hands them down
    layer("config::", &["config", "model"], PURE),
    layer("telemetry", &["config", "lifecycle"], SHELL),
    layer("tls::x509", &["model"], PURE),
    layer("tls", &["config", "model", "fault", "tls::x509"], SHELL),
    layer("fetch", &["fault"], SHELL), // one GET on loopback; Consul has a client of its own

    // Consul's side. Nothing here knows Envoy.
    layer("consul::wire", &["model"], PURE),
    layer("consul::index", &["model"], PURE),
    layer("consul::census", &["consul::wire", "model"], PURE),
    layer("consul", &["consul::wire", "consul::index", "consul::census", "config", "fault", "lifecycle", "model", "tls"], SHELL),

    // Deciding what a proxy needs and gets. Nothing here knows either wire format.
    layer("mesh::name", &["model"], PURE),
    layer("mesh::reader", &["model"], PURE),
    // 0009: what a bootstrap cannot have is noted beside what else is refused
    layer("mesh", &["envoy::bootstrap", "mesh::name", "mesh::reader", "model", "xds::resource"], PURE),

    // Envoy's side. Nothing here knows Consul. Each pure part sees those before it.
    layer("xds::json", &[], PURE), // 0004: escape hatches are read where resources are made
    layer("xds::resource", &["model", "xds::json"], PURE),
    layer("xds::encode", &["model", "xds::resource"], PURE),
    layer("xds::version", &["model", "xds::resource", "xds::encode"], PURE),
    layer("xds::status", &["model", "xds::resource"], PURE),
    layer("xds::snapshot", &["model", "xds::resource", "xds::encode", "xds::version", "xds::status"], PURE),
    layer("xds::subscription", &["model", "xds::resource", "xds::encode", "xds::version", "xds::status", "xds::snapshot"], PURE),
    layer("xds::metrics", XDS_SHELL, SHELL),
    layer("xds::server", XDS_SHELL, SHELL),
    layer("xds", &[], PURE),

    // Envoy the process: its bootstrap, its admin interface, intended against actual.
    layer("envoy::bootstrap", &["model", "xds::json", "xds::resource", "xds::status"], PURE),
    layer("envoy::report", &["model", "xds::json", "xds::resource", "xds::status"], PURE),
    layer("envoy", &["envoy::bootstrap", "envoy::report", "fault", "fetch", "model", "xds::resource", "xds::status"], SHELL),

    // The last known good on disk. Knows neither Consul nor Envoy.
    layer("state::format", &["model"], PURE),
    layer("state::tokens", &["model"], PURE),
    layer("state::pace", &["model"], PURE),
    layer("state::keep", &["model"], PURE),
    layer("state::record", &["model", "state::keep", "state::tokens"], PURE),
    layer("state", STATE, SHELL), // 0005: what was last known is served while Consul is away

    // Keys and locks between datacenters. Nothing here knows Envoy. What decides sees records, never a Consul or a peer.
    layer("sync::layout", &["model"], PURE),
    layer("sync::record", &["model"], PURE),
    layer("sync::refusal", &["model"], PURE),
    // 0006: peers are found and known as the mesh's proxies are
    layer("sync::peer::convert", &["model", "sync::peer", "sync::record"], PURE),
    layer("sync::peer::identity", &["mesh::name", "model", "sync::peer"], PURE),
    layer("sync::peer::route", &["mesh::reader", "model", "sync::peer"], PURE),
    layer("sync::peer::wire", &[], PURE),
    layer("sync::duty::machine", &["model", "sync::lock::lease", "sync::record"], PURE),
    layer("sync::lock::lease", &[], PURE),
    layer("sync::lock::waiters", &[], PURE),
    layer("sync::lock::wire", &["model", "sync::refusal"], PURE),
    layer("sync::home::request", HOME, PURE),
    layer("sync::home::cost", HOME, PURE),
    layer("sync::home::memory", HOME, PURE),
    layer("sync::home::prepare", HOME, PURE),
    layer("sync::home::batch", HOME, PURE),
    layer("sync::home::settle", HOME, PURE),
    layer("sync::home::fence", HOME_WITH_PEER, PURE),
    layer("sync::home::history", HOME, PURE),
    layer("sync::home::snapshot", HOME_WITH_PEER, PURE),
    layer("sync::home::trim", HOME, PURE),
    layer("sync::replica::indexes", &["model"], PURE),
    layer("sync::replica::chain", &["model", "sync::record"], PURE),
    layer("sync::replica::apply", &["model", "sync::layout", "sync::record", "sync::replica::chain", "sync::replica::indexes"], PURE),
    layer("sync::replica::snapshot", &["model", "sync::replica::indexes"], PURE),
    layer("sync::replica::compare", &["model", "sync::replica::indexes", "sync::replica::snapshot"], PURE),
    layer("sync::replica::audit", &["model", "sync::replica::indexes"], PURE),
    layer("sync::replica::machine", &["model", "sync::record", "sync::replica::chain", "sync::replica::snapshot"], PURE),
    layer("sync::endpoint::message", &["model"], PURE),
    layer("sync::endpoint::answer", &["model", "sync::endpoint::message", "sync::refusal"], PURE),
    layer("sync::endpoint::ask", &["model", "sync::endpoint::answer", "sync::endpoint::message"], PURE),
    layer("sync::endpoint::route", &["model", "sync::endpoint::ask", "sync::endpoint::message", "sync::layout", "sync::peer", "sync::record", "sync::refusal"], PURE),
    layer("sync::endpoint::rights", &["model", "sync::endpoint::ask", "sync::store"], PURE),
    layer("sync::endpoint::translate", &[], PURE),
    layer("sync::endpoint::merge", &["sync::endpoint::answer"], PURE),
    layer("sync::endpoint::audit", &["model", "sync::endpoint::ask", "sync::endpoint::message"], PURE),
    layer("sync", SYNC, SHELL),

    // Doors and drivers.
    layer("api", &["config", "fault", "lifecycle", "model", "telemetry", "xds::status"], SHELL),
    layer("lab", &["api", "config", "consul", "envoy", "fault", "fetch", "lifecycle", "model", "tls"], SHELL),

    // Wiring. Nothing imports `app` but `cli`, nothing imports `cli` but `main`.
    layer("app", APP, SHELL),
    layer("cli", CLI, SHELL),
    layer("main", &["cli"], SHELL),
];

const XDS_SHELL: &[&str] = &[
    "lifecycle",
    "model",
    "xds::encode",
    "xds::metrics",
    "xds::resource",
    "xds::server",
    "xds::snapshot",
    "xds::status",
    "xds::subscription",
    "xds::version",
];
const STATE: &[&str] =
    &["lifecycle", "model", "state::format", "state::keep", "state::pace", "state::record", "state::tokens"];
const SYNC: &[&str] = &[
    "config",
    "consul",
    "fault",
    "lifecycle",
    "model",
    "sync::duty::machine",
    "sync::endpoint",
    "sync::home",
    "sync::layout",
    "sync::peer::convert",
    "sync::peer::identity",
    "sync::peer::route",
    "sync::peer::wire",
    "sync::lock::lease",
    "sync::lock::waiters",
    "sync::lock::wire",
    "sync::record",
    "sync::refusal",
    "sync::replica",
    "tls",
];
/// What the pure parts of a home see: each those before it.
const HOME: &[&str] = &[
    "model",
    "sync::home::batch",
    "sync::home::cost",
    "sync::home::history",
    "sync::home::memory",
    "sync::home::prepare",
    "sync::home::request",
    "sync::layout",
    "sync::record",
    "sync::refusal",
];
/// Also the words that peers exchange, which are plain data.
const HOME_WITH_PEER: &[&str] =
    &["model", "sync::home::history", "sync::home::memory", "sync::layout", "sync::peer", "sync::record"];
const APP: &[&str] = &[
    "api",
    "config",
    "consul",
    "envoy",
    "fault",
    "lifecycle",
    "mesh",
    "model",
    "state",
    "sync",
    "telemetry",
    "tls",
    "xds",
];
const CLI: &[&str] = &[
    "api",
    "app",
    "config",
    "consul",
    "envoy",
    "fault",
    "fetch",
    "lab",
    "lifecycle",
    "mesh",
    "model",
    "sync",
    "telemetry",
    "tls",
    "xds",
];

const fn layer(name: &'static str, may_import: &'static [&'static str], pure: bool) -> Layer {
    Layer { name, may_import, pure }
}

#[test]
fn the_sources_keep_the_layers() {
    let modules = source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let problems = rules::problems(&modules, LAYERS);
    println!("{} modules; cycles between top-level modules: {:?}", modules.len(), rules::cycles(&modules));
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn the_table_itself_allows_no_cycle() {
    assert_eq!(rules::cycles_in_table(LAYERS), Vec::<Vec<String>>::new());
}
