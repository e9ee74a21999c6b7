//! The active agents of our own datacenter: whether they answer. One that does not is passed by where there is another way.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    lifecycle,
    sync::{
        peer::{Hello, PeerError, Peers, Target},
        record::Doer,
    },
};

/// One that answered so short a time ago is not greeted before it is sent something.
const FRESH: Duration = Duration::from_secs(1);

/// So long after it did not answer a greeting it is greeted again. Its duty has another holder after two leases at most.
const PASSED_BY: Duration = Duration::from_secs(5);

/// What is known of each by its address.
#[derive(Default)]
pub(super) struct Doers {
    all: Mutex<BTreeMap<String, View>>,
    /// Held while one is greeted: many that want to know whether it answers ask once.
    greeting: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Default)]
struct View {
    heard_at: Option<Instant>,
    silent_at: Option<Instant>,
}

impl Doers {
    /// Makes sure that it answers right now: what is sent to one that hangs is neither done nor undone.
    pub(super) async fn reach<P: Peers>(
        &self,
        peers: &P,
        hello: Hello,
        doer: &Doer,
        patience: Duration,
    ) -> Result<(), PeerError> {
        let asked_at = lifecycle::now();
        if self.is_fresh(doer, asked_at) {
            return Ok(());
        }
        let _one_at_a_time = self.greeting.lock().await;
        let silent = || PeerError::Unreached(format!("no answer within {} ms", patience.as_millis()));
        match self.view(doer) {
            view if view.heard_at.is_some_and(|at| at >= asked_at) => return Ok(()),
            view if view.silent_at.is_some_and(|at| at >= asked_at) => return Err(silent()),
            // Others go on passing it by meanwhile.
            View { silent_at: Some(_), .. } => self.is_silent_since(doer, asked_at),
            _ => {}
        }
        let greeted = timeout(patience, peers.hello(&Target::Doer(doer.clone()), hello)).await;
        match greeted.unwrap_or_else(|_| Err(silent())) {
            Ok(_) => {
                self.heard(doer);
                Ok(())
            }
            Err(error) => {
                self.is_silent_since(doer, lifecycle::now());
                Err(error)
            }
        }
    }

    /// Ends once it does not answer a greeting, of which there is one each time it has been quiet for a while.
    pub(super) async fn falls_silent<P: Peers>(
        &self,
        peers: &P,
        hello: &Hello,
        doer: &Doer,
        patience: Duration,
    ) -> PeerError {
        loop {
            tokio::time::sleep(FRESH).await;
            if let Err(error) = self.reach(peers, hello.clone(), doer, patience).await {
                return error;
            }
        }
    }

    /// It has just answered something.
    pub(super) fn heard(&self, doer: &Doer) {
        let view = View { heard_at: Some(lifecycle::now()), silent_at: None };
        self.all().insert(doer.address.clone(), view);
    }

    /// It did not answer, which may have other reasons: the next one who wants to know greets it.
    pub(super) fn lost(&self, doer: &Doer) {
        self.all().entry(doer.address.clone()).or_default().heard_at = None;
    }

    /// Whether it did not answer a greeting a short while ago.
    pub(super) fn is_silent(&self, doer: &Doer) -> bool {
        let now = lifecycle::now();
        self.view(doer).silent_at.is_some_and(|at| at + PASSED_BY > now)
    }

    fn is_fresh(&self, doer: &Doer, now: Instant) -> bool {
        self.view(doer).heard_at.is_some_and(|at| at + FRESH > now)
    }

    fn is_silent_since(&self, doer: &Doer, at: Instant) {
        self.all().insert(doer.address.clone(), View { heard_at: None, silent_at: Some(at) });
    }

    fn view(&self, doer: &Doer) -> View {
        self.all().get(&doer.address).copied().unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, View>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::{
        model::sync::Position,
        sync::peer::{Absent, FollowItem, FollowStart, Forward, Forwarded, HelloReply},
    };

    /// Answers no greeting but the first so many, and counts them.
    #[derive(Clone)]
    struct Hung(Arc<AtomicUsize>, usize);

    impl Peers for Hung {
        async fn hello(&self, _: &Target, hello: Hello) -> Result<HelloReply, PeerError> {
            if self.0.fetch_add(1, Ordering::SeqCst) >= self.1 {
                std::future::pending::<()>().await;
            }
            Ok(HelloReply {
                version: 1,
                datacenter: hello.datacenter,
                node: hello.node,
                prefixes: Vec::new(),
                max_txn_ops: 64,
                max_value_bytes: None,
                known: Vec::new(),
            })
        }

        async fn forward(&self, _: &Target, _: Forward, _: Duration) -> Result<Forwarded, PeerError> {
            std::future::pending().await
        }

        async fn follow(
            &self,
            _: &Target,
            _: FollowStart,
            _: watch::Receiver<Position>,
        ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
            std::future::pending().await
        }

        async fn absent(&self, _: &Target, _: Absent, _: Duration) -> Result<(), PeerError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_noticed_in_time_and_passed_by_for_a_while() {
        const PATIENCE: Duration = Duration::from_secs(2);
        let (doers, peers) = (Doers::default(), Hung(Arc::default(), 1));
        let doer = Doer { node: "n".into(), address: "10.0.0.1:8443".into() };
        let hello = Hello {
            versions: (1, 1),
            datacenter: "a".into(),
            node: "m".into(),
            prefixes: Vec::new(),
            max_txn_ops: 64,
            max_value_bytes: None,
        };
        let reach = || doers.reach(&peers, hello.clone(), &doer, PATIENCE);
        let greetings = || peers.0.load(Ordering::SeqCst);

        reach().await.unwrap();
        reach().await.unwrap();
        assert_eq!(greetings(), 1, "who has just answered is not greeted");
        tokio::time::advance(FRESH).await;
        let began = lifecycle::now();
        assert!(matches!(reach().await, Err(PeerError::Unreached(_))));
        assert_eq!((began.elapsed(), greetings()), (PATIENCE, 2));

        assert!(doers.is_silent(&doer));
        tokio::time::advance(PASSED_BY).await;
        assert!(!doers.is_silent(&doer), "it is tried again");
        doers.heard(&doer);
        doers.lost(&doer);
        assert!(!doers.is_silent(&doer), "what was not answered may have taken long");
        let both = tokio::join!(reach(), reach());
        assert!(both.0.is_err() && both.1.is_err());
        assert_eq!(greetings(), 3, "two that want to know ask once");
    }
}
