//! `Expose`: paths of an application that are served without TLS. In registrations and in central configuration.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::read::{nullable, port, read_item, shown},
    model::{
        chain::Protocol,
        note::Note,
        registration::{ExposedId, ExposedPath, ExposedPaths, Unread},
    },
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
    /// The paths, of each that cannot be served the note.
    pub(crate) fn paths(self, about: &str, notes: &mut Vec<Note>) -> ExposedPaths {
        if self.checks {
            notes.push(Note::new(
                about,
                "Expose.Checks is not supported, since Consul's HTTP API does not tell the ports of checks",
                "list the paths of its checks under Expose.Paths",
            ));
        }
        let read = |value: Value| {
            let about = format!("{about}, exposed path {}", shown(value["Path"].as_str().unwrap_or("?")));
            let id = id(&value);
            read_item(value, &about).and_then(|wire| path(wire, &about)).map_err(|note| Unread { id, note })
        };
        self.paths.into_iter().map(read).collect()
    }
}

/// Which path it is, whatever is wrong with the rest of it.
fn id(value: &Value) -> Option<ExposedId> {
    let path = value["Path"].as_str().filter(|path| is_path(path))?.to_owned();
    Some(ExposedId { path, listener_port: value["ListenerPort"].as_i64().and_then(port)? })
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.chars().any(char::is_control)
}

fn path(wire: WirePath, about: &str) -> Result<ExposedPath, Note> {
    let note = |problem: String, remedy: &str| Note::new(about, problem, remedy);
    if !is_path(&wire.path) {
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
        local_port: named("LocalPathPort", wire.local_path_port)?,
        id: ExposedId { listener_port: named("ListenerPort", wire.listener_port)?, path: wire.path },
        protocol,
    })
}
