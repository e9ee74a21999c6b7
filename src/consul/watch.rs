//! The watches: one owner task holds the catalog and who wants what; one poller per topic, shared by all who want it.
//! Where a datacenter's topics are many, their pollers follow a census of it (`guide`).
//!
//! A changed answer is published at once, together with all others that are already waiting; there is no timer between
//! Consul's answer and the publication, but that publications of a very large catalog keep a [`Pace`]. A topic that
//! nobody wants any more is followed for [`LINGER`] and then forgotten, so that a proxy that reconnects finds everything
//! as it was. What no proxy would find is forgotten at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};

use crate::{
    consul::{
        acl::leaf::LeafTokens,
        census,
        client::Client,
        guide::{self, Guides},
        metrics::ConsulMetrics,
        poller::{self, Desk, News, Report, Silence, Turns},
        shelf::Shelf,
        sight::Sights,
    },
    lifecycle::{self, Stop, Task, pace::Pace},
    model::{
        catalog::{Answer, Catalog, Heard, Topic, Topics},
        name::Datacenter,
    },
};

/// How long a topic that nobody wants is still followed.
pub const LINGER: Duration = Duration::from_secs(30);
/// Reports that may wait for the owner. It takes them within microseconds; a full queue only makes pollers wait.
const REPORTS: usize = 256;
/// Changes of wishes that may wait: one per proxy that changes its mind at the same moment.
const WISHES: usize = 64;

/// The way to say what is wanted, and to see what is known. Clones speak to the same owner.
#[derive(Clone, Debug)]
pub struct Watches {
    wishes: mpsc::Sender<Wish>,
    catalog: watch::Receiver<Arc<Catalog>>,
    shelf: watch::Receiver<Arc<Topics>>,
}

#[derive(Debug)]
struct Wish {
    owner: String,
    topics: BTreeSet<Topic>,
}

/// Starts the watches. The task returns after `stop`; should it return before, the catalog is no longer kept and the
/// agent must end. Everything is asked for with the client's own token.
pub fn start(client: Client, metrics: ConsulMetrics, stop: Stop) -> (Watches, Task<()>) {
    start_with(client, LeafTokens::own(), Topics::new(), metrics, stop)
}

/// The same, where leaf certificates are asked for with these tokens, and where topics of which Consul says nothing have
/// the answers that were `kept`.
pub fn start_with(
    client: Client,
    leaf_tokens: LeafTokens,
    kept: Topics,
    metrics: ConsulMetrics,
    stop: Stop,
) -> (Watches, Task<()>) {
    let (wishes_in, wishes) = mpsc::channel(WISHES);
    let (reports_in, reports) = mpsc::channel(REPORTS);
    let turns = Turns::of(client.settings());
    let (guides, local) = (Guides::new(), Arc::default());
    let sights = Sights::default();
    let desk = Desk { client, metrics, reports: reports_in, turns, leaf_tokens, guides, sights, local };
    let owner = Owner::new(desk, kept);
    let (catalog, shelf) = (owner.published.subscribe(), owner.shelved.subscribe());
    let task = lifecycle::spawn("consul.watch", owner.run(wishes, reports, stop));
    (Watches { wishes: wishes_in, catalog, shelf }, task)
}

impl Watches {
    /// Says which topics `owner` wants from now on; this replaces what it wanted before, and an empty set means that
    /// the owner is gone. Returns once the wish is queued; after a stop it is without effect.
    pub async fn want(&self, owner: &str, topics: BTreeSet<Topic>) {
        let _ = self.wishes.send(Wish { owner: owner.to_owned(), topics }).await;
    }

    /// The latest catalog. The channel closes when the watches end.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// What is kept and not used.
    pub fn shelf(&self) -> watch::Receiver<Arc<Topics>> {
        self.shelf.clone()
    }
}

