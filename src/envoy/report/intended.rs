//! What a proxy is meant to have, and where each resource stands on its way to Envoy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    envoy::report::{
        actual::{Held, Transport},
        form,
    },
    xds::{
        json::JsonError,
        resource::{Key, Kind},
        status::{ResourceState, StreamStatus, TypeStatus},
    },
};

/// One intended resource, as the agent tells it: without private keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its type and name.
    pub key: Key,
    /// Its version.
    pub version: String,
    /// The protobuf message. Empty: the agent cannot show it without its secrets, so only its version is compared.
    pub message: Vec<u8>,
}

/// Everything that is intended.
#[derive(Clone, Debug)]
pub struct Intended {
    pub(super) proxy: String,
    pub(super) waiting_for: Vec<String>,
    pub(super) resources: BTreeMap<Key, Intent>,
    /// What clusters and listeners name, and Envoy therefore asks for.
    pub(super) named: BTreeSet<Key>,
    pub(super) standings: BTreeMap<Key, Standing>,
}

/// One intended resource in the form that is compared.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    version: String,
    /// None if only the version is known.
    form: Option<Value>,
}

/// Where a resource stands on the way to Envoy.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) state: ResourceState,
    pub(super) refusal: Option<String>,
}

impl Intended {
    /// What is intended for a proxy, its streams as the agent sees them, and what the agent still waits for.
    ///
    /// # Errors
    /// A message is none of its type.
    pub fn new(
        proxy: impl Into<String>,
        resources: impl IntoIterator<Item = Wanted>,
        streams: &[StreamStatus],
        waiting_for: Vec<String>,
    ) -> Result<Self, JsonError> {
        let mut intended = Self {
            proxy: proxy.into(),
            waiting_for,
            resources: BTreeMap::new(),
            named: BTreeSet::new(),
            standings: BTreeMap::new(),
        };
        for Wanted { key, version, message } in resources {
            let form = if message.is_empty() { None } else { Some(form::of_message(key.kind, &message)?) };
            if let Some(form) = &form {
                form::named_by(key.kind, form, &mut intended.named);
            }
            intended.resources.insert(key, Intent { version, form });
        }
        for kind in streams.iter().flat_map(|stream| &stream.types) {
            intended.note_standings(kind);
        }
        Ok(intended)
    }

    /// On several streams the refusal counts, which no other stream takes back.
    fn note_standings(&mut self, told: &TypeStatus) {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.short() == told.kind) else { return };
        for resource in &told.resources {
            let key = Key::new(kind, &resource.name);
            let is_rejected = |standing: &Standing| standing.state == ResourceState::Rejected;
            if self.standings.get(&key).is_some_and(is_rejected) {
                continue;
            }
            let nack = told.last_nack.as_ref().filter(|nack| nack.resources.contains(&resource.name));
            let refusal = nack.map(|nack| nack.message.clone());
            self.standings.insert(key, Standing { state: resource.state, refusal });
        }
    }
}

impl Intent {
    /// As Envoy would hold it.
    pub(super) fn as_held(&self, transport: Transport) -> Held {
        Held { version: Some(self.version.clone()), form: self.form.clone() }.over(transport)
    }
}

impl Standing {
    /// What the agent says of it, where that explains something.
    pub(super) fn told(&self) -> Option<String> {
        let words = match self.state {
            ResourceState::Synced => return None,
            ResourceState::Sent => "sent, not yet acknowledged",
            ResourceState::Waiting => "waits to be sent",
            ResourceState::Rejected => "Envoy refused it",
            ResourceState::Absent => "asked for, not in the catalog",
        };
        Some(words.to_owned())
    }
}
