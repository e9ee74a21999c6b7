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

    /// What is written under one of these keys and is not of its type, so that [`Settings::text`] and
    /// [`Settings::number`] pass over it: the key and what it should be. An empty text is as good as none.
    pub fn misfits<'k>(&self, texts: &[&'k str], numbers: &[&'k str]) -> Vec<(&'k str, &'static str)> {
        let is_there = |key: &&&str| self.0.get(**key).is_some_and(|value| !value.is_null() && value != "");
        let texts = texts.iter().filter(is_there).filter(|key| self.text(key).is_none());
        let numbers = numbers.iter().filter(is_there).filter(|key| self.number(key).is_none());
        texts.map(|key| (*key, "a text")).chain(numbers.map(|key| (*key, "a number"))).collect()
    }

    /// These settings laid over `base`: a key present here wins.
    pub fn over(&self, base: &Self) -> Self {
        let mut merged = base.0.clone();
        merged.extend(self.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        Self(merged)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_of_another_type_is_a_misfit_and_what_is_not_there_is_none() {
        let Value::Object(values) = json!({
            "protocol": ["tcp"], "bind_address": "10.0.0.1", "empty": "", "null": null,
            "port": "80", "timeout": "soon", "negative": -1, "other": {},
        }) else {
            panic!("an object")
        };
        let settings = Settings(values.into_iter().collect());
        let texts = ["protocol", "bind_address", "empty", "null", "absent"];
        let numbers = ["port", "timeout", "negative", "null", "absent"];
        let expected = [("protocol", "a text"), ("timeout", "a number"), ("negative", "a number")];
        assert_eq!(settings.misfits(&texts, &numbers), expected);
    }
}
