//! The shell of one topic: asks, tells the state machine what came of it, reports what changed. Chooses nothing.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    time::Instant,
};

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::{
        acl::leaf::{Credential, Key, LeafTokens},
        census::Mark,
        client::{Client, ClientError, Reply},
        fallback::agent_facts,
        guide::{Follower, Guides},
        index::{Ask, Cursor, Event, Fault, Poll},
        metrics::{ConsulMetrics, RequestLabels},
        sight::{About, Doubt, Sights},
        topic::{self, Outcome, Question},
    },
    lifecycle,
    model::{
        catalog::{Answer, Heard, Topic},
        name::Datacenter,
        note::Note,
    },
};

/// Polls at once over HTTPS. Consul's HTTP/2 allows 250 streams on the one connection, and a request beyond them would
/// wait unseen behind long polls; should only HTTP/1.1 be spoken, it is below Consul's 200 connections.
const HTTPS_POLLS: usize = 180;
/// How long a poll may hold a connection while more polls want one than connections are there. With `t` polls and
/// `c` connections a change is then seen after at most about `t / c` times this.
const TURN: Duration = Duration::from_secs(1);
/// The same while more than half of the connections are taken, so that they come free soon when polls are added.
/// Polls are not cut short for that: Consul 1.8 counts a cancelled poll's connection until its wait is over
/// (hashicorp/consul#8524).
const TURN_HALF_FULL: Duration = Duration::from_secs(5);

/// What a poller tells the owner of the catalog.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) topic: Topic,
    pub(crate) news: News,
}

/// What became of a topic.
#[derive(Debug)]
pub(crate) enum News {
    Heard(Heard),
    Lost(Silence, Arc<str>),
}

/// What kind of silence a topic is lost in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Consul, or a part of it, does not answer.
    Away,
    /// Consul says no, or nobody may ask: it is no matter of an outage.
    Told,
}

/// What all pollers share.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) client: Client,
    pub(crate) metrics: ConsulMetrics,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) turns: Turns,
    pub(crate) leaf_tokens: LeafTokens,
    pub(crate) guides: Guides,
    pub(crate) sights: Sights,
    /// The agent's own datacenter, once it is known.
    pub(crate) local: Arc<OnceLock<Datacenter>>,
}

/// Connections (over HTTP/2: streams) are few: polls take turns, first come first served.
#[derive(Clone)]
pub(crate) struct Turns {
    connections: Arc<Semaphore>,
    seats: Arc<Semaphore>,
    limit: usize,
    polls: Arc<AtomicUsize>,
}

/// A connection for somebody's own, as long as it is held.
pub(crate) struct Seat {
    _seat: OwnedSemaphorePermit,
    _connection: OwnedSemaphorePermit,
}

impl Turns {
    /// As many as this Consul bears.
    pub(crate) fn of(settings: &ConsulSettings) -> Self {
        Self::new(match settings.address {
            ConsulAddress::Https { .. } => HTTPS_POLLS,
            ConsulAddress::Http { .. } | ConsulAddress::Unix { .. } => settings.max_connections,
        })
    }

    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            connections: Arc::new(Semaphore::new(limit)),
            // The other half stays with those who take turns.
            seats: Arc::new(Semaphore::new(limit / 2)),
            limit,
            polls: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// A connection that takes no turns, once one is free; nothing if too many are given away so.
    pub(crate) async fn seat(&self) -> Option<Seat> {
        let seat = self.seats.clone().try_acquire_owned().ok()?;
        let connection = self.connections.clone().acquire_owned().await.ok()?;
        Some(Seat { _seat: seat, _connection: connection })
    }

