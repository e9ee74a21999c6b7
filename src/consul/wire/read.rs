//! What all conversions share: items one at a time, names, ports, addresses, durations, gateway modes.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    consul::wire::WireError,
    model::{
        chain::GatewayMode,
        instance::{Host, HostPort},
        note::{Note, without_values},
    },
};

pub(crate) use crate::model::settings::duration_ms;

/// The whole answer as `T`.
pub(crate) fn whole<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|error| WireError::Shape(reason(&error)))
}

/// A list whose items are read later, one at a time; null is empty.
pub(crate) fn items(body: &[u8]) -> Result<Vec<Value>, WireError> {
    whole::<Option<Vec<Value>>>(body).map(Option::unwrap_or_default)
}

/// One item; what is wrong with it becomes a note about it.
pub(crate) fn item<T: DeserializeOwned>(value: Value, about: &str, notes: &mut Vec<Note>) -> Option<T> {
    read_item(value, about).map_err(|note| notes.push(note)).ok()
}

/// One item, or what is wrong with it.
pub(crate) fn read_item<T: DeserializeOwned>(value: Value, about: &str) -> Result<T, Note> {
    serde_json::from_value(value).map_err(|error| {
        let problem = format!("it has another shape than Consul gives: {}", reason(&error));
        Note::new(about, problem, "correct or remove it in Consul")
    })
}

/// Why something has another shape, without quoting what it is: a setting may hold a private key.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    without_values(&error.to_string())
}

/// How much of a list could be used. One of which nothing can is no empty list: it says nothing.
#[derive(Default)]
pub(crate) struct Usable {
    pub(crate) listed: usize,
    pub(crate) read: usize,
}

impl Usable {
    /// Refuses an answer of which nothing could be used, in the words of the first of `notes`.
    pub(crate) fn check(&self, notes: &[Note]) -> Result<(), WireError> {
        match notes.first() {
            Some(first) if self.listed > 0 && self.read == 0 => {
                Err(WireError::Shape(format!("none of its {} items can be used, as {first}", self.listed)))
            }
            _ => Ok(()),
        }
    }
}

/// Serde default for fields that Consul writes as null: the type's default.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// Whether a setting says anything beyond Consul's zero values.
pub(crate) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
    }
}

/// `{"Mode": ...}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct WireGateway {
    #[serde(deserialize_with = "nullable")]
    pub(crate) mode: String,
}

impl WireGateway {
    /// The mode, if one is set; an unknown one becomes a note and counts as not set.
    pub(crate) fn mode(&self, about: &str, notes: &mut Vec<Note>) -> Option<GatewayMode> {
        match self.mode.as_str() {
            "" => None,
            "none" => Some(GatewayMode::None),
            "local" => Some(GatewayMode::Local),
            "remote" => Some(GatewayMode::Remote),
            other => {
                notes.push(Note::new(
                    about,
                    format!("the mesh gateway mode `{}` is unknown", shown(other)),
                    "set MeshGateway.Mode to none, local or remote",
                ));
                None
            }
        }
    }
}

/// Whether `name` can name a service, a node or a datacenter: it must survive in paths, SNI and SPIFFE ids.
pub(crate) fn is_name(name: &str) -> bool {
    is_id(name) && !name.contains('/') && name != "." && name != ".." && name != "*"
}

/// Whether `id` can be a service id, which may hold what a name may not.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && !id.chars().any(char::is_control)
}

/// A note about an impossible name.
pub(crate) fn bad_name(about: impl Into<String>, what: &str, name: &str) -> Note {
    Note::new(
        about,
        format!(
            "the {what} `{}` is impossible: it is empty, or holds a slash or control characters",
            shown(name)
        ),
        "register it again under another name",
    )
}

/// Outside text as a note can show it: one line, not too long.
pub(crate) fn shown(text: &str) -> String {
    let escaped: String = text.chars().take(80).flat_map(|c| c.escape_debug()).collect();
    if text.chars().count() > 80 { escaped + "..." } else { escaped }
}

/// A port from 1 to 65535.
pub(crate) fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// A host that can be dialled: an IP address or a DNS name.
pub(crate) fn host(text: &str) -> Option<Host> {
    match Host::parse(text) {
        Host::Name(name) => {
            let is_label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            let bare = name.strip_suffix('.').unwrap_or(&name);
            // Four numbers that are no IP address are a mistyped one, not a name.
            let is_numeric = bare.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            (bare.len() <= 253 && !is_numeric && bare.split('.').all(is_label)).then_some(Host::Name(name))
        }
        ip => Some(ip),
    }
}

/// Host and port, or a note about whichever is impossible.
pub(crate) fn host_port(about: &str, address: &str, number: i64) -> Result<HostPort, Note> {
    let port = port(number).ok_or_else(|| {
        Note::new(
            about,
            format!("the port {number} is impossible"),
            "register it again with a port from 1 to 65535",
        )
    })?;
    let host = host(address).ok_or_else(|| {
        Note::new(
            about,
            format!("`{}` is neither an IP address nor a DNS name", shown(address)),
            "register it again with an address that can be dialled",
        )
    })?;
    Ok(HostPort { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_nonsense() {
        assert!(host("10.0.0.1").is_some() && host("::1").is_some() && host("gw.example.com").is_some());
        assert!(
            host("").is_none()
                && host("10.0.0.999").is_none()
                && host("a b").is_none()
                && host("unix:///x").is_none()
        );
    }
}
