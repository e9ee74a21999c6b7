//! Load and length: changes without end, clients that come and vanish, and all of them at once.

use std::{fs, path::Path, time::Duration};

use causeway::{
    lifecycle::{self, pace::Pace},
    xds::{resource::Kind, server::Limits},
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    Found,
    clients::{Clients, Moments, Nodes, Said, clock_us},
    figures::{cpu_us, rss_kib},
    server::{Served, Sidecar},
    visitors::come_and_go,
};

/// Whose endpoints change.
const SERVICE: usize = 0;
/// Clients that come and go before memory is looked at first: what the first of all cost is not what each costs.
const WARM_UP: usize = 5_000;
/// Between two changes of the one that was there before the herd.
const BEAT: Duration = Duration::from_millis(20);
/// How long what vanished may take to be gone.
const GONE: Duration = Duration::from_secs(60);

/// Changes at a steady rate, in rounds at whose ends every client has the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Churn {
    pub(crate) streams: usize,
    pub(crate) per_second: usize,
    /// Of a round.
    pub(crate) seconds: usize,
    pub(crate) rounds: usize,
    /// Clients that are refused or vanish meanwhile, in each round.
    pub(crate) passing: usize,
}

/// What a round of changes was like.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// How long clients lacked a change before they got it or a later one, of all responses.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
    /// Snapshots made: changes that come while one is made go into one.
    pub(crate) published: usize,
    pub(crate) responses: usize,
    pub(crate) cpu_us: u64,
    /// At its end.
    pub(crate) traces: Traces,
}

pub(crate) fn churn(socket: &Path, sidecar: &mut Sidecar, churn: Churn, runtime: &Handle) -> Found {
    let served = Served::start(socket, sidecar);
    let mut orders = served.orders(socket, churn.streams, false);
    let watched = sidecar.snapshot.of_kind(Kind::Endpoints).map(|entry| entry.key.name.clone());
    orders.watched = watched.into_iter().find(|name| name.starts_with(&crate::catalog::name(SERVICE)));
    assert!(orders.watched.is_some(), "endpoints are named after their service");
    let mut clients = Clients::start(&orders);
    clients.ready();
    served.settle();
    let (mut rounds, mut pace) = (Vec::<Round>::new(), Pace::default());
    for number in 0..churn.rounds {
        let cpu_before = cpu_us();
        let path = socket.to_owned();
        let mut passing =
            lifecycle::spawn("bench.passing", async move { come_and_go(&path, churn.passing).await });
        let first = number * churn.per_second * churn.seconds;
        let (changed_us, published) = change(&served, sidecar, churn, first, &mut pace, runtime);
        let Said::Stale { p50, p99, max, responses, current } = clients.stale(Moments { first, changed_us })
        else {
            panic!("the clients tell how stale they were")
        };
        assert_eq!(current, churn.streams, "every client has the last change");
        // Those that vanish leave responses that nobody acknowledges: what is told of the others is that they have the last change.
        runtime.block_on(passing.join()).unwrap();
        let cpu_us = cpu_us() - cpu_before;
        let traces = runtime.block_on(Traces::settled(rounds.first().map(|round| &round.traces)));
        rounds.push(Round { p50, p99, max, published, responses, cpu_us, traces });
    }
    Found::Churn(rounds)
}

/// One round's changes, published as the agent publishes them: what comes while one is built goes out together. Gives
/// their moments, and how many snapshots they made.
fn change(
    served: &Served,
    sidecar: &mut Sidecar,
    churn: Churn,
    first: usize,
    pace: &mut Pace,
    runtime: &Handle,
) -> (Vec<u64>, usize) {
    let (mut changed_us, mut published) = (Vec::new(), 0);
    let (start, start_us, total) = (lifecycle::now(), clock_us(), churn.per_second * churn.seconds);
    while changed_us.len() < total {
        let due = usize::try_from(start.elapsed().as_micros()).unwrap() * churn.per_second / 1_000_000 + 1;
        if due <= changed_us.len() {
            let next = Duration::from_secs_f64(changed_us.len() as f64 / churn.per_second as f64);
            std::thread::sleep(next.saturating_sub(start.elapsed()));
            continue;
        }
        // From when it was due: what waits for its turn is late already.
        let when = |number: usize| start_us + u64::try_from(number * 1_000_000 / churn.per_second).unwrap();
        changed_us.extend((changed_us.len()..due.min(total)).map(when));
        let from = lifecycle::now();
        let snapshot = sidecar.change_of(SERVICE, first + changed_us.len() - 1);
        served.source.offer(&snapshot);
        published += 1;
        pace.worked(from, lifecycle::now());
        runtime.block_on(pace.rested());
    }
    (changed_us, published)
}

/// Clients that are refused or vanish.
pub(crate) async fn vanish(socket: &Path, sidecar: &Sidecar, connects: usize) -> Found {
    let limits = Limits { max_streams: usize::MAX, new_streams_per_second: u32::MAX, tcp_max_age: None };
    let _served = Served::within(limits, socket, sidecar);
    come_and_go(socket, WARM_UP).await;
    let before = Traces::settled(None).await;
    let start = lifecycle::now();
    come_and_go(socket, connects).await;
    let us = u64::try_from(start.elapsed().as_micros()).unwrap();
    let after = Traces::settled(Some(&before)).await;
    Found::Vanish { us, before, after }
}

/// What clients leave behind in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traces {
    pub(crate) kib: u64,
    pub(crate) files: usize,
    pub(crate) tasks: usize,
}

impl Traces {
    fn now() -> Self {
        Self {
            kib: rss_kib(),
            files: fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// When nothing changes any more, or files and tasks are what they were.
    async fn settled(wanted: Option<&Self>) -> Self {
        let until = lifecycle::now() + GONE;
        let mut last = Self::now();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = Self::now();
            let same = |other: &Self| (now.files, now.tasks) == (other.files, other.tasks);
            if same(wanted.unwrap_or(&last)) || lifecycle::now() > until {
                return now;
            }
            last = now;
        }
    }
}

/// Thousands connect at once to an agent that serves one.
pub(crate) fn herd(socket: &Path, sidecar: &mut Sidecar, streams: usize) -> Found {
    let served = Served::within(Limits::default(), socket, sidecar);
    let mut orders = served.orders(socket, 1, false);
    orders.nodes = Nodes::Each("first".to_owned());
    let mut first = Clients::start(&orders);
    first.ready();
    served.settle();
    first.count();
    let mut round = 0;
    let mut push = || {
        std::thread::sleep(BEAT);
        round += 1;
        let snapshot = sidecar.change_of(SERVICE, round);
        let from_us = clock_us();
        served.source.offer_to("first-0", &snapshot);
        (from_us, first.all().saturating_sub(from_us))
    };
    let quiet: Vec<u64> = (0..100).map(|_| push().1).collect();
    let mut herd = Clients::start(&served.orders(socket, streams, false));
    let (told, ready) = std::sync::mpsc::sync_channel(1);
    let waiting = std::thread::spawn(move || {
        told.send(herd.ready()).unwrap();
        herd
    });
    let mut pushed = Vec::new();
    let herd = loop {
        pushed.push(push());
        if let Ok(herd) = ready.try_recv() {
            break herd;
        }
    };
    drop(waiting.join().unwrap());
    let is_meanwhile = |(from_us, _): &&(u64, u64)| (herd.from_us..herd.at_us).contains(from_us);
    let meanwhile = pushed.iter().filter(is_meanwhile).map(|(_, us)| *us).collect();
    let us = herd.at_us - herd.from_us;
    Found::Herd { us, quiet, meanwhile }
}
