//! Settings: what a user can write in the configuration file and in the environment.
//!
//! [`parse`] is pure: text and environment in, settings or all problems out. One file per section declares
//! its keys ([`key`]) and reads them. Nothing here opens a socket or starts a task; reading the file is [`load`].

mod key;
mod problem;
mod reader;
pub mod reference;
mod reload;

pub mod consul;
pub mod http;
pub mod log;
pub mod mesh;
pub mod shutdown;
pub mod state;
pub mod sync;
pub mod telemetry;
pub mod xds;

use std::path::Path;

use crate::config::{
    consul::ConsulSettings, http::HttpSettings, log::LogSettings, mesh::MeshSettings, reader::Document,
    shutdown::ShutdownSettings, state::StateSettings, sync::SyncSettings, telemetry::TelemetrySettings,
    xds::XdsSettings,
};
pub use crate::config::{
    problem::{ConfigError, Place, Problem},
    reload::ReloadDiff,
};

/// Looks a name up in the environment. The process's own is [`process_env`]; tests give a table.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything a user can set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[consul]`
    pub consul: ConsulSettings,
    /// `[xds]`
    pub xds: XdsSettings,
    /// `[http]`
    pub http: HttpSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
    /// `[mesh]`
    pub mesh: MeshSettings,
    /// `[shutdown]`
    pub shutdown: ShutdownSettings,
    /// `[state]`
    pub state: StateSettings,
    /// `[sync]`
    pub sync: SyncSettings,
}

/// Reads settings from TOML over the environment. The environment is the base (`CONSUL_*`), the file's keys win over
/// it; only `CAUSEWAY_LOG` wins over the file.
///
/// # Errors
/// Every problem there is, in the order of the file, those of the environment last.
pub fn parse(text: &str, env: Env<'_>) -> Result<Config, Vec<Problem>> {
    let (table, syntax) = toml::de::DeTable::parse_recoverable(text);
    let mut document = Document::new(text, table.get_ref(), &syntax);
    let config = Config {
        consul: consul::read(&mut document, env),
        xds: xds::read(&mut document),
        http: http::read(&mut document),
        log: log::read(&mut document, env),
        telemetry: telemetry::read(&mut document),
        mesh: mesh::read(&mut document),
        shutdown: shutdown::read(&mut document),
        state: state::read(&mut document, env),
        sync: sync::read(&mut document),
    };
    if config.xds.tcp.is_some_and(|tcp| tcp.port() != 0 && tcp == config.http.listen) {
        document.section("xds").refuse(
            &xds::TCP,
            "is the address of [http] listen as well",
            "give one of the two another port",
        );
    }
    let sync = &config.sync;
    if sync.enabled && sync.listen.port() != 0 && sync.listen.port() == config.http.listen.port() {
        document.section("sync").refuse(
            &sync::LISTEN,
            "has the port of [http] listen as well",
            "give one of the two another port",
        );
    }
    let problems = document.finish();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Reads settings from a file; without one, from the environment and the defaults.
///
/// # Errors
/// The file cannot be read, or what [`parse`] says, with the file's name.
pub fn load(file: Option<&Path>, env: Env<'_>) -> Result<Config, ConfigError> {
    let Some(path) = file else {
        return parse("", env)
            .map_err(|problems| ConfigError::Invalid { file: "built-in defaults".into(), problems });
    };
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
    parse(&text, env).map_err(|problems| ConfigError::Invalid { file, problems })
}

/// Where a setting comes from, by its name as `section.key`: a line of the file, the environment, or the defaults.
pub fn origin(text: &str, env: Env<'_>, name: &str) -> Place {
    let (table, syntax) = toml::de::DeTable::parse_recoverable(text);
    let document = Document::new(text, table.get_ref(), &syntax);
    if let Some(place) = document.place_of(name) {
        return place;
    }
    let variable = key::all()
        .find(|(section, key)| name.split_once('.') == Some((*section, key.name)))
        .and_then(|(_, key)| key.variable);
    let is_set = |variable| env(variable).is_some_and(|value| !value.is_empty());
    if variable.is_some_and(is_set) { Place::Environment } else { Place::Defaults }
}

/// The environment of this process; names that are not UTF-8 count as absent.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
