//! The publisher: catalog in, snapshots out. It asks for the topics that the wanted proxies need, builds each proxy
//! whose topics changed, and offers the result to its streams at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

use crate::{
    app::interest::{Interests, Wanted},
    consul::watch::Watches,
    lifecycle::{self, Stop, pace::Pace},
    mesh::{
        self, Options, Proxy,
        built::Built,
        world::{Assembled, World},
    },
    model::{
        catalog::{Catalog, Heard, Topic},
        name::ProxyId,
        note::Note,
    },
    xds::{
        server::Offer,
        snapshot::{Draft, Snapshot},
    },
};

/// What is known of one proxy, for `/status` and `/metrics`.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Its resources.
    pub(super) snapshot: Arc<Snapshot>,
    /// Topics that hold something back.
    pub(super) waiting_for: BTreeSet<Topic>,
    /// What could not be honoured.
    pub(super) notes: BTreeSet<Note>,
    /// The topics it is built from.
    pub(super) needs: Arc<BTreeSet<Topic>>,
}

/// What the publisher tells of each proxy.
pub(super) type Reports = BTreeMap<ProxyId, Arc<Report>>;

/// The publisher task's state.
pub(super) struct Publisher {
    watches: Watches,
    interests: Interests,
    wanted: watch::Receiver<Wanted>,
    catalog: watch::Receiver<Arc<Catalog>>,
    options: watch::Receiver<Options>,
    reports: watch::Sender<Reports>,
    /// What all of `serving` are built from.
    built_from: (Arc<Catalog>, Options),
    serving: BTreeMap<ProxyId, Serving>,
}

/// One proxy being served.
struct Serving {
    offers: watch::Sender<Offer>,
    world: World,
    snapshot: Arc<Snapshot>,
    needs: Arc<BTreeSet<Topic>>,
    /// None until it is built for the first time.
    report: Option<Arc<Report>>,
    waiting_for: BTreeSet<Topic>,
    notes: BTreeSet<Note>,
}

impl Publisher {
    /// A publisher of what `interests` ask for.
    pub(super) fn new(
        watches: Watches,
        interests: Interests,
        options: watch::Receiver<Options>,
    ) -> (Self, watch::Receiver<Reports>) {
        let (reports, receiver) = watch::channel(Reports::new());
        let publisher = Self {
            catalog: watches.catalog(),
            wanted: interests.subscribe(),
            watches,
            interests,
            options,
            reports,
            built_from: Default::default(),
            serving: BTreeMap::new(),
        };
        (publisher, receiver)
    }