    /// A turn, in which one question is asked.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.connections.acquire().await.ok()
    }

    /// Says how many polls want to wait on Consul, but for those that a census tells when to ask.
    pub(crate) fn set_polls(&self, polls: usize) {
        self.polls.store(polls, Ordering::Relaxed);
    }

    /// How many may at once.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How long Consul may hold a request that it could hold for `wait`; `more` polls want to wait than were said.
    fn wait(&self, wait: Duration, more: usize) -> Duration {
        match self.polls.load(Ordering::Relaxed) + more {
            polls if polls > self.limit => wait.min(TURN),
            polls if polls > self.limit / 2 => wait.min(TURN_HALF_FULL),
            _ => wait,
        }
    }
}

/// Follows `topic` until it is aborted or nobody takes its reports. `kept` is what is remembered of an earlier time.
pub(crate) async fn follow(desk: Desk, topic: Topic, kept: Option<Arc<Answer>>) {
    let question = topic::question(&topic);
    let started = lifecycle::now();
    let mut poll = Poll::new(question.follow);
    let mut last = Last { heard: None, lost: None };
    let mut is_told = false;
    let mut is_confirmed = false;
    let mut follower = Follower::new(&desk.guides, &topic);
    let mut ask = poll.first(question.wait);
    let mut key = desk.leaf_tokens.key(&topic);
    loop {
        let answered = match key.held().cloned() {
            None => keyless(&topic, &last, &mut key).await,
            Some(credential) => tokio::select! {
                answered = desk.answer(&question, &topic, &mut ask, &credential, &mut follower, &mut is_told) => {
                    Some(answered)
                }
                () = key.changed() => None,
            },
        };
        let answered =
            answered.filter(|(answered, _)| !(is_denied(answered) && desk.leaf_tokens.refused(&mut key)));
        let Some((answered, mark)) = answered else {
            // Another token, another answer: what was waited on says nothing of it.
            poll = Poll::new(question.follow);
            ask = poll.first(question.wait);
            continue;
        };
        if poll.doubts(answered.1, &ask) && !matches!(answered.0, Outcome::Lost(..)) {
            ask = poll.again(question.wait);
            continue;
        }
        let answered = match desk.doubt(&topic, &answered.0, last.answer().or(kept.as_deref())).await {
            None => answered,
            // What hid the list may have ended just before that look: it is asked for between two.
            Some(Ok(())) if !std::mem::replace(&mut is_confirmed, true) => {
                ask = poll.again(question.wait);
                continue;
            }
            Some(Ok(())) => answered,
            Some(Err((fault, reason))) => (Outcome::Lost(fault, reason), None, None),
        };
        is_confirmed = false;
        let (event, news) = digest(&poll, answered, &mut last);
        desk.count(topic::kind(&topic), &event);
        follower.asked(mark, &event, fastrand::f64());
        if let Some(news) = news
            && desk.reports.send(Report { topic: topic.clone(), news }).await.is_err()
        {
            return;
        }
        ask = poll.next(&event, started.elapsed(), fastrand::f64(), question.wait);
    }
}

/// Nobody may ask. That is told when there was an answer before, and then waited out; gives nothing once somebody may.
async fn keyless(topic: &Topic, last: &Last, key: &mut Key) -> Option<(Answered, Option<Mark>)> {
    if last.heard.is_some() && last.lost.is_none() {
        let reason = format!("{topic}: no proxy is connected whose token has service:write on it");
        return Some(((Outcome::Lost(Fault::Denied, reason.into()), None, None), None));
    }
    key.changed().await;
    None
}

/// What came of a request, with the index and the hash to wait on.
type Answered = (Outcome, Option<u64>, Option<String>);

fn is_denied((outcome, ..): &Answered) -> bool {
    matches!(outcome, Outcome::Lost(Fault::Denied, _))
}

/// What was last reported.
struct Last {
    heard: Option<Heard>,
    lost: Option<Arc<str>>,
}

impl Last {
    fn answer(&self) -> Option<&Answer> {
        self.heard.as_ref().map(|heard| &*heard.answer)
    }
}

