//! `[mesh]`: what overrides Consul's answers.

use crate::{
    config::reader::{Document, Key},
    model::agent::DefaultPolicy,
};

/// Overrides of what Consul says of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// What happens to a connection that no intention matches; none takes what Consul says.
    pub default_intention_policy: Option<DefaultPolicy>,
}

const DEFAULT_INTENTION_POLICY: Key = Key { name: "default_intention_policy", example: r#""deny""# };

pub(crate) fn read(document: &mut Document<'_>) -> MeshSettings {
    let default_intention_policy =
        document.section("mesh").parsed(&DEFAULT_INTENTION_POLICY, |text| match text {
            "allow" => Ok(DefaultPolicy::Allow),
            "deny" => Ok(DefaultPolicy::Deny),
            other => Err(format!("is `{other}`, and must be \"allow\" or \"deny\"").into()),
        });
    MeshSettings { default_intention_policy }
}
