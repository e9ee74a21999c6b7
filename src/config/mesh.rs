//! `[mesh]`: what overrides Consul's answers.

use crate::{
    config::{
        key::{Effect, Key, Kind, Section, Value},
        reader::Document,
    },
    model::agent::DefaultPolicy,
};

/// Overrides of what Consul says of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// What happens to a connection that no intention matches; none takes what Consul says.
    pub default_intention_policy: Option<DefaultPolicy>,
}

pub(crate) const SECTION: Section =
    Section { name: "mesh", about: "What overrides Consul's answers", keys: &[DEFAULT_INTENTION_POLICY] };

const DEFAULT_INTENTION_POLICY: Key = Key {
    name: "default_intention_policy",
    kind: Kind::Choice(&["allow", "deny"]),
    example: r#""deny""#,
    unset: "what Consul says",
    meaning: "what happens to a connection that no intention matches",
    more: "When Consul does not tell (the token lacks `agent:read`) the answer is deny",
    effect: Effect::Reload(|running, new| running.mesh = new.mesh.clone()),
    value: |config| match config.mesh.default_intention_policy {
        None => Value::Unset,
        Some(DefaultPolicy::Allow) => Value::text("allow"),
        Some(DefaultPolicy::Deny | DefaultPolicy::Unreadable) => Value::text("deny"),
    },
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>) -> MeshSettings {
    let word = document.section("mesh").choice(&DEFAULT_INTENTION_POLICY);
    let default_intention_policy = word.map(|word| match word {
        "allow" => DefaultPolicy::Allow,
        _ => DefaultPolicy::Deny,
    });
    MeshSettings { default_intention_policy }
}
