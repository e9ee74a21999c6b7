//! What this agent proves itself with, out of what the local Consul gives: roots and the leaf of `causeway-sync`, both
//! watched by blocking queries. A new one serves the handshakes that follow; connections that are open stay open.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;
use tracing::{error, info};

use crate::{
    model::{
        ca::{Leaf, Roots},
        catalog::{Catalog, Topic},
        name::{Datacenter, ServiceName},
    },
    sync::peer::{SERVICE, identity::Identity},
};

/// The present identity; none until Consul has given one.
pub type Identities = watch::Receiver<Option<Arc<Identity>>>;

/// Makes identities of roots and leaves, each pair once.
pub(super) struct Minter {
    datacenters: BTreeSet<Datacenter>,
    last: Option<(Roots, Leaf)>,
    identities: watch::Sender<Option<Arc<Identity>>>,
}

impl Minter {
    pub(super) fn new(datacenters: BTreeSet<Datacenter>) -> (Self, Identities) {
        let (identities, watch) = watch::channel(None);
        (Self { datacenters, last: None, identities }, watch)
    }

    /// What must be watched.
    pub(super) fn needs() -> BTreeSet<Topic> {
        [Topic::Roots, Topic::Leaf(ServiceName::from(SERVICE))].into()
    }

    /// Takes what the catalog says now. What cannot be used is told, and what there was before stays in use.
    pub(super) fn look(&mut self, catalog: &Catalog) {
        let leaf = catalog.leaf(&ServiceName::from(SERVICE)).known();
        let (Some(roots), Some(leaf)) = (catalog.roots().known(), leaf) else { return };
        if self.last.as_ref().is_some_and(|(last_roots, last_leaf)| last_roots == roots && last_leaf == leaf)
        {
            return;
        }
        self.last = Some((roots.clone(), leaf.clone()));
        match Identity::new(roots, leaf, &self.datacenters) {
            Ok(identity) => {
                info!(valid_before_s = identity.valid_before_s(), "certificate of the peer service taken");
                self.identities.send_replace(Some(Arc::new(identity)));
            }
            Err(error) => {
                error!(%error, "certificate of the peer service not usable; the one before stays in use");
            }
        }
    }
}
