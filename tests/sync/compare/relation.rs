//! How what a model says stands to what a real Consul says: the same texts and numbers; indexes in the same order, equal
//! where equal; sessions by other names.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::sync::consul_model::Told;

/// What is known of two Consuls.
#[derive(Default)]
pub(super) struct Relation {
    /// Of the model to the real one.
    indexes: BTreeMap<u64, u64>,
    /// Of the model and the real one, in the order in which they were made.
    pub(super) sessions: Vec<(String, String)>,
}

impl Relation {
    /// A pair of indexes that were seen, by any number.
    pub(super) fn seen(&self, number: usize) -> (u64, u64) {
        let all: Vec<_> = self.indexes.iter().collect();
        all.get(number % all.len().max(1)).map_or((1, 1), |(model, real)| (**model, **real))
    }

    /// The real index of what the model has at this one.
    pub(super) fn real_index(&self, model: u64) -> Option<u64> {
        self.indexes.get(&model).copied()
    }

    /// Remembers the session that both made.
    pub(super) fn learn_session(&mut self, model: &Told, real: &Told) {
        let id = |told: &Told| {
            let body: Value = serde_json::from_slice(&told.body).ok()?;
            body.get("ID")?.as_str().map(str::to_owned)
        };
        self.sessions.extend(id(model).zip(id(real)));
    }

    /// What differs, if anything does.
    pub(super) fn compare(&mut self, model: &Told, real: &Told) -> Result<(), String> {
        if model.status != real.status {
            return Err(format!("status {} is {}", model.status, real.status));
        }
        if let (Some(model), Some(real)) = (model.index, real.index) {
            self.index(model, real, "X-Consul-Index")?;
        }
        let json = |told: &Told| serde_json::from_slice::<Value>(&told.body).ok();
        match (json(model), json(real)) {
            (Some(model), Some(real)) => self.value(&model, &real, "body"),
            (None, None) => self.text(&lossy(&model.body), &lossy(&real.body), "body"),
            _ => Err("one body is JSON".to_owned()),
        }
    }

    fn index(&mut self, model: u64, real: u64, place: &str) -> Result<(), String> {
        if (model == 0) != (real == 0) {
            return Err(format!("{place}: {model} is {real}"));
        }
        if let Some(known) = self.indexes.get(&model) {
            let is_same = *known == real;
            return is_same
                .then_some(())
                .ok_or(format!("{place}: {model} was {known} before and is now {real}"));
        }
        let below = self.indexes.range(..model).next_back();
        let above = self.indexes.range(model..).next();
        if below.is_some_and(|(_, r)| *r >= real) || above.is_some_and(|(_, r)| *r <= real) {
            return Err(format!(
                "{place}: {model} is {real}, which stands not between {below:?} and {above:?}"
            ));
        }
        self.indexes.insert(model, real);
        Ok(())
    }

    fn value(&mut self, model: &Value, real: &Value, place: &str) -> Result<(), String> {
        match (model, real) {
            (Value::Array(models), Value::Array(reals)) if models.len() == reals.len() => models
                .iter()
                .zip(reals)
                .enumerate()
                .try_for_each(|(at, (model, real))| self.value(model, real, &format!("{place}[{at}]"))),
            (Value::Object(models), Value::Object(reals)) => {
                // A real session tells of checks too, a real key of nothing more.
                let lacks =
                    reals.keys().find(|name| reals.contains_key("LockIndex") && !models.contains_key(*name));
                if let Some(name) = lacks {
                    return Err(format!("{place} lacks {name}"));
                }
                models.iter().try_for_each(|(name, model)| {
                    let real = reals.get(name).ok_or(format!("{place}.{name} is not there"))?;
                    self.field(name, model, real, &format!("{place}.{name}"))
                })
            }
            (Value::String(model), Value::String(real)) => self.text(model, real, place),
            _ if model == real => Ok(()),
            _ => Err(format!("{place}: {model} is {real}")),
        }
    }

    fn field(&mut self, name: &str, model: &Value, real: &Value, place: &str) -> Result<(), String> {
        match name {
            "CreateIndex" | "ModifyIndex" => {
                self.index(model.as_u64().unwrap_or(0), real.as_u64().unwrap_or(0), place)
            }
            // Null and empty are both no bytes, and Consul shows either.
            "Value" if bytes(model) == bytes(real) => Ok(()),
            _ => self.value(model, real, place),
        }
    }

    /// Ids by their pairs; indexes inside a sentence are not compared.
    fn text(&self, model: &str, real: &str, place: &str) -> Result<(), String> {
        let renamed = self.sessions.iter().fold(real.to_owned(), |text, (m, r)| text.replace(r.as_str(), m));
        let plain = |text: &str| {
            let mut words: Vec<&str> = text.split_whitespace().collect();
            words.iter_mut().filter(|word| word.parse::<u64>().is_ok()).for_each(|word| *word = "#");
            words.join(" ")
        };
        let is_new_id = |text: &str| text.len() == 36 && text.matches('-').count() == 4;
        if plain(model) == plain(&renamed) || (place.ends_with(".ID") && is_new_id(model) && is_new_id(real))
        {
            return Ok(());
        }
        Err(format!("{place}: `{model}` is `{real}`"))
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => Some(Vec::new()),
        other => BASE64_STANDARD.decode(other.as_str()?).ok(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