/// The event for the state machine, and what is news to the catalog's owner.
fn digest(poll: &Poll, (outcome, index, hash): Answered, last: &mut Last) -> (Event, Option<News>) {
    match outcome {
        Outcome::Heard(answer, notes) => {
            let (changed, news) = hear(answer, notes, last);
            (Event::Reply { index, hash, changed }, news)
        }
        Outcome::Absent(answer) => (Event::Absent, hear(answer, Vec::new(), last).1),
        Outcome::Lost(fault, reason) => {
            let is_harmless = matches!(fault, Fault::Cut(after) if poll.is_first_timeout_cut(after));
            let is_news = !is_harmless && last.lost.as_ref() != Some(&reason);
            let news = is_news.then(|| {
                last.lost = Some(reason.clone());
                let silence = if fault == Fault::Denied { Silence::Told } else { Silence::Away };
                News::Lost(silence, reason)
            });
            (Event::Failed(fault), news)
        }
    }
}

fn hear(answer: Answer, notes: Vec<Note>, known: &mut Last) -> (bool, Option<News>) {
    let is_same_answer = known.heard.as_ref().is_some_and(|heard| *heard.answer == answer);
    let was_lost = known.lost.take().is_some();
    let has_same_notes = known.heard.as_ref().is_some_and(|heard| *heard.notes == *notes);
    if is_same_answer && has_same_notes && !was_lost {
        return (false, None);
    }
    let answer = match &known.heard {
        Some(before) if is_same_answer => before.answer.clone(),
        _ => Arc::new(answer),
    };
    let heard = Heard { answer, notes: notes.into(), stale: None };
    known.heard = Some(heard.clone());
    (!is_same_answer, Some(News::Heard(heard)))
}

impl Desk {
    /// The answer to `ask`, after its pause and once there is reason to ask; with the mark that was the reason.
    async fn answer(
        &self,
        question: &Question,
        topic: &Topic,
        ask: &mut Ask,
        credential: &Credential,
        follower: &mut Follower<'_>,
        is_told: &mut bool,
    ) -> (Answered, Option<Mark>) {
        tokio::time::sleep(ask.pause).await;
        let mark = follower.due(ask).await;
        if mark.is_some() {
            *ask = ask.clone().at_once();
        }
        (self.ask(question, topic, ask, credential, is_told).await, mark)
    }

    /// One question. `is_told` is whether Consul itself ever answered: what
    /// is guessed of the agent never replaces what it told.
    async fn ask(
        &self,
        question: &Question,
        topic: &Topic,
        ask: &Ask,
        credential: &Credential,
        is_told: &mut bool,
    ) -> Answered {
        match self.take_turn(question, ask, credential).await {
            Ok(reply) => {
                let mut outcome = topic::outcome(topic, &reply);
                *is_told |= !matches!(outcome, Outcome::Lost(..));
                if *topic == Topic::Agent
                    && !*is_told
                    && matches!(outcome, Outcome::Lost(Fault::Denied, _))
                    && let Some((facts, notes)) = agent_facts(&self.client).await
                {
                    outcome = Outcome::Heard(Answer::Agent(facts), notes);
                }
                (outcome, reply.index, reply.content_hash)
            }
            Err((error, after)) => (topic::unanswered(topic, &error, after, self.local.get()), None, None),
        }
    }

    /// Whether an empty list is the truth, where there was none before; none for other answers.
    async fn doubt(
        &self,
        topic: &Topic,
        outcome: &Outcome,
        before: Option<&Answer>,
    ) -> Option<Result<(), Doubt>> {
        let Outcome::Heard(answer, _) = outcome else { return None };
        if !answer.is_empty_list() || before.is_some_and(Answer::is_empty_list) {
            return None;
        }
        let about =
            About { client: &self.client, turns: &self.turns, topic, before, local: self.local.get() };
        let confirmed = self.sights.confirm(&about, lifecycle::now()).await;
        let told = |(fault, reason): Doubt| {
            (fault, Arc::from(format!("{topic}: the list is empty, which is not believed: {reason}")))
        };
        Some(confirmed.map_err(told))
    }