struct Owner {
    catalog: Catalog,
    shelf: Shelf,
    wanted: BTreeMap<String, BTreeSet<Topic>>,
    followed: BTreeMap<Topic, Followed>,
    /// Who takes the census of a datacenter with many topics.
    guided: BTreeMap<Datacenter, AbortHandle>,
    pollers: JoinSet<()>,
    desk: Desk,
    published: watch::Sender<Arc<Catalog>>,
    shelved: watch::Sender<Arc<Topics>>,
    /// The catalog is not what was published last.
    has_news: bool,
    /// Of publications: each is a copy of all that is known.
    pace: Pace,
}

struct Followed {
    poller: AbortHandle,
    /// When it is forgotten, if nobody wants it.
    until: Option<Instant>,
    silence: Option<Silence>,
    is_from_disk: bool,
}

impl Followed {
    /// Whether Consul would say more of what was heard, if it could be asked.
    fn misses(&self, heard: &Heard) -> bool {
        heard.stale.is_some() && self.silence != Some(Silence::Told)
    }
}

impl Owner {
    fn new(desk: Desk, kept: Topics) -> Self {
        Self {
            catalog: Catalog::default(),
            shelved: watch::Sender::new(Arc::new(kept.clone())),
            shelf: Shelf::new(kept, lifecycle::now()),
            wanted: BTreeMap::new(),
            followed: BTreeMap::new(),
            guided: BTreeMap::new(),
            pollers: JoinSet::new(),
            desk,
            published: watch::Sender::default(),
            has_news: false,
            pace: Pace::default(),
        }
    }

    async fn run(
        mut self,
        mut wishes: mpsc::Receiver<Wish>,
        mut reports: mpsc::Receiver<Report>,
        stop: Stop,
    ) {
        let mut next_end = None;
        loop {
            // Reports last: there may be more of them all the time.
            tokio::select! {
                biased;
                () = stop.wait() => return,
                () = until(next_end) => {
                    self.forget_unwanted(lifecycle::now());
                    next_end = self.next_end();
                }
                () = until(self.shelf.due()) => self.tend_shelf(lifecycle::now()),
                () = self.pace.rested(), if self.has_news => self.publish(true),
                Some(wish) = wishes.recv() => {
                    self.wish(wish);
                    while let Ok(wish) = wishes.try_recv() {
                        self.wish(wish);
                    }
                    self.follow_wanted();
                    next_end = self.next_end();
                }
                Some(ended) = self.pollers.join_next() => {
                    if !ended.as_ref().is_err_and(JoinError::is_cancelled) {
                        tracing::error!(?ended, "a poller ended by itself, which is a fault of this program");
                        return;
                    }
                }
                Some(report) = reports.recv() => {
                    let mut has_changed = self.take(report);
                    while let Ok(report) = reports.try_recv() {
                        has_changed |= self.take(report);
                    }
                    self.publish(has_changed);
                }
            }
        }
    }

    fn wish(&mut self, wish: Wish) {
        if wish.topics.is_empty() {
            self.wanted.remove(&wish.owner);
        } else {
            self.wanted.insert(wish.owner, wish.topics);
        }
    }

    /// Starts a poller for each topic newly wanted, and lets those run out that nobody wants.
    fn follow_wanted(&mut self) {
        let wanted: BTreeSet<&Topic> = self.wanted.values().flatten().collect();
        let now = lifecycle::now();
        for (topic, followed) in &mut self.followed {
            let linger = if is_nobodys(topic, &self.catalog) { Duration::ZERO } else { LINGER };
            followed.until =
                if wanted.contains(topic) { None } else { followed.until.or(Some(now + linger)) };
        }
        let new: Vec<Topic> =
            wanted.into_iter().filter(|topic| !self.followed.contains_key(*topic)).cloned().collect();
        self.guide(&new);
        self.count_topics(&new);
        for topic in new {
            self.shelf.asked(&topic, lifecycle::now());
            let kept = self.shelf.kept(&topic).map(|heard| heard.answer.clone());
            let poller = self.pollers.spawn(poller::follow(self.desk.clone(), topic.clone(), kept));
            self.followed.insert(topic, Followed { poller, until: None, silence: None, is_from_disk: false });
        }
    }

