//! The other datacenters: whether they can be reached, what they know, and whether they agree with us on the prefixes. At a
//! takeover the other agents of our own are asked too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    consul::kv::SAFE_TXN_OPS,
    lifecycle::{self, Stop},
    model::{name::Datacenter, sync::Prefix},
    sync::{
        engine::{
            EngineSettings,
            kin::{self, Kin, KinSeen},
        },
        home::Others,
        peer::{Hello, HelloReply, Known, PeerError, Peers, Target},
        status::DatacenterStatus,
    },
};

/// How often every other datacenter is greeted: what it says of its prefixes is never much older.
const EVERY: Duration = Duration::from_secs(5);

/// A datacenter that answered so short a time ago counts as reachable.
const FRESH: Duration = Duration::from_secs(1);

/// How long all other datacenters may take to say what they know.
const ALL_PATIENCE: Duration = Duration::from_secs(4);

/// How often another agent of our own datacenter is asked what it knows: an answer may be lost.
const KIN_TRIES: usize = 2;
/// How long each answer may take. One that hangs holds a takeover up by both.
const KIN_PATIENCE: Duration = Duration::from_millis(700);

/// The other datacenters. Clones are the same ones.
pub(super) struct Neighbours<P>(Arc<Shared<P>>);

impl<P> Clone for Neighbours<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<P> {
    hello: Hello,
    patience: Duration,
    peers: P,
    others: BTreeMap<Datacenter, Other>,
    kin: KinSeen,
}

#[derive(Default)]
struct Other {
    view: Mutex<View>,
    /// Held while it is greeted: many that want to know whether it can be reached ask once.
    greeting: tokio::sync::Mutex<()>,
    /// Changes with every greeting that it answers.
    answers: watch::Sender<()>,
}

#[derive(Default)]
struct View {
    /// Its answer to our last greeting that it answered.
    reply: Option<HelloReply>,
    /// The prefixes that it last told of, in an answer or in a greeting of its own.
    prefixes: Vec<Prefix>,
    greeted_at: Option<Instant>,
    /// When it last answered anything.
    heard_at: Option<Instant>,
    failed: Option<(Instant, PeerError)>,
}

impl<P: Peers> Neighbours<P> {
    pub(super) fn new(settings: &EngineSettings, peers: P) -> Self {
        let others = settings.datacenters.iter().filter(|datacenter| **datacenter != settings.datacenter);
        Self(Arc::new(Shared {
            hello: settings.hello(),
            patience: settings.times.forward,
            peers,
            others: others.map(|datacenter| (datacenter.clone(), Other::default())).collect(),
            kin: settings.kin.clone(),
        }))
    }

    /// Greets all of them until the stop.
    pub(super) async fn run(self, stop: Stop) {
        loop {
            let began = lifecycle::now();
            tokio::select! {
                biased;
                () = stop.wait() => return,
                () = async {
                    self.greet_all().await;
                    tokio::time::sleep_until(began + EVERY).await;
                } => {}
            }
        }
    }

    async fn greet_all(&self) {
        let now = lifecycle::now();
        join_all(self.0.others.keys().map(|datacenter| self.greet(datacenter, now))).await;
    }

    /// Changes with every greeting that this datacenter answers.
    pub(super) fn answers(&self, datacenter: &Datacenter) -> Option<watch::Receiver<()>> {
        self.0.others.get(datacenter).map(|other| other.answers.subscribe())
    }

    /// Makes sure that a datacenter answers right now.
    pub(super) async fn reach(&self, datacenter: &Datacenter) -> Result<(), PeerError> {
        let Some(other) = self.0.others.get(datacenter) else {
            return Err(PeerError::Misfit(format!("{datacenter} is not among the replicating datacenters")));
        };
        let now = lifecycle::now();
        if other.view().heard_at.is_some_and(|at| at + FRESH > now) {
            return Ok(());
        }
        self.greet(datacenter, now).await
    }

