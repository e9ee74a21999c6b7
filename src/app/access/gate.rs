//! One gate: what its streams are offered, who uses it, and the task that guards it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    app::{
        access::{
            GateKey, Shared,
            verdict::{Case, Past, Standing, Subject, Ticket, again, is_same, offered},
        },
        interest::LINGER,
    },
    consul::{
        acl::{leaf::Credential, rights::Right},
        shelf::PATIENCE,
    },
    lifecycle::{self, Task},
    model::{name::ServiceName, secret::SecretText},
    xds::server::Offer,
};

/// How long a verdict is kept after the last stream ended: as long as what is built is, less a moment, so that a gate
/// never outlives what it leads to.
const KEPT: Duration = LINGER.saturating_sub(Duration::from_secs(1));
/// How long a refusal holds: a client that comes again and again costs Consul one question in this time, and a token
/// that was given the right works this soon.
const REFUSAL_KEPT: Duration = Duration::from_secs(5);

/// A gate, as the streams see it.
pub(super) struct Gate {
    id: u64,
    source: watch::Receiver<Offer>,
    offers: watch::Sender<Offer>,
    subject: watch::Sender<Subject>,
    users: watch::Sender<usize>,
    refused_at: watch::Receiver<Option<Instant>>,
    _guard: Task<()>,
}

/// A stream's use of a gate.
pub(super) struct Used(watch::Sender<usize>);

impl Drop for Used {
    fn drop(&mut self) {
        self.0.send_modify(|users| *users -= 1);
    }
}

impl Gate {
    /// Opens the way to `source` for whoever the guard lets pass.
    pub(super) fn open(guard: Guard, source: watch::Sender<Offer>) -> Self {
        let id = guard.id;
        let (refused, refused_at) = watch::channel(None);
        let subject = watch::Sender::new(guard.subject.clone());
        let (offers, users) = (watch::Sender::new(Offer::Pending), watch::Sender::new(0));
        let ways = Ways {
            source: source.subscribe(),
            offers: offers.clone(),
            subject: subject.subscribe(),
            users: users.subscribe(),
            refused,
        };
        let _guard = lifecycle::spawn("access.guard", guard.stand(ways));
        // Not the sender: what nobody wants any more is closed here too.
        Self { id, source: source.subscribe(), offers, subject, users, refused_at, _guard }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_used(&self) -> bool {
        *self.users.borrow() > 0
    }

    /// Whether this is where it leads; what was forgotten meanwhile and wanted again is another place.
    pub(super) fn leads_to(&self, source: &watch::Sender<Offer>) -> bool {
        self.source.same_channel(&source.subscribe())
    }

    /// Whether it refused so long ago that it should be asked again.
    pub(super) fn is_outdated(&self, now: Instant) -> bool {
        self.refused_at.borrow().is_some_and(|at| at + REFUSAL_KEPT <= now)
    }

    pub(super) fn concerns(&self, subject: Subject) {
        self.subject.send_if_modified(|last| {
            let is_new = *last != subject;
            *last = subject;
            is_new
        });
    }

    pub(super) fn enter(&self) -> (watch::Receiver<Offer>, Used) {
        self.users.send_modify(|users| *users += 1);
        (self.offers.subscribe(), Used(self.users.clone()))
    }
}

/// What a gate is guarded with.
pub(super) struct Guard {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) key: GateKey,
    pub(super) token: SecretText,
    pub(super) is_presented: bool,
    pub(super) subject: Subject,
}

/// The guard's ends of the gate's channels.
struct Ways {
    source: watch::Receiver<Offer>,
    offers: watch::Sender<Offer>,
    subject: watch::Receiver<Subject>,
    users: watch::Receiver<usize>,
    refused: watch::Sender<Option<Instant>>,
}

/// When things are due.
#[derive(Default)]
struct Clock {
    check: Option<Instant>,
    /// What is remembered counts from then on, if Consul has said nothing.
    patience: Option<Instant>,
    close: Option<Instant>,
}

impl Clock {
    /// With a check at once, in place of the one that is under way.
    fn check_now(self) -> Self {
        Self { check: Some(lifecycle::now()), patience: None, ..self }
    }
}

impl Guard {
    async fn stand(self, mut ways: Ways) {
        let mut case = Case::new(self.is_presented);
        let mut recheck = self.shared.recheck.clone();
        let mut clock = Clock::default();
        let mut lent = Lent { guard: &self, ticket: Ticket::Nothing };
        let mut trouble: Option<String> = None;
        ways.subject.mark_changed();
        let mut exam: Option<Exam<'_>> = None;
        loop {
            tokio::select! {
                biased;
                changed = ways.subject.changed() => {
                    if changed.is_err() { return }
                    let subject = ways.subject.borrow_and_update().clone();
                    if case.concerns(subject) {
                        (exam, clock) = (None, clock.check_now());
                    }
                }
                changed = ways.source.changed() => if changed.is_err() {
                    self.shared.close(&self.key, self.id);
                    return;
                },
                changed = ways.users.changed() => {
                    if changed.is_err() { return }
                    let kept = if ways.is_refused() { REFUSAL_KEPT } else { KEPT };
                    let is_used = *ways.users.borrow_and_update() > 0;
                    clock.close = (!is_used).then(|| lifecycle::now() + kept);
                }
                () = changed(&mut recheck) => {
                    let soon = lifecycle::now() + again(*recheck.borrow_and_update(), fastrand::f64());
                    clock.check = clock.check.map(|at| at.min(soon));
                }
                () = sleep_until_some(clock.close) => {
                    clock.close = None;
                    if self.shared.close(&self.key, self.id) { return }
                }
                () = sleep_until_some(clock.check) => {
                    clock.check = None;
                    exam = case.service().map(|service| self.exam(service.clone()));
                    clock.patience = exam.is_some().then(|| lifecycle::now() + PATIENCE);
                }
                () = sleep_until_some(clock.patience) => {
                    clock.patience = None;
                    if let Some(service) = case.service().cloned() {
                        case.unanswered(&service, self.past(&service));
                    }
                }
                (service, right) = outcome(&mut exam) => {
                    (exam, clock.patience) = (None, None);
                    self.tell(&right, &mut trouble);
                    let (right, past) = (right.ok(), self.past(&service));
                    let next = case.checked(&service, right, past, *recheck.borrow(), fastrand::f64());
                    self.remember(&service, right, case.standing());
                    clock.check = next.map(|after| lifecycle::now() + after);
                }
            }
            // What is offered was built from a catalog that is here by now: a proxy that is registered for another
            // service must not be offered to a token that passed for the one before.
            if case.concerns(self.subject_now()) {
                (exam, clock) = (None, clock.check_now());
            }
            lent.lend(case.standing());
            ways.pass_on(case.standing());
        }
    }