    /// Begins and ends censuses, before the pollers of `new` start: those wait for them.
    fn guide(&mut self, new: &[Topic]) {
        let topics = self.followed.keys().chain(new);
        let chosen = guide::chosen(topics, |dc| self.guided.contains_key(dc), self.desk.turns.limit());
        let guides = &self.desk.guides;
        self.guided.retain(|dc, task| {
            let stays = chosen.contains(dc);
            if !stays {
                task.abort();
                guides.end(dc);
            }
            stays
        });
        for dc in chosen {
            if !self.guided.contains_key(&dc) {
                let turn = guides.begin(&dc);
                let task = self.pollers.spawn(guide::lead(self.desk.clone(), dc.clone(), turn));
                self.guided.insert(dc, task);
            }
        }
    }

    /// When the first topic is to be forgotten that nobody wants.
    fn next_end(&self) -> Option<Instant> {
        self.followed.values().filter_map(|followed| followed.until).min()
    }

    fn forget_unwanted(&mut self, now: Instant) {
        let (catalog, shelf) = (&mut self.catalog, &mut self.shelf);
        let mut has_changed = false;
        self.followed.retain(|topic, followed| {
            let is_over = followed.until.is_some_and(|until| until <= now);
            if is_over {
                followed.poller.abort();
                let silent = catalog.heard(topic).filter(|heard| followed.misses(heard));
                shelf.let_go(topic, silent.cloned(), now);
                has_changed |= catalog.forget(topic);
            }
            !is_over
        });
        self.guide(&[]);
        self.count_topics(&[]);
        self.count_silent();
        // What goes from one to the other is in both for a moment, never in neither: it stays on disk.
        if let Some(kept) = self.shelf.unshown() {
            self.shelved.send_replace(Arc::new(kept));
        }
        self.publish(has_changed);
    }

    /// Takes one report into the catalog; returns whether that changed it.
    fn take(&mut self, report: Report) -> bool {
        let topic = report.topic;
        let was = self.standing(&topic);
        // A poller may have reported just before it was aborted.
        let Some(followed) = self.followed.get_mut(&topic) else { return false };
        let now = lifecycle::now();
        let has_changed = match report.news {
            News::Heard(heard) => {
                if followed.silence.take().is_some() {
                    tracing::info!(%topic, "Consul answers again");
                }
                if let Answer::Agent(facts) = &*heard.answer {
                    // The datacenter of an agent never changes while it runs; a second value is the same.
                    let _ = self.desk.local.set(facts.datacenter.clone());
                }
                followed.is_from_disk = false;
                if self.shelf.answered(&topic, &heard.answer, now) {
                    self.forget_foreign();
                }
                self.catalog.hear(topic.clone(), heard)
            }
            News::Lost(silence, reason) => {
                tracing::warn!(%topic, error = %reason, "Consul gives no answer; the last one stays in use");
                followed.silence = Some(silence);
                let kept = self.shelf.lost(&topic, now);
                let is_restored = kept.is_some_and(|heard| self.restore(topic.clone(), heard));
                is_restored | self.catalog.lose(&topic, reason)
            }
        };
        // Counting goes through all topics: not at each of thousands of answers.
        if self.standing(&topic) != was || topic == Topic::Agent {
            self.count_silent();
        }
        has_changed
    }

    /// All of a topic that is counted.
    fn standing(&self, topic: &Topic) -> Option<(Option<Silence>, bool, bool)> {
        let followed = self.followed.get(topic)?;
        let is_missed = self.catalog.heard(topic).is_some_and(|heard| followed.misses(heard));
        Some((followed.silence, followed.is_from_disk, is_missed))
    }

