//! Route configurations.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::xds::resource::{Key, Kind};

/// `envoy.config.route.v3.RouteConfiguration`: one virtual host for every domain, with one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteConfig {
    /// Its name.
    pub name: String,
    /// The only path that is served, and no other is; every path when not given.
    pub path: Option<String>,
    /// The cluster that requests go to.
    pub cluster: String,
    /// How long a whole response may take; `None` means no limit.
    pub timeout_ms: Option<u64>,
    /// How long a request may be without a byte either way, zero meaning any time; Envoy's own default when not given.
    pub idle_timeout_ms: Option<u64>,
}

impl RouteConfig {
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        refs.insert(Key::new(Kind::Cluster, &self.cluster));
    }
}
