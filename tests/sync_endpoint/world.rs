//! Two datacenters in one process: a real Consul and an engine in each, and calls from engine to engine.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
    lifecycle::{Stop, StopSource, Task, spawn},
    model::{
        name::Datacenter,
        secret::SecretText,
        sync::{Mode, Position, Prefix, PrefixTable},
    },
    sync::{
        endpoint::{Request, Response},
        engine::{Engine, EngineSettings, Limits, Times, kin::Kin},
        lock::wire::LockDefaults,
        metrics::LockWaits,
        peer::{
            Absent, FOLLOW_QUEUE, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError,
            Peers, Served, Target,
        },
        positions::Positions,
        status::SyncStatus,
        store::consul::ConsulStore,
    },
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::rig::parts::{Consul, PATIENCE, http};

pub(super) const HOME: usize = 0;
pub(super) const REPLICA: usize = 1;

const NAMES: [&str; 2] = ["home", "replica"];

/// Prefixes and their homes.
pub(super) type Prefixes = &'static [(&'static str, usize)];

const PREFIXES: Prefixes = &[("config/", HOME), ("far/", HOME), ("shared/", REPLICA)];

type Host = Engine<ConsulStore, Direct>;

/// One call of another agent.
enum Call {
    Hello(Datacenter, Hello, oneshot::Sender<Result<HelloReply, PeerError>>),
    Forward(Datacenter, Forward, oneshot::Sender<Result<Forwarded, PeerError>>),
    Absent(Datacenter, Absent, oneshot::Sender<Result<(), PeerError>>),
    Follow(Datacenter, FollowStart, watch::Receiver<Position>, mpsc::Sender<Result<FollowItem, PeerError>>),
}

/// Ways from one engine to the other.
#[derive(Clone)]
pub(super) struct Direct {
    own: Datacenter,
    doors: [mpsc::Sender<Call>; 2],
    is_cut: watch::Receiver<bool>,
    is_lossy: watch::Receiver<bool>,
    is_deaf: watch::Receiver<bool>,
}

impl Direct {
    async fn call(&self, to: &Target, call: Call) -> Result<(), PeerError> {
        let name = match to {
            Target::Datacenter(name) => name.as_str(),
            Target::Doer(doer) => doer.address.as_str(),
        };
        let at = NAMES.iter().position(|known| *known == name);
        let nobody = || PeerError::Unreached("nobody is there".into());
        if *self.is_cut.borrow() {
            return Err(PeerError::Unreached("the way is cut".into()));
        }
        self.doors[at.ok_or_else(nobody)?].send(call).await.map_err(|_| nobody())
    }
}

fn lost<E>(_: E) -> PeerError {
    PeerError::Unknown("the way was lost".into())
}

impl Peers for Direct {
    async fn hello(&self, to: &Target, hello: Hello) -> Result<HelloReply, PeerError> {
        let (told, answer) = oneshot::channel();
        self.call(to, Call::Hello(self.own.clone(), hello, told)).await?;
        answer.await.map_err(lost)?
    }

    async fn forward(
        &self,
        to: &Target,
        request: Forward,
        deadline: Duration,
    ) -> Result<Forwarded, PeerError> {
        let (told, answer) = oneshot::channel();
        self.call(to, Call::Forward(self.own.clone(), request, told)).await?;
        let answer = tokio::time::timeout(deadline, answer).await.map_err(lost)?.map_err(lost)?;
        if *self.is_lossy.borrow() { Err(lost(())) } else { answer }
    }

    async fn follow(
        &self,
        to: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        if *self.is_deaf.borrow() {
            return Err(PeerError::Unreached("nothing is followed".into()));
        }
        let (items, coming) = mpsc::channel(FOLLOW_QUEUE);
        self.call(to, Call::Follow(self.own.clone(), start, acks, items)).await?;
        Ok(coming)
    }

    async fn absent(&self, to: &Target, absent: Absent, deadline: Duration) -> Result<(), PeerError> {
        let (told, answer) = oneshot::channel();
        self.call(to, Call::Absent(self.own.clone(), absent, told)).await?;
        tokio::time::timeout(deadline, answer).await.map_err(lost)?.map_err(lost)?
    }
}

