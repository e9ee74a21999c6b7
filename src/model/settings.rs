//! Consul's opaque proxy configuration (`Proxy.Config`, upstream `config`), read by key.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Opaque settings as users write them in Consul. Values keep their JSON shape until a reader asks for a type,
/// since Consul lets the same number arrive as a number or as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, Value>);

impl Settings {
    /// The text under `key`, if it is text and not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The whole number under `key`; numbers written as text count.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            Value::Number(number) => {
                number.as_u64().or_else(|| number.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64))
            }
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// These settings laid over `base`: a key present here wins.
    pub fn over(&self, base: &Self) -> Self {
        let mut merged = base.0.clone();
        merged.extend(self.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        Self(merged)
    }
}