    /// Greets a datacenter, unless somebody else has done so since `asked_at`.
    async fn greet(&self, datacenter: &Datacenter, asked_at: Instant) -> Result<(), PeerError> {
        let Some(other) = self.0.others.get(datacenter) else { return Ok(()) };
        let _one_at_a_time = other.greeting.lock().await;
        {
            let view = other.view();
            if view.greeted_at.is_some_and(|at| at >= asked_at) {
                return Ok(());
            }
            if let Some((_, error)) = view.failed.as_ref().filter(|(at, _)| *at >= asked_at) {
                return Err(error.clone());
            }
        }
        let target = Target::Datacenter(datacenter.clone());
        let asking = self.0.peers.hello(&target, self.0.hello.clone());
        let answer = timeout_at(lifecycle::now() + self.0.patience, asking).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(PeerError::Unreached(format!("no answer within {} ms", self.0.patience.as_millis())))
        });
        let now = lifecycle::now();
        let mut view = other.view();
        match answer {
            Ok(reply) => {
                let prefixes = reply.prefixes.clone();
                let (greeted_at, heard_at) = (Some(now), Some(now));
                *view = View { reply: Some(reply), prefixes, greeted_at, heard_at, failed: None };
                other.answers.send_replace(());
                Ok(())
            }
            Err(error) => {
                view.failed = Some((now, error.clone()));
                Err(error)
            }
        }
    }

    /// What the other agents of our own datacenter know. Our Consul may have been restored since they wrote there.
    async fn known_to_kin(&self) -> Vec<Known> {
        let mut seen = self.0.kin.clone();
        // An agent that has just started does not know yet whom to ask.
        let _ = timeout(KIN_PATIENCE, seen.wait_for(Option::is_some)).await;
        let kin = kin::known(&seen);
        join_all(kin.iter().map(|kin| self.known_to(kin))).await.concat()
    }

    async fn known_to(&self, kin: &Kin) -> Vec<Known> {
        let target = Target::Doer(kin.doer());
        for _ in 0..KIN_TRIES {
            let asking = self.0.peers.hello(&target, self.0.hello.clone());
            if let Ok(Ok(reply)) = timeout(KIN_PATIENCE, asking).await {
                return reply.known;
            }
        }
        tracing::info!(node = %kin.node, "another agent of this datacenter cannot be asked what it knows");
        Vec::new()
    }

    /// A datacenter greeted us: what it says of its prefixes holds at once, not only when we greet it next.
    pub(super) fn greeted_by(&self, hello: &Hello) {
        if let Some(other) = self.0.others.get(&hello.datacenter) {
            other.view().prefixes.clone_from(&hello.prefixes);
        }
    }

    /// A datacenter has just answered something.
    pub(super) fn heard(&self, datacenter: &Datacenter) {
        if let Some(other) = self.0.others.get(datacenter) {
            other.view().heard_at = Some(lifecycle::now());
        }
    }

    /// A datacenter did not answer: the next one who wants to know asks.
    pub(super) fn lost(&self, datacenter: &Datacenter) {
        if let Some(other) = self.0.others.get(datacenter) {
            other.view().heard_at = None;
        }
    }

    /// In what way some datacenter disagrees on a prefix.
    pub(super) fn misfit(&self, prefix: &Prefix) -> Option<String> {
        let own = &self.0.hello.datacenter;
        self.0.others.iter().find_map(|(datacenter, other)| {
            let view = other.view();
            let has_told = view.reply.is_some() || !view.prefixes.is_empty();
            has_told.then(|| disagreement(own, prefix, datacenter, &view.prefixes)).flatten()
        })
    }

    pub(super) fn status(&self) -> Vec<DatacenterStatus> {
        let now = lifecycle::now();
        let of = |(datacenter, other): (&Datacenter, &Other)| {
            let view = other.view();
            let ago = view.heard_at.map(|at| now.saturating_duration_since(at).as_millis());
            DatacenterStatus {
                datacenter: datacenter.clone(),
                node: view.reply.as_ref().map(|reply| reply.node.clone()),
                heard_ms_ago: ago.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
                max_txn_ops: view.reply.as_ref().map(|reply| reply.max_txn_ops),
                max_value_bytes: view.reply.as_ref().and_then(|reply| reply.max_value_bytes),
                trouble: view.failed.as_ref().map(|(_, error)| error.to_string()),
            }
        };
        self.0.others.iter().map(of).collect()
    }
}