    fn subject_now(&self) -> Subject {
        Subject::of(&self.shared.catalog.borrow(), &self.key.0)
    }

    fn exam(&self, service: ServiceName) -> Exam<'_> {
        Box::pin(async move {
            let right = self.shared.examiner.examine(&self.token, &service).await;
            (service, right)
        })
    }

    /// What is remembered of the token.
    fn past(&self, service: &ServiceName) -> Past {
        let (memory, mark) = (&self.shared.memory, &self.key.1);
        match () {
            () if memory.vouches(mark, service) => Past::Passed,
            () if memory.knows(mark) => Past::Elsewhere,
            () => Past::Unknown,
        }
    }

    /// Remembers what Consul said.
    fn remember(&self, service: &ServiceName, right: Option<Right>, standing: &Standing) {
        let (memory, mark) = (&self.shared.memory, &self.key.1);
        match (right, standing) {
            (Some(Right::Write), _) => memory.pass(mark, service),
            (Some(Right::Lacking), Standing::Denied { .. }) => memory.strike(mark, service),
            (Some(Right::NoSuchToken), Standing::Denied { .. }) => memory.forget(mark),
            _ => {}
        }
    }

    /// Logs what a check came to, once.
    fn tell(&self, right: &Result<Right, String>, trouble: &mut Option<String>) {
        let proxy = &self.key.0;
        match right {
            Ok(right) => {
                if trouble.take().is_some() {
                    info!(%proxy, "Consul checks tokens again");
                }
                debug!(%proxy, ?right, "token checked");
            }
            Err(error) if trouble.as_ref() == Some(error) => {}
            Err(error) => {
                warn!(%proxy, %error, "token not checked; what passed stays so or, if that was of late, passes again; all else waits");
                *trouble = Some(error.clone());
            }
        }
    }
}

/// A check under way: of the right to a service.
type Exam<'a> = BoxFuture<'a, (ServiceName, Result<Right, String>)>;

/// The outcome of a check, if one is under way. Cancel-safe.
async fn outcome(exam: &mut Option<Exam<'_>>) -> (ServiceName, Result<Right, String>) {
    match exam {
        Some(exam) => exam.await,
        None => std::future::pending().await,
    }
}

impl Ways {
    /// Whether there is nothing behind the gate, or nobody may pass.
    fn is_refused(&self) -> bool {
        self.refused.borrow().is_some() || matches!(*self.source.borrow(), Offer::Refused { .. })
    }

    fn pass_on(&mut self, standing: &Standing) {
        let is_refused = matches!(standing, Standing::Denied { .. });
        self.refused.send_if_modified(|at| {
            let was_refused = at.is_some();
            *at = if is_refused { at.or_else(|| Some(lifecycle::now())) } else { None };
            was_refused != is_refused
        });
        let next = offered(standing, &self.source.borrow_and_update());
        self.offers.send_if_modified(|offer| {
            let is_new = !is_same(offer, &next);
            if is_new {
                *offer = next;
            }
            is_new
        });
    }
}

/// The token lent for the leaf of the service it passed for; taken back when it passes no more, or with the guard.
struct Lent<'a> {
    guard: &'a Guard,
    ticket: Ticket,
}

impl Lent<'_> {
    fn lend(&mut self, standing: &Standing) {
        let ticket = match standing {
            Standing::Passed(ticket) => ticket,
            Standing::Waiting | Standing::Denied { .. } => &Ticket::Nothing,
        };
        if self.ticket == *ticket {
            return;
        }
        self.take_back();
        let Guard { shared, id, token, .. } = self.guard;
        match ticket {
            Ticket::Nothing => {}
            Ticket::Agent(service) => shared.leaf_tokens.pass(service, *id, Credential::Own),
            Ticket::Token(service) => {
                shared.leaf_tokens.pass(service, *id, Credential::Proxy(token.clone()));
            }
        }
        self.ticket = ticket.clone();
    }

    fn take_back(&mut self) {
        if let Ticket::Agent(service) | Ticket::Token(service) = &self.ticket {
            self.guard.shared.leaf_tokens.withdraw(service, self.guard.id);
        }
        self.ticket = Ticket::Nothing;
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// A change of the setting. Once its owner is gone there is none any more.
async fn changed(recheck: &mut watch::Receiver<Duration>) {
    if recheck.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