/// The other end of the calls. A cut ends what is under way.
async fn answer(
    engine: Host,
    mut calls: mpsc::Receiver<Call>,
    is_cut: watch::Receiver<bool>,
    is_deaf: watch::Receiver<bool>,
) {
    let mut under_way = Vec::new();
    while let Some(call) = calls.recv().await {
        let (engine, mut is_cut, mut is_deaf) = (engine.clone(), is_cut.clone(), is_deaf.clone());
        under_way.push(spawn("test.answer", async move {
            let answering = async {
                match call {
                    Call::Hello(from, hello, told) => {
                        let _ = told.send(engine.hello(&from, hello).await);
                    }
                    Call::Forward(from, request, told) => {
                        let _ = told.send(engine.forward(&from, request).await);
                    }
                    Call::Absent(from, absent, told) => {
                        let _ = told.send(engine.absent(&from, absent).await);
                    }
                    Call::Follow(from, start, acks, items) => {
                        tokio::select! {
                            () = engine.follow(&from, start, acks, items) => {}
                            _ = is_deaf.wait_for(|is_deaf| *is_deaf) => {}
                        }
                    }
                }
            };
            tokio::select! {
                () = answering => {}
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
            }
        }));
    }
}

/// Both datacenters. Dropping it ends them.
pub(super) struct World {
    consuls: Vec<Consul>,
    engines: Vec<Host>,
    is_cut: watch::Sender<bool>,
    is_lossy: watch::Sender<bool>,
    is_deaf: watch::Sender<bool>,
    kin: watch::Sender<Option<Arc<Vec<Kin>>>>,
    _tasks: Vec<Task<()>>,
    _stop: StopSource,
}

impl World {
    /// Starts them with these Consul settings on top, and waits until both serve.
    pub(super) async fn start(more: Value) -> Self {
        Self::start_with(more, [PREFIXES, PREFIXES]).await
    }

    /// The same with prefixes and homes for each of the two.
    pub(super) async fn start_with(more: Value, prefixes: [Prefixes; 2]) -> Self {
        Self::start_as(more, prefixes, [Limits::default().max_value_bytes; 2], Times::default()).await
    }

    /// The same with the largest value that each of them takes.
    pub(super) async fn start_with_limits(max_value_bytes: [usize; 2]) -> Self {
        Self::start_as(json!({}), [PREFIXES, PREFIXES], max_value_bytes, Times::default()).await
    }

    /// The same with these times.
    pub(super) async fn start_with_times(times: Times) -> Self {
        let max_value_bytes = [Limits::default().max_value_bytes; 2];
        Self::start_as(json!({}), [PREFIXES, PREFIXES], max_value_bytes, times).await
    }

