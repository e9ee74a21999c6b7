//! Replication in the agent: engine, peers and registration put together. What fails in it is started again, and never
//! ends the agent, whose other work goes on.

mod door;
mod figures;
mod kin;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

pub(super) use crate::app::sync::{door::Door, figures::figures};
use crate::{
    config::{Config, sync::SyncSettings},
    consul::{
        acl::leaf::{Credential, LeafTokens},
        client::{Client, ClientError},
        watch::Watches,
        wire::{self, WireError},
    },
    lifecycle::{self, Stop, StopSource, Task, TaskFailed},
    model::{
        agent::AgentFacts,
        name::{Datacenter, ServiceName},
    },
    sync::{
        engine::{
            Engine, EngineSettings, Limits, Times,
            kin::{KinSeen, told},
        },
        home::trim::Keep,
        lock::wire::LockDefaults,
        metrics::{LockWaits, SyncMetrics, calls::Metered},
        peer::{
            self,
            facts::{self, PeerSettings},
            grpc::{GrpcPeers, Tcp},
            register::{self, Registered},
            serve,
        },
        positions::Positions,
        replica::snapshot::Guard,
        store::{StoreError, consul::ConsulStore},
    },
};

/// The engine over the real Consul and real peers.
pub(super) type LocalEngine = Engine<ConsulStore, Metered<GrpcPeers>>;

/// Between two starts at least.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// And at most.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// What ran so long had started well.
const HEALTHY: Duration = Duration::from_secs(60);
/// For duties to be given back and the registration to go.
const FAREWELL: Duration = Duration::from_secs(4);
/// A question to the local Consul.
const ASK: Duration = Duration::from_secs(5);
/// Under this number the agent's own token stands for the leaf of the peer service; streams count from 0.
const LEAF_HOLDER: u64 = u64::MAX;

/// Why replication is not running.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(
        "this agent's datacenter is {own}, which is not one of [sync] datacenters; add it, or turn [sync] enabled off"
    )]
    Elsewhere { own: Datacenter },
    #[error("no [sync] sessions_home; name the home of the prefixes with locks")]
    NoSessionsHome,
    #[error("listen for sync agents on {address}: {source}; correct [sync] listen")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("set up the Consul client: {0}")]
    Client(#[from] ClientError),
    #[error("ask Consul for the limit of transactions: {0}")]
    Limit(#[from] StoreError),
    #[error("{0}")]
    Task(#[from] TaskFailed),
    #[error("task {0} ended although nothing asked it to")]
    Ended(&'static str),
}

/// What replication is made from.
#[derive(Clone)]
pub(super) struct Replication {
    pub(super) config: Config,
    pub(super) watches: Watches,
    pub(super) leaf_tokens: LeafTokens,
    /// What this agent saw committed, in earlier runs too.
    pub(super) positions: Positions,
    /// The engine while it runs, for the HTTP interface.
    pub(super) engine: watch::Sender<Option<LocalEngine>>,
    pub(super) metrics: SyncMetrics,
}

impl Replication {
    /// Runs until the stop. Whatever ends before that is started again.
    pub(super) async fn run(self, stop: Stop) {
        let mut rng = fastrand::Rng::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let began = lifecycle::now();
            // A task of its own, so that a panic in it is an end like others.
            let mut run = lifecycle::spawn("sync.run", self.clone().once(stop.clone()));
            let ended = run.join().await;
            self.engine.send_replace(None);
            let error = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => panic.into(),
            };
            if stop.is_set() {
                return;
            }
            if began.elapsed() >= HEALTHY {
                pause = FIRST_PAUSE;
            }
            let rest = pause.mul_f64(0.5 + rng.f64() / 2.0);
            warn!(%error, retry_ms = rest.as_millis(), "replication ended and is started again");
            self.metrics.restarts.inc();
            pause = (pause * 2).min(LAST_PAUSE);
            tokio::select! {
                biased;
                () = stop.wait() => return,
                () = sleep(rest) => {}
            }
        }
    }

    /// One run. It ends in good order by the stop, else by what failed.
    async fn once(self, stop: Stop) -> Result<(), SyncError> {
        let Some(agent) = self.agent_facts(&stop).await else { return Ok(()) };
        let settings = &self.config.sync;
        if !settings.datacenters.contains(&agent.datacenter) {
            return Err(SyncError::Elsewhere { own: agent.datacenter });
        }
        // Its own connections: clients that wait in blocking queries must not keep a commit waiting.
        let client = Client::new(self.config.consul.clone())?;
        let store = ConsulStore::new(client.clone());
        let max_txn_ops = store.max_txn_ops().await?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|source| SyncError::Listen { address: settings.listen, source })?;
        let address = self.advertised(&client).await?;
        let service = ServiceName::from(peer::SERVICE);
        self.leaf_tokens.pass(&service, LEAF_HOLDER, Credential::Own);
        let (source, own_stop) = Stop::pair();
        let (facts, facts_task) = facts::start(
            PeerSettings {
                datacenter: agent.datacenter.clone(),
                datacenters: settings.datacenters.iter().cloned().collect(),
                gateways: settings.gateway_mode,
            },
            self.watches.clone(),
            client.clone(),
            own_stop.clone(),
        );
        let (kin_seen, see_kin) = watch::channel(None);
        let lock_waits = self.metrics.lock_waits.clone();
        let engine_settings = engine_settings(
            settings,
            &agent,
            address,
            max_txn_ops,
            self.positions.clone(),
            lock_waits,
            see_kin,
        )?;
        let own = kin::Own {
            datacenter: agent.datacenter.clone(),
            node: agent.node.clone(),
            prefixes: settings.prefixes.clone(),
        };
        let peers = GrpcPeers::new(facts.clone(), engine_settings.hello(), Tcp);
        self.metrics.calls.start_at_zero(settings.datacenters.iter());
        let peers = Metered::new(peers, agent.datacenter.clone(), self.metrics.calls.clone());
        let (engine, engine_task) = Engine::start(engine_settings, store, peers, own_stop.clone());
        let registered = Registered {
            node: agent.node.clone(),
            address,
            http_address: self.http_address(address.ip()),
            prefixes: settings.prefixes.iter().map(told).collect(),
        };
        let tasks = vec![
            facts_task,
            engine_task,
            lifecycle::spawn("sync.kin", kin::run(own, self.watches.clone(), kin_seen, own_stop.clone())),
            lifecycle::spawn(
                "sync.peer.serve",
                serve::serve(listener, facts, engine.clone(), own_stop.clone()),
            ),
            lifecycle::spawn("sync.peer.register", register::run(registered, client, own_stop)),
        ];
        info!(%address, prefixes = settings.prefixes.iter().count(), "replication started");
        self.engine.send_replace(Some(engine));
        let ended = hold(tasks, source, &stop).await;
        self.leaf_tokens.withdraw(&service, LEAF_HOLDER);
        ended
    }

    /// What the local agent says of itself, once it does; none when the stop comes first.
    async fn agent_facts(&self, stop: &Stop) -> Option<AgentFacts> {
        let mut catalog = self.watches.catalog();
        tokio::select! {
            biased;
            () = stop.wait() => None,
            heard = catalog.wait_for(|catalog| catalog.agent().known().is_some()) => heard.ok()?.agent().known().cloned(),
        }
    }

    /// Where others reach the peer service.
    async fn advertised(&self, client: &Client) -> Result<SocketAddr, SyncError> {
        let settings = &self.config.sync;
        let listen = settings.listen;
        let (address, port) = match settings.advertise {
            Some(advertised) => (advertised.address, advertised.port.unwrap_or(listen.port())),
            None if !listen.ip().is_unspecified() => (listen.ip(), listen.port()),
            None => (node_address(client).await?, listen.port()),
        };
        Ok(SocketAddr::new(address, port))
    }

    /// The HTTP interface as other machines reach it; none where it does not leave this one.
    fn http_address(&self, own: IpAddr) -> Option<String> {
        let listen = self.config.http.listen;
        let address = match listen.ip() {
            ip if ip.is_unspecified() => own,
            // All of 127.0.0.0/8 is loopback, but a lab's "machines" have addresses of their own in it.
            ip if ip == std::net::Ipv4Addr::LOCALHOST || ip == std::net::Ipv6Addr::LOCALHOST => return None,
            ip => ip,
        };
        Some(format!("http://{}", SocketAddr::new(address, listen.port())))
    }
}

