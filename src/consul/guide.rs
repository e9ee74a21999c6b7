//! One watch for many topics: where a datacenter's topics are many, a census of it tells each of their pollers when to
//! ask. The shell of [`crate::consul::census`]: it asks, publishes the marks, and lets pollers wait for theirs.
//!
//! Without a census (few topics, or Consul does not answer that question) every poller waits on Consul by itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    consul::{
        acl::leaf::Credential,
        census::{self, Census, Mark},
        client::{ClientError, MAX_BODY_BYTES, Reply},
        index::{self, Ask, Bucket, Cursor, Event, Fault, Follow, Poll},
        poller::Desk,
        topic,
    },
    lifecycle,
    model::{catalog::Topic, name::Datacenter},
};

/// Censuses are paced by their length. Of 1,000 instances (0.6 MB) one costs Consul 9 ms, so a datacenter that never
/// rests costs it about a seventh of a core. What comes after quiet is seen at once.
const LOCAL_PACE: Pace = Pace { burst_bytes: 20_000_000.0, bytes_per_s: 10_000_000.0 };
/// From another datacenter they come over the link that the services share.
const REMOTE_PACE: Pace = Pace { burst_bytes: 5_000_000.0, bytes_per_s: 1_000_000.0 };
/// The first answer after its mark changed may come from a server that lags behind; it is asked for once more after
/// this long.
const LAG: Duration = Duration::from_secs(1);
/// Should a server lag even longer, no mark will ever tell: each topic is asked for again at least this often. Of 1,000
/// topics this makes less than ten requests a second.
const QUIET: Duration = Duration::from_secs(240);
/// What no mark tells is looked for at this pace.
const BLIND: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
struct Pace {
    burst_bytes: f64,
    bytes_per_s: f64,
}

/// What the censuses say, by datacenter. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Guides(watch::Sender<Guided>);

#[derive(Debug, Default)]
struct Guided {
    /// The last census that began.
    last: Turn,
    by_dc: BTreeMap<Datacenter, Guidance>,
}

/// Which census it is: one that has ended may still have something to say, and is not heard.
pub(crate) type Turn = u64;

#[derive(Debug)]
struct Guidance {
    turn: Turn,
    guide: Guide,
    /// How many topics follow it.
    topics: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Guide {
    /// Asked for the first time.
    Awaited,
    /// Last answered so.
    Known(Arc<Census>),
    /// Not answered: pollers wait by themselves.
    Lost,
}

/// What a poller is told of its topic.
enum Told {
    Alone,
    Wait,
    Marked { mark: Mark, is_blind: bool },
}

impl Guides {
    /// No datacenter has a census yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Guided::default()))
    }

    /// A census of `dc` begins: pollers wait for its first answer.
    pub(crate) fn begin(&self, dc: &Datacenter) -> Turn {
        let mut turn = 0;
        self.0.send_modify(|guided| {
            guided.last += 1;
            turn = guided.last;
            guided.by_dc.insert(dc.clone(), Guidance { turn, guide: Guide::Awaited, topics: 0 });
        });
        turn
    }

    /// Pollers of `dc` are on their own again.
    pub(crate) fn end(&self, dc: &Datacenter) {
        self.0.send_if_modified(|guided| guided.by_dc.remove(dc).is_some());
    }

    /// Says how many topics there are of each datacenter that has a census.
    pub(crate) fn count(&self, topics: &BTreeMap<&Datacenter, usize>) {
        self.0.send_if_modified(|guided| {
            for (dc, guidance) in &mut guided.by_dc {
                guidance.topics = topics.get(dc).copied().unwrap_or_default();
            }
            // No poller has anything to do for that.
            false
        });
    }

    /// How many topics have a census that tells nothing, so that they may all want to wait on Consul.
    pub(crate) fn unguided(&self) -> usize {
        let is_told = |guidance: &&Guidance| matches!(guidance.guide, Guide::Known(_));
        let guided = self.0.borrow();
        guided.by_dc.values().filter(|guidance| !is_told(guidance)).map(|guidance| guidance.topics).sum()
    }

    fn tell(&self, dc: &Datacenter, turn: Turn, guide: Guide) {
        self.0.send_if_modified(|guided| match guided.by_dc.get_mut(dc) {
            Some(known) if known.turn == turn && known.guide != guide => {
                known.guide = guide;
                true
            }
            _ => false,
        });
    }
}

/// The datacenters that have a census when each has so many topics that wait on Consul: more than a quarter of the
/// connections, and then until it is less than an eighth.
pub(crate) fn chosen<'a>(
    topics: impl Iterator<Item = &'a Topic>,
    is_guided: impl Fn(&Datacenter) -> bool,
    connections: usize,
) -> Vec<Datacenter> {
    let mut counts: BTreeMap<&Datacenter, usize> = BTreeMap::new();
    for dc in topics.filter_map(census::datacenter) {
        *counts.entry(dc).or_default() += 1;
    }
    let is_many =
        |(dc, count): &(&Datacenter, usize)| *count > connections / if is_guided(dc) { 8 } else { 4 };
    counts.into_iter().filter(is_many).map(|(dc, _)| dc.clone()).collect()
}