    async fn start_as(
        more: Value,
        prefixes: [Prefixes; 2],
        max_value_bytes: [usize; 2],
        times: Times,
    ) -> Self {
        let (source, stop) = Stop::pair();
        let (is_cut, see_cut) = watch::channel(false);
        let (is_lossy, see_lossy) = watch::channel(false);
        let (is_deaf, see_deaf) = watch::channel(false);
        let (kin, see_kin) = watch::channel(Some(Arc::default()));
        let [(first, at_home), (second, at_replica)] = [(); 2].map(|()| mpsc::channel(64));
        let mut calls = [Some(at_home), Some(at_replica)];
        let (mut consuls, mut engines, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
        for (at, name) in NAMES.iter().enumerate() {
            let mut settings = json!({"datacenter": name, "node_name": format!("{name}-1")});
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let consul = Consul::start(Ipv4Addr::new(127, 61, 0, 1), settings);
            let token = more.pointer("/acl/tokens/master").and_then(Value::as_str).map(SecretText::from);
            let settings = ConsulSettings {
                address: ConsulAddress::parse(&consul.address()).unwrap(),
                token,
                ..ConsulSettings::default()
            };
            let store = ConsulStore::new(Client::new(settings).unwrap());
            let doors = [first.clone(), second.clone()];
            let mut settings = engine_settings(at, prefixes[at]);
            settings.limits.max_value_bytes = max_value_bytes[at];
            settings.times = times.clone();
            settings.kin = see_kin.clone();
            let (is_cut, is_lossy, is_deaf) = (see_cut.clone(), see_lossy.clone(), see_deaf.clone());
            let peers = Direct { own: (*name).into(), doors, is_cut, is_lossy, is_deaf };
            let (engine, task) = Engine::start(settings, store, peers, stop.clone());
            let calls = calls[at].take().unwrap();
            let answering = answer(engine.clone(), calls, see_cut.clone(), see_deaf.clone());
            tasks.extend([task, spawn("test.calls", answering)]);
            engines.push(engine);
            consuls.push(consul);
        }
        let world = Self { consuls, engines, is_cut, is_lossy, is_deaf, kin, _tasks: tasks, _stop: source };
        world.until_serving().await;
        world
    }

    async fn until_serving(&self) {
        let serving = async {
            for at in [HOME, REPLICA] {
                loop {
                    let status = self.engines[at].status();
                    let is_ready =
                        status.prefixes.iter().all(|prefix| match (&prefix.as_home, &prefix.as_replica) {
                            (Some(home), _) => home.state == "serving",
                            (_, Some(replica)) => replica.position.is_some() && replica.lag.is_connected,
                            _ => false,
                        });
                    if is_ready {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, serving).await;
        let status = || self.engines.iter().map(Engine::status).collect::<Vec<_>>();
        assert!(in_time.is_ok(), "not serving: {:#?}", status());
    }

    pub(super) async fn ask(&self, at: usize, method: &str, target: &str, body: &str) -> Response {
        self.ask_as(at, None, method, target, body).await
    }

    /// The same with a token.
    pub(super) async fn ask_as(
        &self,
        at: usize,
        token: Option<&str>,
        method: &str,
        target: &str,
        body: &str,
    ) -> Response {
        let headers: Vec<_> = token.map(|token| ("X-Consul-Token", token)).into_iter().collect();
        self.ask_with(at, &headers, method, target, body).await
    }

    /// The same with headers.
    pub(super) async fn ask_with(
        &self,
        at: usize,
        headers: &[(&str, &str)],
        method: &str,
        target: &str,
        body: &str,
    ) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let body = Bytes::from(body.to_owned());
        let request = Request::new(method.parse().unwrap(), target, headers.collect(), body);
        let engine = self.engines[at].clone();
        engine.serve(request).await
    }

    /// What a Consul itself answers.
    pub(super) async fn raw(&self, at: usize, path: &str) -> String {
        let (to, path) = (self.consuls[at].http, path.to_owned());
        tokio::task::spawn_blocking(move || http(to, "GET", &path, "").unwrap().body).await.unwrap()
    }

    pub(super) fn consul(&self, at: usize) -> &Consul {
        &self.consuls[at]
    }

    /// Another agent registers in both datacenters, with these prefixes.
    pub(super) fn meet(&self, node: &str, texts: Prefixes) {
        let prefix = |(text, home): &(&str, usize)| Prefix {
            text: (*text).into(),
            home: NAMES[*home].into(),
            mode: Mode::Journaled,
        };
        let kin = Kin {
            node: node.into(),
            address: "127.0.0.1:1".into(),
            prefixes: texts.iter().map(prefix).collect(),
        };
        self.kin.send_replace(Some(Arc::new(vec![kin])));
    }

    pub(super) fn status(&self, at: usize) -> SyncStatus {
        self.engines[at].status()
    }

    /// Loses the answers to what is passed on from now on, or does not any more. What was asked is carried out.
    pub(super) fn lose_answers(&self, is_lossy: bool) {
        self.is_lossy.send_replace(is_lossy);
    }

    /// Keeps replicas from following their homes, or lets them again. All else passes.
    pub(super) fn deafen(&self, is_deaf: bool) {
        self.is_deaf.send_replace(is_deaf);
    }

    /// Cuts the way between the two, or mends it.
    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

/// Asks again and again, until an answer is what is waited for.
pub(super) async fn until<F: Future<Output = Response>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    is_it: impl Fn(&Response) -> bool,
) -> Response {
    let asking = async {
        loop {
            let response = ask().await;
            if is_it(&response) {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub(super) fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

fn engine_settings(at: usize, texts: Prefixes) -> EngineSettings {
    let mut prefixes = PrefixTable::default();
    for (text, home) in texts {
        prefixes
            .add(Prefix { text: (*text).into(), home: NAMES[*home].into(), mode: Mode::Journaled })
            .unwrap();
    }
    EngineSettings {
        positions: Positions::default(),
        datacenter: NAMES[at].into(),
        datacenters: NAMES.iter().map(Datacenter::from).collect(),
        node: format!("{}-1", NAMES[at]).as_str().into(),
        address: NAMES[at].to_owned(),
        prefixes,
        sessions_home: NAMES[HOME].into(),
        limits: Limits::default(),
        times: Times::default(),
        locks: LockDefaults::default(),
        lock_waits: LockWaits::default(),
        kin: watch::channel(Some(Arc::default())).1,
        seed: 7 + at as u64,
    }
}
