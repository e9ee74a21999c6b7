//! What the local Consul tells the peer service: certificates, ways, intentions, each as its latest value. One task keeps
//! them; nothing is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    consul::{client::Client, watch::Watches},
    lifecycle::{self, Stop, Task},
    model::{
        catalog::{Catalog, Topic},
        chain::GatewayMode,
        name::Datacenter,
    },
    sync::peer::{
        intentions::{self, Verdicts},
        leaf::{Identities, Minter},
        route::{self, Routes},
    },
};

/// Who wants the topics.
const OWNER: &str = "sync.peer";

/// What is configured of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// The own datacenter.
    pub datacenter: Datacenter,
    /// All that take part, the own one among them.
    pub datacenters: BTreeSet<Datacenter>,
    /// How other datacenters are reached.
    pub gateways: GatewayMode,
}

/// What is known of the way to others and of others. Clones see the same values.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What this agent proves itself with; none until Consul has told.
    pub identity: Identities,
    /// Where to connect.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Which datacenters' agents may connect.
    pub verdicts: watch::Receiver<Arc<Verdicts>>,
}

/// Starts to keep them, until `stop`. The leaf is asked for with the token that `watches` uses for `causeway-sync`;
/// intentions are asked for with that of `client`, which needs `service:write` on it.
pub fn start(settings: PeerSettings, watches: Watches, client: Client, stop: Stop) -> (Facts, Task<()>) {
    let (minter, identity) = Minter::new(settings.datacenters.clone());
    let (routes, watch_routes) = watch::channel(Arc::new(Routes::new(BTreeMap::new())));
    let (verdicts, watch_verdicts) = watch::channel(Arc::new(Verdicts::default()));
    let judge = intentions::Judge { client, datacenters: settings.datacenters.clone(), verdicts };
    let keeper = Keeper { settings, watches, minter, routes, wanted: BTreeSet::new() };
    let task = lifecycle::spawn("sync.peer.facts", async move {
        let catalog = keeper.watches.catalog();
        tokio::join!(keeper.run(stop.clone()), judge.run(catalog, stop));
    });
    (Facts { identity, routes: watch_routes, verdicts: watch_verdicts }, task)
}

struct Keeper {
    settings: PeerSettings,
    watches: Watches,
    minter: Minter,
    routes: watch::Sender<Arc<Routes>>,
    wanted: BTreeSet<Topic>,
}

impl Keeper {
    async fn run(mut self, stop: Stop) {
        let mut catalog = self.watches.catalog();
        loop {
            let now = catalog.borrow_and_update().clone();
            self.look(&now).await;
            tokio::select! {
                biased;
                () = stop.wait() => break,
                changed = catalog.changed() => if changed.is_err() { break },
            }
        }
        self.watches.want(OWNER, BTreeSet::new()).await;
    }

    async fn look(&mut self, catalog: &Catalog) {
        self.minter.look(catalog);
        let PeerSettings { datacenter, datacenters, gateways } = &self.settings;
        let (routes, mut needs) = route::routes(catalog, datacenter, datacenters, *gateways);
        self.routes.send_if_modified(|old| {
            let is_new = **old != routes;
            if is_new {
                *old = Arc::new(routes);
            }
            is_new
        });
        needs.extend(Minter::needs());
        needs.extend(intentions::needs());
        if needs != self.wanted {
            self.wanted = needs.clone();
            self.watches.want(OWNER, needs).await;
        }
    }
}