    /// Runs until stopped, or until the catalog ends.
    pub(super) async fn run(mut self, stop: Stop) {
        let mut pace = Pace::default();
        loop {
            let began = lifecycle::now();
            let forget_at = self.refresh().await;
            pace.worked(began, lifecycle::now());
            // A large gateway is built anew with whatever came meanwhile, not for each of its thousands of answers.
            tokio::select! {
                () = stop.wait() => return,
                () = pace.rested() => {}
            }
            tokio::select! {
                biased;
                () = stop.wait() => return,
                () = sleep_until(forget_at) => self.interests.forget_released(lifecycle::now()),
                changed = self.catalog.changed() => if changed.is_err() { return },
                changed = self.wanted.changed() => if changed.is_err() { return },
                changed = self.options.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Builds and offers whatever changed. Gives the time at which the next proxy may be forgotten.
    async fn refresh(&mut self) -> Option<Instant> {
        let catalog = self.catalog.borrow_and_update().clone();
        let options = *self.options.borrow_and_update();
        let wanted = self.wanted.borrow_and_update().clone();
        let mut has_changed = self.forget_unwanted(&wanted).await;
        let (last_catalog, last_options) =
            std::mem::replace(&mut self.built_from, (catalog.clone(), options));
        // Found once for all proxies: most changes concern a few of them, and one topic.
        let changed = catalog.changed_since(&last_catalog);
        for (proxy, interest) in &wanted {
            let offers = interest.offers.clone();
            let serving = self.serving.entry(proxy.clone()).or_insert_with(|| Serving::new(offers.clone()));
            // Forgotten and wanted again between two looks: nobody listens to the old offers.
            if !serving.offers.same_channel(&offers) {
                *serving = Serving::new(offers);
            }
            if options != last_options || !serving.is_current(&changed) {
                let needs = serving.rebuild(proxy, &catalog, options);
                if needs != *serving.needs {
                    serving.needs = Arc::new(needs.clone());
                    self.watches.want(&owner(proxy), needs).await;
                }
                serving.report = Some(Arc::new(serving.report()));
                has_changed = true;
            }
        }
        if has_changed {
            let reports =
                self.serving.iter().filter_map(|(id, serving)| Some((id.clone(), serving.report.clone()?)));
            self.reports.send_replace(reports.collect());
        }
        // Only now: what was refused just now is forgotten sooner.
        wanted.values().filter_map(|interest| interest.expires_at()).min()
    }

    async fn forget_unwanted(&mut self, wanted: &Wanted) -> bool {
        let gone: Vec<_> = self.serving.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for proxy in &gone {
            info!(%proxy, "proxy released");
            self.serving.remove(proxy);
            self.watches.want(&owner(proxy), BTreeSet::new()).await;
        }
        !gone.is_empty()
    }
}

impl Serving {
    fn new(offers: watch::Sender<Offer>) -> Self {
        Self {
            offers,
            world: World::default(),
            snapshot: Arc::new(Snapshot::empty()),
            needs: Arc::default(),
            report: None,
            waiting_for: BTreeSet::new(),
            notes: BTreeSet::new(),
        }
    }

    /// Whether it is built, and from nothing that has changed since.
    fn is_current(&self, changed: &BTreeSet<&Topic>) -> bool {
        self.report.is_some() && changed.iter().all(|topic| !self.needs.contains(*topic))
    }

    /// Builds the proxy and offers the result. Gives the topics that it needs.
    fn rebuild(&mut self, proxy: &ProxyId, catalog: &Catalog, options: Options) -> BTreeSet<Topic> {
        match mesh::build(catalog, proxy, options) {
            Proxy::Unknown { needs } => {
                self.waiting_for = needs.clone();
                needs
            }
            Proxy::Absent { needs } => {
                let problem = "is not registered with the local Consul agent";
                let remedy = "register it there, or correct node.id in Envoy's bootstrap";
                self.refuse(proxy, Note::new(format!("proxy {proxy}"), problem, remedy), true, Vec::new());
                self.kept_needs(needs)
            }
            Proxy::Unsupported { needs, note } => {
                self.refuse(proxy, note, false, heard_notes(catalog, &needs));
                self.kept_needs(needs)
            }
            Proxy::Built(built) => self.publish(proxy, built, catalog),
        }
    }

    fn publish(&mut self, proxy: &ProxyId, mut built: Built, catalog: &Catalog) -> BTreeSet<Topic> {
        let needs = std::mem::take(&mut built.needs);
        let Assembled { resources, partial, waiting_for, complete, mut notes } = self.world.assemble(built);
        notes.extend(heard_notes(catalog, &needs));
        notes.extend(disk_note(catalog, proxy, &needs));
        for note in notes.difference(&self.notes) {
            warn!(%proxy, %note, "part of the proxy cannot be served as asked");
        }
        (self.notes, self.waiting_for) = (notes, waiting_for);
        let next = self.snapshot.next(Draft { resources, partial, complete });
        let is_first = !matches!(*self.offers.borrow(), Offer::Ready(_));
        let is_same = next.changed_since(&self.snapshot).is_some_and(|mut changed| changed.next().is_none());
        if is_first || !is_same {
            debug!(%proxy, change = %next.diff_text(&self.snapshot), "snapshot published");
            self.offers.send_replace(Offer::Ready(next.clone()));
            // Only then: the next one tells its difference from what the streams have.
            self.snapshot = next;
        }
        needs
    }

    /// Refuses the proxy's streams, unless it was served before: then it keeps its last good resources. `heard` is
    /// shown besides.
    fn refuse(&mut self, proxy: &ProxyId, note: Note, not_found: bool, heard: Vec<Note>) {
        self.waiting_for.clear();
        let notes: BTreeSet<_> = heard.into_iter().chain([note.clone()]).collect();
        if !self.notes.contains(&note) {
            warn!(%proxy, %note, "proxy cannot be served");
        }
        self.notes = notes;
        self.offers.send_if_modified(|offer| {
            let is_served = matches!(offer, Offer::Ready(_));
            if !is_served {
                *offer = Offer::Refused { not_found, message: Arc::from(note.to_string()) };
            }
            !is_served
        });
    }

    /// A proxy that was served and is registered no more keeps its resources, so what they are made from is followed
    /// still: when it comes back nothing has become unknown meanwhile.
    fn kept_needs(&self, needs: BTreeSet<Topic>) -> BTreeSet<Topic> {
        match *self.offers.borrow() {
            Offer::Ready(_) => needs.union(&self.needs).cloned().collect(),
            Offer::Pending | Offer::Refused { .. } | Offer::Denied { .. } => needs,
        }
    }

    fn report(&self) -> Report {
        Report {
            snapshot: self.snapshot.clone(),
            waiting_for: self.waiting_for.clone(),
            notes: self.notes.clone(),
            needs: self.needs.clone(),
        }
    }
}

/// The name under which a proxy wants topics; the agent itself has one too.
fn owner(proxy: &ProxyId) -> String {
    format!("proxy/{proxy}")
}

/// What was noted while the needed topics were read.
fn heard_notes(catalog: &Catalog, needs: &BTreeSet<Topic>) -> Vec<Note> {
    needs
        .iter()
        .filter_map(|topic| catalog.heard(topic))
        .flat_map(|heard| heard.notes.iter().cloned())
        .collect()
}

/// One for all that is served from disk.
fn disk_note(catalog: &Catalog, proxy: &ProxyId, needs: &BTreeSet<Topic>) -> Option<Note> {
    let is_from_disk = |topic: &Topic| catalog.heard(topic).is_some_and(Heard::is_from_disk);
    needs.iter().any(is_from_disk).then(|| {
        Note::new(
            format!("proxy {proxy}"),
            "is served by what was last known before the agent started, as far as Consul does not answer",
            "bring Consul back; its answers replace what was read from disk",
        )
    })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