impl<P: Peers> Others for Neighbours<P> {
    async fn known(&self, prefix: &str) -> Vec<Known> {
        let since = lifecycle::now();
        let greeting = timeout(ALL_PATIENCE, self.greet_all());
        // Who does not answer in time takes away nothing of what others said.
        let (mut known, _) = tokio::join!(self.known_to_kin(), greeting);
        for other in self.0.others.values() {
            let view = other.view();
            if let (Some(reply), Some(true)) = (&view.reply, view.greeted_at.map(|at| at >= since)) {
                known.extend(reply.known.iter().cloned());
            }
        }
        known.retain(|known| known.prefix == prefix);
        known
    }

    fn max_txn_ops(&self) -> usize {
        self.0.others.values().map(Other::max_txn_ops).fold(self.0.hello.max_txn_ops, usize::min)
    }

    fn max_value_bytes(&self) -> usize {
        self.0.others.values().filter_map(Other::max_value_bytes).min().unwrap_or(usize::MAX)
    }
}

impl Other {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is configured to take; none while it has not said.
    fn max_value_bytes(&self) -> Option<usize> {
        self.view().reply.as_ref()?.max_value_bytes
    }

    /// What its Consul takes; of one that never answered, what every release does: it must be able to apply what is
    /// journaled before it is heard of.
    fn max_txn_ops(&self) -> usize {
        self.view().reply.as_ref().map_or(SAFE_TXN_OPS, |reply| reply.max_txn_ops)
    }
}

/// How the prefixes of another datacenter contradict one of ours.
fn disagreement(own: &Datacenter, prefix: &Prefix, other: &Datacenter, theirs: &[Prefix]) -> Option<String> {
    let remedy = "give all sync agents the same prefixes";
    let text = &prefix.text;
    if let Some(same) = theirs.iter().find(|their| their.text == *text) {
        return (same.home != prefix.home).then(|| {
            format!(
                "`{text}` has its home in {} for the sync agents of {own}, and in {} for those of {other}; {remedy}",
                prefix.home, same.home
            )
        });
    }
    let overlaps = |their: &&Prefix| their.text.starts_with(text.as_str()) || text.starts_with(&their.text);
    if let Some(their) = theirs.iter().find(overlaps) {
        return Some(format!(
            "`{text}` (home {}) of {own} overlaps with `{}` (home {}) of {other}; {remedy}",
            prefix.home, their.text, their.home
        ));
    }
    (prefix.home == *other)
        .then(|| format!("{other} is the home of `{text}` and does not replicate it; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sync::Mode;

    #[test]
    fn a_datacenter_that_never_answered_takes_what_every_consul_does() {
        let other = Other::default();
        assert_eq!((other.max_txn_ops(), other.max_value_bytes()), (SAFE_TXN_OPS, None));
        other.view().reply = Some(HelloReply {
            version: 1,
            datacenter: "b".into(),
            node: "n".into(),
            prefixes: Vec::new(),
            max_txn_ops: 128,
            max_value_bytes: Some(1024),
            known: Vec::new(),
        });
        assert_eq!((other.max_txn_ops(), other.max_value_bytes()), (128, Some(1024)));
    }

    #[test]
    fn a_disagreement_names_both_homes() {
        let of =
            |text: &str, home: &str| Prefix { text: text.into(), home: home.into(), mode: Mode::Journaled };
        let (own, other) = (Datacenter::from("a"), Datacenter::from("b"));
        let found = |prefix: &Prefix, theirs: &[Prefix]| disagreement(&own, prefix, &other, theirs);
        let config = of("config/", "a");
        assert_eq!(found(&config, &[of("config/", "a"), of("x/", "b")]), None);
        assert_eq!(found(&config, &[]), None);
        let homes = found(&config, &[of("config/", "b")]).unwrap();
        assert!(homes.contains("home in a for") && homes.contains("in b for"), "{homes}");
        let overlap = found(&config, &[of("config/deep/", "b")]).unwrap();
        assert!(overlap.contains("`config/deep/` (home b) of b"), "{overlap}");
        assert!(found(&of("locks/", "b"), &[config]).unwrap().contains("does not replicate it"));
    }
}
