//! What tokens may do, as every Consul knows it at once. Who has none may do everything.

use std::collections::BTreeMap;

use causeway::{
    model::secret::SecretText,
    sync::{
        endpoint::{Request, Response},
        store::{Access, Resource, Right},
    },
};

use serde_json::Value;

use crate::sync::{
    consul_model::Told,
    history::{May, Turn},
};

/// Reads everything and writes nothing.
pub(crate) const READER: &str = "reader";
/// Reads and writes below one tree only.
pub(crate) const PART: &str = "part";

/// The tokens, with every change so far.
pub(super) struct Rights {
    now: BTreeMap<&'static str, May>,
    turns: Vec<Turn>,
}

impl Default for Rights {
    fn default() -> Self {
        let mut rights = Self { now: BTreeMap::new(), turns: Vec::new() };
        for token in [READER, PART] {
            rights.turn(0, token, own(token));
        }
        rights
    }
}

/// What a token may do while nothing takes it away.
pub(crate) fn own(token: &str) -> May {
    if token == READER { May::Read } else { May::Below("config/t/") }
}

impl Rights {
    /// From now on a token may do this.
    pub(super) fn turn(&mut self, at: u64, token: &'static str, may: May) {
        self.now.insert(token, may);
        self.turns.push(Turn { at, token, may });
    }

    pub(super) fn turns(&self) -> &[Turn] {
        &self.turns
    }

    fn of(&self, token: Option<&SecretText>) -> May {
        token.and_then(|token| self.now.get(token.expose())).copied().unwrap_or(May::All)
    }

    /// What Consul's `authorize` says.
    pub(super) fn has(&self, token: Option<&SecretText>, right: &Right) -> bool {
        let may = self.of(token);
        match (right.resource, right.access) {
            (Resource::Key, Access::Read | Access::List) => may.reads(&right.segment),
            (Resource::Key, Access::Write | Access::WritePrefix) => may.writes(&right.segment),
            (Resource::Session, _) => matches!(may, May::All | May::Below(_)),
            (Resource::Operator, _) => may == May::All,
        }
    }

    /// What Consul leaves out of the results of a transaction that a client's request asks it itself.
    pub(super) fn visible(&self, request: &Request, told: Told) -> Told {
        let may = self.of(request.token.as_ref());
        let body = serde_json::from_slice::<Value>(&told.body).ok().filter(|_| request.path == "/v1/txn");
        let Some(mut body) = body else { return told };
        if let Some(results) = body["Results"].as_array_mut() {
            results.retain(|result| result["KV"]["Key"].as_str().is_some_and(|key| may.reads(key)));
        }
        Told { body: body.to_string().into(), ..told }
    }

    /// Consul's own refusal of what a client's request asks it itself: reads of one key, and sessions.
    pub(super) fn refusal(&self, request: &Request) -> Option<Response> {
        let may = self.of(request.token.as_ref());
        let is_read = request.method == http::Method::GET;
        let has = match request.path.strip_prefix("/v1/kv/") {
            Some(key) if is_read => may.reads(key),
            Some(key) => may.writes(key),
            None if is_read || !request.path.starts_with("/v1/session/") => true,
            None => matches!(may, May::All | May::Below(_)),
        };
        (!has).then(|| Response::text(403, "Permission denied"))
    }
}
