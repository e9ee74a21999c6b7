//! Route configurations.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::xds::resource::{Key, Kind};

/// `envoy.config.route.v3.RouteConfiguration`: one virtual host for every domain, one route for every path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteConfig {
    /// Its name.
    pub name: String,
    /// The cluster that every request goes to.
    pub cluster: String,
    /// How long a whole response may take; `None` means no limit.
    pub timeout_ms: Option<u64>,
}

impl RouteConfig {
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        refs.insert(Key::new(Kind::Cluster, &self.cluster));
    }
}
