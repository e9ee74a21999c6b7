//! Consul's opaque proxy configuration (`Proxy.Config`, upstream `config`), read by key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Opaque settings as users write them in Consul. Values keep their JSON shape until a reader asks for a type,
/// since Consul lets the same number arrive as a number or as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, Value>);

impl Settings {
    /// The text under `key`, if it is text and not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The whole number under `key`; numbers written as text count.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::Number(number) => {
                number.as_u64().or_else(|| number.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64))
            }
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The duration under `key` in milliseconds: nanoseconds when written as a number, Go's form (`1m30s`) as a text.
    pub fn duration_ms(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::Number(number) => number.as_u64().map(|nanos| nanos / NANOS_PER_MILLI),
            Value::String(text) => duration_ms(text),
            _ => None,
        }
    }

    /// The settings nested under `key`.
    pub fn section(&self, key: &str) -> Option<Self> {
        let fields = self.value(key)?.as_object()?;
        Some(Self(fields.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }

    /// Whether anything is written under `key`. An empty text is as good as nothing.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| !value.is_null() && value != "")
    }

    /// What is under `key`. Consul merges its own structs into these settings and so spells `max_connections` also as
    /// `MaxConnections`: case and underscores do not count.
    fn value(&self, key: &str) -> Option<&Value> {
        let plain = |text: &str| -> String {
            text.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
        };
        self.0.get(key).or_else(|| {
            let wanted = plain(key);
            self.0.iter().find(|(key, _)| plain(key) == wanted).map(|(_, value)| value)
        })
    }

    /// What is written under one of these keys and is not of its type, so that [`Settings::text`] and
    /// [`Settings::number`] pass over it: the key and what it should be. An empty text is as good as none.
    pub fn misfits<'k>(&self, texts: &[&'k str], numbers: &[&'k str]) -> Vec<(&'k str, &'static str)> {
        let is_there = |key: &&&str| self.has(key);
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

/// A Go duration (`1h2m3.5s`, `100ms`) in milliseconds, rounded down; `None` if it is no duration or negative.
pub fn duration_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total_ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| digits + n);
        total_ms += number
            * match &rest[digits..unit_end] {
                "ns" => 1e-6,
                "us" | "µs" | "μs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(total_ms as u64)
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

    #[test]
    fn what_consul_merged_in_is_found_under_its_own_spelling() {
        let Value::Object(values) = json!({
            "limits": {"MaxConnections": 3, "max_pending_requests": 4},
            "passive_health_check": {"Interval": 10_000_000_000_u64, "base_ejection_time": "1m30s"},
        }) else {
            panic!("an object")
        };
        let settings = Settings(values.into_iter().collect());
        let (limits, check) =
            (settings.section("limits").unwrap(), settings.section("passive_health_check").unwrap());
        assert_eq!(
            (limits.number("max_connections"), limits.number("max_pending_requests")),
            (Some(3), Some(4))
        );
        assert_eq!(
            (check.duration_ms("interval"), check.duration_ms("base_ejection_time")),
            (Some(10_000), Some(90_000))
        );
    }

    #[test]
    fn go_durations_are_read() {
        for (text, ms) in
            [("5s", 5000), ("1m30s", 90_000), ("1.5s", 1500), ("250ms", 250), ("0s", 0), ("1h", 3_600_000)]
        {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1x", "1..s"] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }
}
