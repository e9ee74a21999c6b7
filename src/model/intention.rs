//! Intentions: which service may call which.

use serde::{Deserialize, Serialize};

use crate::model::name::ServiceName;

/// One intention, from the legacy API or from a `service-intentions` entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intention {
    /// Who calls.
    pub source: Party,
    /// Who is called.
    pub destination: Party,
    /// What happens.
    pub action: Action,
}

/// One side of an intention.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Party {
    /// Exactly this service.
    Service(ServiceName),
    /// Every service of the namespace `default`: `*`.
    AnyService,
    /// Every service of every namespace: the `*`/`*` of 1.8 data.
    Anything,
}

impl Party {
    /// Whether the party covers that service.
    pub fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::Service(name) => name == service,
            Self::AnyService | Self::Anything => true,
        }
    }
}

/// What an intention says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The connection is allowed.
    Allow,
    /// The connection is denied.
    Deny,
    /// It has L7 permissions, JWT requirements, an unknown action or another shape than Consul gives, or denies a
    /// sameness group, which cannot be expressed: its source is denied.
    Inexpressible,
}