/// Takes the census of `dc` that began as `turn` again and again, until it is aborted.
pub(crate) async fn lead(desk: Desk, dc: Datacenter, turn: Turn) {
    let question = topic::census(&dc);
    let started = lifecycle::now();
    let mut poll = Poll::new(Follow::Index);
    let mut known = Guide::Awaited;
    let pace = if desk.local.get() == Some(&dc) { LOCAL_PACE } else { REMOTE_PACE };
    let mut bytes_left = Bucket::new(pace.burst_bytes, pace.bytes_per_s);
    // Where many topics depend on one answer it does not stand in line with them.
    let seat = desk.turns.seat().await;
    let mut ask = poll.first(question.wait);
    let mut bytes = 0;
    loop {
        tokio::time::sleep(ask.pause).await;
        let answered = match seat {
            Some(_) => desk.exchange(&question, &ask, &Credential::Own).await,
            None => desk.take_turn(&question, &ask, &Credential::Own).await,
        };
        bytes = received(&answered, bytes);
        let (event, guide) = match answered {
            Ok(reply) => match topic::counted(&dc, &reply) {
                Ok(_) if poll.doubts(reply.index, &ask) => {
                    ask = poll.again(question.wait);
                    continue;
                }
                Ok(census) => {
                    let guide = Guide::Known(Arc::new(census));
                    let event = Event::Reply { index: reply.index, hash: None, changed: guide != known };
                    (event, guide)
                }
                Err((fault, reason)) => (lost(&dc, &known, &reason, fault), Guide::Lost),
            },
            Err((error, after)) => {
                let (fault, reason) = topic::uncounted(&dc, &error, after, desk.local.get());
                (lost(&dc, &known, &reason, fault), Guide::Lost)
            }
        };
        desk.count(topic::CENSUS, &event);
        desk.guides.tell(&dc, turn, guide.clone());
        known = guide;
        ask = poll.next(&event, started.elapsed(), fastrand::f64(), question.wait);
        ask.pause = ask.pause.max(bytes_left.pay(bytes as f64, started.elapsed()));
    }
}

/// How much came over the link, whatever it was good for. Of an answer that broke off it is not known: it counts for as
/// much as the `last` one.
fn received(answered: &Result<Reply, (ClientError, Duration)>, last: usize) -> usize {
    match answered {
        Ok(reply) => reply.body.len(),
        Err((ClientError::TooLong { .. }, _)) => MAX_BODY_BYTES,
        Err((ClientError::Cut { .. } | ClientError::Deadline { .. }, _)) => last,
        Err(_) => 0,
    }
}

fn lost(dc: &Datacenter, known: &Guide, reason: &str, fault: Fault) -> Event {
    if *known != Guide::Lost {
        tracing::warn!(%dc, error = %reason, "no census of the datacenter: each of its topics is watched by itself");
    }
    Event::Failed(fault)
}

/// A poller's side: waits until there is reason to ask.
pub(crate) struct Follower<'a> {
    topic: &'a Topic,
    guided: watch::Receiver<Guided>,
    /// The mark before the last answer.
    seen: Option<Mark>,
    patience: Option<Duration>,
}

impl<'a> Follower<'a> {
    /// Of a topic that was never asked.
    pub(crate) fn new(guides: &Guides, topic: &'a Topic) -> Self {
        Self { topic, guided: guides.0.subscribe(), seen: None, patience: None }
    }

    /// Waits until the topic should be asked. Gives its mark if a census tells: then Consul need not hold the request.
    pub(crate) async fn due(&mut self, ask: &Ask) -> Option<Mark> {
        let (topic, seen) = (self.topic, self.seen);
        let is_due = |guided: &Guided| match told(guided, topic) {
            Told::Alone => true,
            Told::Wait => false,
            Told::Marked { mark, .. } => ask.cursor == Cursor::Now || seen != Some(mark),
        };
        let due = async { drop(self.guided.wait_for(is_due).await) };
        match self.patience {
            Some(patience) => drop(tokio::time::timeout(patience, due).await),
            None => due.await,
        }
        match told(&self.guided.borrow(), topic) {
            Told::Marked { mark, .. } => Some(mark),
            Told::Alone | Told::Wait => None,
        }
    }

    /// Says what came of the request that `mark` gave reason for. `jitter` is a random number from 0 up to 1.
    pub(crate) fn asked(&mut self, mark: Option<Mark>, event: &Event, jitter: f64) {
        if !matches!(event, Event::Reply { .. }) {
            (self.seen, self.patience) = (None, None);
            return;
        }
        let is_blind = matches!(told(&self.guided.borrow(), self.topic), Told::Marked { is_blind: true, .. });
        self.patience = Some(match mark {
            mark if mark != self.seen => LAG,
            _ if is_blind => BLIND,
            _ => index::spread(QUIET, jitter),
        });
        self.seen = mark;
    }
}

fn told(guided: &Guided, topic: &Topic) -> Told {
    match census::datacenter(topic).and_then(|dc| guided.by_dc.get(dc)).map(|guidance| &guidance.guide) {
        None | Some(Guide::Lost) => Told::Alone,
        Some(Guide::Awaited) => Told::Wait,
        Some(Guide::Known(census)) => Told::Marked { mark: census.mark(topic), is_blind: census.is_blind() },
    }
}

#[cfg(test)]
mod tests;