    /// One exchange within a turn, since connections are few. How long Consul may hold it is decided when the turn
    /// has come: how many wait may have changed by then.
    pub(crate) async fn take_turn(
        &self,
        question: &Question,
        ask: &Ask,
        credential: &Credential,
    ) -> Result<Reply, (ClientError, Duration)> {
        let _turn = self.turns.turn().await;
        let wait = self.turns.wait(ask.wait, self.guides.unguided());
        self.exchange(question, &ask.clone().held_for(wait), credential).await
    }

    /// One exchange, at once; an error comes with the time since it was sent.
    pub(crate) async fn exchange(
        &self,
        question: &Question,
        ask: &Ask,
        credential: &Credential,
    ) -> Result<Reply, (ClientError, Duration)> {
        let mut query: Vec<(&str, String)> = question.query.clone();
        match &ask.cursor {
            Cursor::Now => {}
            Cursor::Index(index) => query.push(("index", index.to_string())),
            Cursor::Hash(hash) => query.push(("hash", hash.clone())),
        }
        if ask.cursor != Cursor::Now {
            query.push(("wait", format!("{}ms", ask.wait.as_millis())));
        }
        if ask.is_consistent {
            query.push(("consistent", String::new()));
        }
        let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let sent: Instant = lifecycle::now();
        let token = match credential {
            Credential::Own => None,
            Credential::Proxy(token) => Some(token),
        };
        let exchange = self.client.ask_as(
            token,
            question.method.clone(),
            &question.path,
            &query,
            question.body.clone(),
            ask.deadline,
        );
        exchange.await.map_err(|error| (error, sent.elapsed()))
    }

    /// Counts a request about what is called `kind`.
    pub(crate) fn count(&self, kind: &'static str, event: &Event) {
        let outcome = match event {
            Event::Reply { changed: true, .. } => "changed",
            Event::Reply { .. } | Event::Absent => "same",
            Event::Failed(_) => "failed",
        };
        self.metrics.requests.get_or_create(&RequestLabels { topic: kind, outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consul::fake::{Fake, handler, reply};

    #[tokio::test]
    async fn a_guess_never_replaces_what_the_agent_told() {
        let asked = AtomicUsize::new(0);
        let fake = Fake::tcp(
            200,
            handler(move |question| {
                let is_agent = question.path == "/v1/agent/self";
                let tells = is_agent && asked.fetch_add(usize::from(is_agent), Ordering::SeqCst) == 1;
                async move {
                    match question.path.as_str() {
                        _ if tells => reply(200, 0, r#"{"Config":{"Datacenter":"dc1","NodeName":"vm1"}}"#),
                        _ if is_agent => reply(403, 0, "Permission denied"),
                        "/v1/agent/services" => reply(200, 0, r#"{"web":{"Service":"web"}}"#),
                        _ => {
                            let chain = r#"{"ServiceName":"web","Datacenter":"dc1","StartNode":"r"}"#;
                            reply(200, 4, format!(r#"{{"Chain":{chain}}}"#))
                        }
                    }
                }
            }),
        )
        .await;
        let desk = Desk {
            client: Client::new(fake.settings.clone()).unwrap(),
            metrics: ConsulMetrics::default(),
            reports: mpsc::channel(1).0,
            turns: Turns::new(4),
            leaf_tokens: LeafTokens::own(),
            guides: Guides::new(),
            sights: Sights::default(),
            local: Arc::default(),
        };
        let question = topic::question(&Topic::Agent);
        let ask = Poll::new(question.follow).first(question.wait);
        let mut is_told = false;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(
                match desk.ask(&question, &Topic::Agent, &ask, &Credential::Own, &mut is_told).await.0 {
                    Outcome::Heard(Answer::Agent(facts), _) => facts.node.to_string(),
                    Outcome::Lost(Fault::Denied, _) => "denied".to_owned(),
                    other => panic!("{other:?}"),
                },
            );
        }
        assert_eq!(nodes, ["unknown", "vm1", "denied"]);
    }
}
