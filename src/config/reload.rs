//! What a changed file changes in a running agent, and what waits for a restart.

use crate::config::{
    Config,
    key::{self, Effect},
};

/// The difference between the running settings and a file read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadDiff {
    /// Keys that take effect at once, as `section.key`.
    pub applied: Vec<String>,
    /// Keys that changed and take effect at the next start.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Compares the running settings with new ones. Secrets are compared, never told.
    pub fn reload_diff(old: &Self, new: &Self) -> ReloadDiff {
        let mut diff = ReloadDiff::default();
        for (section, key) in key::all().filter(|(_, key)| (key.value)(old) != (key.value)(new)) {
            let keys = match key.effect {
                Effect::Reload(_) => &mut diff.applied,
                Effect::Restart | Effect::RestartContentsAtOnce => &mut diff.needs_restart,
            };
            keys.push(format!("{section}.{}", key.name));
        }
        diff
    }

    /// These settings with what can be reloaded taken from `new`: what runs after a reload.
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut running = self.clone();
        for (_, key) in key::all() {
            if let Effect::Reload(take_over) = key.effect {
                take_over(&mut running, new);
            }
        }
        running
    }
}
