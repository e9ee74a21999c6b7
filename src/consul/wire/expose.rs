//! `Expose`: paths of an application that are served without TLS. In registrations and in central configuration.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::read::{item, nullable, port, shown},
    model::{chain::Protocol, note::Note, registration::ExposedPath},
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct WireExpose {
    #[serde(deserialize_with = "nullable")]
    checks: bool,
    #[serde(deserialize_with = "nullable")]
    paths: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePath {
    path: String,
    #[serde(default, deserialize_with = "nullable")]
    listener_port: i64,
    #[serde(default, deserialize_with = "nullable")]
    local_path_port: i64,
    #[serde(default, deserialize_with = "nullable")]
    protocol: String,
}

impl WireExpose {
    /// The paths; one that cannot be served becomes a note and costs only itself.
    pub(crate) fn paths(self, about: &str, notes: &mut Vec<Note>) -> Vec<ExposedPath> {
        if self.checks {
            notes.push(Note::new(
                about,
                "Expose.Checks is not supported, since Consul's HTTP API does not tell the ports of checks",
                "list the paths of its checks under Expose.Paths",
            ));
        }
        let mut paths = Vec::with_capacity(self.paths.len());
        for value in self.paths {
            let about = format!("{about}, exposed path {}", shown(value["Path"].as_str().unwrap_or("?")));
            let Some(wire) = item::<WirePath>(value, &about, notes) else { continue };
            match path(wire, &about) {
                Ok(path) => paths.push(path),
                Err(note) => notes.push(note),
            }
        }
        paths
    }
}

fn path(wire: WirePath, about: &str) -> Result<ExposedPath, Note> {
    let note = |problem: String, remedy: &str| Note::new(about, problem, remedy);
    if !wire.path.starts_with('/') || wire.path.chars().any(char::is_control) {
        return Err(note("it is no path".into(), "write it with its leading slash, as in /health"));
    }
    let named = |name: &str, number: i64| {
        port(number).ok_or_else(|| {
            note(format!("the {name} {number} is impossible"), "set it to a port from 1 to 65535")
        })
    };
    let protocol = match wire.protocol.as_str() {
        "" | "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        other => {
            return Err(note(
                format!("the protocol `{}` cannot be exposed", shown(other)),
                "use http or http2",
            ));
        }
    };
    Ok(ExposedPath {
        listener_port: named("ListenerPort", wire.listener_port)?,
        local_port: named("LocalPathPort", wire.local_path_port)?,
        path: wire.path,
        protocol,
    })
}