/// The address of the local Consul agent's node.
async fn node_address(client: &Client) -> Result<IpAddr, ClientError> {
    const PATH: &str = "/v1/agent/self";
    let reply = client.get(PATH, &[], ASK).await?.ok()?;
    let unread =
        |error: WireError| ClientError::Json { act: format!("GET {PATH}"), reason: error.to_string() };
    wire::agent::address(&reply.body).map_err(unread)
}

/// Waits for the stop or for a task that ends before it; then ends all of them in good order.
async fn hold(mut tasks: Vec<Task<()>>, source: StopSource, stop: &Stop) -> Result<(), SyncError> {
    let joins = tasks.iter_mut().map(|task| {
        let name = task.name();
        Box::pin(async move { task.join().await.map_or_else(SyncError::from, |()| SyncError::Ended(name)) })
    });
    let ended = tokio::select! {
        biased;
        () = stop.wait() => Ok(()),
        (error, ..) = futures_util::future::select_all(joins) => Err(error),
    };
    source.stop();
    let until = lifecycle::now() + FAREWELL;
    for task in &mut tasks {
        farewell(task, until).await;
    }
    ended
}

async fn farewell(task: &mut Task<()>, until: Instant) {
    let left = until.saturating_duration_since(lifecycle::now());
    if timeout(left, task.join()).await.is_err() {
        warn!(task = task.name(), "task of replication did not end in time and was aborted");
    }
}

fn engine_settings(
    settings: &SyncSettings,
    agent: &AgentFacts,
    address: SocketAddr,
    max_txn_ops: usize,
    positions: Positions,
    lock_waits: LockWaits,
    kin: KinSeen,
) -> Result<EngineSettings, SyncError> {
    Ok(EngineSettings {
        datacenter: agent.datacenter.clone(),
        datacenters: settings.datacenters.clone(),
        node: agent.node.clone(),
        address: address.to_string(),
        prefixes: settings.prefixes.clone(),
        sessions_home: settings.home_of_sessions().ok_or(SyncError::NoSessionsHome)?,
        limits: Limits {
            max_txn_ops,
            max_value_bytes: settings.max_value_bytes,
            keep: Keep {
                max_entries: settings.journal_max_entries,
                max_age: settings.journal_max_age,
                ..Keep::default()
            },
            guard: Guard { keys: settings.delete_guard_keys, percent: settings.delete_guard_percent },
        },
        times: Times {
            forward: settings.forward_deadline,
            commit: settings.commit_deadline,
            applied: settings.forward_deadline,
            max_staleness: settings.max_staleness,
            audit: settings.audit_interval,
            linger: settings.commit_linger,
        },
        positions,
        locks: LockDefaults { ttl: settings.lock_ttl, delay: settings.lock_delay },
        lock_waits,
        kin,
        seed: seed(),
    })
}

/// Another one at every start.
fn seed() -> u64 {
    let since = lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    fastrand::Rng::with_seed(u64::try_from(since.as_nanos() & u128::from(u64::MAX)).unwrap_or_default())
        .u64(..)
}