    /// Gives out what waited for Consul long enough, and shows what is left.
    fn tend_shelf(&mut self, now: Instant) {
        let overdue = self.shelf.overdue(now);
        let mut has_changed = false;
        for (topic, heard) in overdue {
            has_changed |= self.restore(topic, heard);
        }
        self.count_silent();
        self.publish(has_changed);
        if let Some(kept) = self.shelf.shown(now) {
            self.shelved.send_replace(Arc::new(kept));
        }
    }

    /// Uses a kept answer of a topic that Consul says nothing of; returns whether that changed the catalog.
    fn restore(&mut self, topic: Topic, heard: Heard) -> bool {
        let Some(followed) = self.followed.get_mut(&topic) else { return false };
        followed.is_from_disk = heard.is_from_disk();
        self.catalog.hear(topic, heard)
    }

    /// Drops what is in use of another agent's answers.
    fn forget_foreign(&mut self) {
        tracing::warn!(
            "values on disk are of another Consul agent, by its node or datacenter, and are dropped"
        );
        for (topic, followed) in &mut self.followed {
            if std::mem::take(&mut followed.is_from_disk) {
                let stale = self.catalog.heard(topic).and_then(|heard| heard.stale.clone());
                self.catalog.forget(topic);
                // Its poller tells a failure once: that one is still known.
                if let Some(stale) = stale.filter(|_| followed.silence.is_some()) {
                    self.catalog.lose(topic, stale.reason);
                }
            }
        }
    }

    /// Publishes what has changed, at once or when it is time again.
    fn publish(&mut self, has_changed: bool) {
        self.has_news |= has_changed;
        let began = lifecycle::now();
        if self.has_news && self.pace.is_rested(began) {
            self.has_news = false;
            self.desk.metrics.publications.inc();
            self.published.send_replace(Arc::new(self.catalog.clone()));
            self.pace.worked(began, lifecycle::now());
        }
    }

    fn count_topics(&self, new: &[Topic]) {
        let topics = || self.followed.keys().chain(new);
        let mut guided: BTreeMap<&Datacenter, usize> = self.guided.keys().map(|dc| (dc, 0)).collect();
        let mut polls = guided.len();
        for topic in topics() {
            match census::datacenter(topic).and_then(|dc| guided.get_mut(dc)) {
                Some(count) => *count += 1,
                None => polls += 1,
            }
        }
        self.desk.guides.count(&guided);
        self.desk.turns.set_polls(polls);
        self.desk.metrics.topics.set(i64::try_from(topics().count()).unwrap_or(i64::MAX));
    }

    /// Counts topics of which Consul says nothing, and tells the shelf whether it misses any.
    fn count_silent(&mut self) {
        let misses = |(topic, followed): (&Topic, &Followed)| {
            self.catalog.heard(topic).is_some_and(|heard| followed.misses(heard))
        };
        self.shelf.told(self.followed.iter().any(misses), lifecycle::now());
        let silent = self.followed.values().filter(|followed| followed.silence.is_some()).count();
        self.desk.metrics.topics_silent.set(i64::try_from(silent).unwrap_or(i64::MAX));
        let from_disk = self.followed.values().filter(|followed| followed.is_from_disk).count();
        let from_disk = i64::try_from(from_disk).unwrap_or(i64::MAX);
        match (self.desk.metrics.topics_from_disk.set(from_disk), from_disk) {
            (0, 1..) => tracing::warn!("values from disk are in use, until Consul answers"),
            (1.., 0) => tracing::info!("no value from disk is in use any more"),
            _ => {}
        }
    }
}

/// Whether it is the registration of a proxy that is not there, as far as is known. Clients may ask for any name, and for
/// thousands of them.
fn is_nobodys(topic: &Topic, catalog: &Catalog) -> bool {
    let is_there = |heard: &Heard| matches!(&*heard.answer, Answer::Registration(Some(_)));
    matches!(topic, Topic::Registration(_)) && !catalog.heard(topic).is_some_and(is_there)
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
