//! The agent: starts the tasks in the order in which they depend on each other, and ends them in the other.

mod manager;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    api,
    app::{
        access::{Access, AskConsul},
        agent::manager::Manager,
        interest::Interests,
        keep::LastKnownGood,
        metrics::{self, ReloadMetrics},
        publish::Publisher,
        sources::AgentSources,
        sync::{Door, Replication},
    },
    config::{self, Config, ConfigError, xds::XdsSettings},
    consul::{
        self,
        acl::leaf::LeafTokens,
        client::{Client, ClientError},
    },
    lifecycle::{
        self, Stop,
        notify::Notify,
        signals::Signals,
        supervise::{Supervisor, SupervisorEnd},
    },
    mesh::Options,
    model::catalog::{Catalog, Topic},
    telemetry::logs::Telemetry,
    xds::server::{self, AgentId, BindError, Limits, Listeners, Server, StatusBoard},
};

/// The owner under which the agent itself watches topics.
const OWNER: &str = "agent";

/// Why the agent could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Consul cannot be asked.
    #[error("set up the Consul client: {0}")]
    Consul(#[from] ClientError),
    /// The xDS socket or port cannot be had.
    #[error("listen for Envoy: {0}")]
    Xds(#[from] BindError),
    /// The HTTP port cannot be had.
    #[error("listen for HTTP: {0}")]
    Http(#[from] api::BindError),
    /// Signals cannot be handled.
    #[error("handle signals: {0}")]
    Signals(#[source] std::io::Error),
    /// A critical task ended.
    #[error("{0}")]
    Ended(SupervisorEnd),
}

impl AgentError {
    /// Whether a file that the configuration names cannot be used: another start would find it the same.
    pub fn is_about_a_file(&self) -> bool {
        matches!(self, Self::Consul(ClientError::TokenFile { .. } | ClientError::Tls(_)))
    }
}

/// Runs the agent until a signal stops it or a critical task ends. `file` is read again on SIGHUP.
pub async fn run(file: Option<PathBuf>, config: Config, telemetry: Arc<Telemetry>) -> Result<(), AgentError> {
    let signals = Signals::listen().map_err(AgentError::Signals)?;
    let manager = Manager::new(Notify::from_env(&config::process_env));
    let metrics = metrics::register();
    let client = Client::new(config.consul.clone())?;
    let listeners = bind(&config.xds)?;
    let http = api::bind(config.http.listen)?;
    let (options, watch_options) = watch::channel(options(&config));

    let mut kept = LastKnownGood::read(&config.state, metrics.state);
    let mut supervisor = Supervisor::new();
    let stop = supervisor.stop();
    let (leaf_tokens, topics) = (LeafTokens::of_proxies(), std::mem::take(&mut kept.topics));
    let (watches, catalog_task) =
        consul::watch::start_with(client.clone(), leaf_tokens.clone(), topics, metrics.consul, stop.clone());
    watches.want(OWNER, [Topic::Agent].into()).await;
    let interests = Interests::new();
    let (publisher, reports) = Publisher::new(watches.clone(), interests.clone(), watch_options);
    let (recheck, watch_recheck) = watch::channel(recheck(&config));
    let (examiner, memory) = (AskConsul::new(client.clone()), kept.memory.clone());
    let access =
        Access::new(interests, examiner, leaf_tokens.clone(), memory, watch_recheck, watches.catalog());
    let (engine, watch_engine) = watch::channel(None);
    let board = StatusBoard::default();
    let catalog = watches.catalog();
    let sources = AgentSources {
        started_at: lifecycle::wall_clock(),
        catalog: catalog.clone(),
        reports,
        board: board.clone(),
        telemetry: telemetry.clone(),
        metrics: metrics.registry,
        sync: metrics.sync.clone(),
        engine: watch_engine.clone(),
    };

    supervisor.start("catalog.watch", ended(catalog_task));
    let positions = kept.positions.clone();
    kept.keep(&watches, &mut supervisor, stop.clone());
    supervisor.start("mesh.publish", publisher.run(stop.clone()));
    let (ready, is_ready) = watch::channel(false);
    let id = own_id();
    let server = Server {
        id: id.clone(),
        source: Arc::new(access.clone()),
        board,
        metrics: metrics.xds,
        limits: Limits {
            max_streams: config.xds.max_streams,
            new_streams_per_second: config.xds.new_streams_per_second,
            tcp_max_age: config.xds.tcp_max_age,
        },
        ready: is_ready,
    };
    supervisor.start("xds.serve", server.serve(listeners, stop.clone()));
    supervisor.start("access.follow", access.follow(stop.clone()));
    let door = if config.sync.enabled {
        let replication = Replication {
            config: config.clone(),
            watches: watches.clone(),
            leaf_tokens,
            positions,
            engine,
            metrics: metrics.sync,
        };
        supervisor.start("sync", replication.run(stop.clone()));
        Door::to_engine(config.http.clone(), watch_engine)
    } else {
        Door::to_others(config.http.clone(), watches.clone(), client)
    };
    supervisor.start("http.serve", api::serve(http, Arc::new(sources), Some(Arc::new(door)), stop.clone()));
    supervisor.start("systemd.ready", manager.clone().tell_ready(ready, catalog, stop.clone()));
    supervisor.start("systemd.watchdog", manager.watchdog(stop.clone()));
    let (config, running) = watch::channel(config);
    let reload = Reload {
        file,
        config,
        telemetry,
        options,
        recheck,
        metrics: metrics.reload,
        manager: manager.clone(),
        catalog: watches.catalog(),
    };
    tell_started(&running.borrow(), &id);
    supervisor.start("config.reload", reload.run(signals.reloads(), stop));

    let end = supervisor.run(&signals.stop()).await;
    let deadline = Duration::from_millis(running.borrow().shutdown.drain_ms);
    manager.stopping(deadline);
    for task in supervisor.drain(deadline, &signals.hurry()).await {
        warn!(task, "task did not end in time and was aborted");
    }
    told(end)
}

/// Who this agent is to Envoy. A host without a name serves all the same.
fn own_id() -> AgentId {
    AgentId::of_host(&lifecycle::host_name(), fastrand::u32(..))
}

fn tell_started(config: &Config, id: &AgentId) {
    let (http, xds, consul) = (config.http.listen, shown(&config.xds), &config.consul.address);
    info!(%id, %http, %xds, %consul, "agent started");
}

fn told(end: SupervisorEnd) -> Result<(), AgentError> {
    match end {
        SupervisorEnd::Asked => {
            info!("agent stopped");
            Ok(())
        }
        end => {
            error!(error = %end, "agent failed and stopped");
            Err(AgentError::Ended(end))
        }
    }
}

fn options(config: &Config) -> Options {
    Options { default_policy: config.mesh.default_intention_policy }
}

fn recheck(config: &Config) -> Duration {
    Duration::from_millis(config.xds.token_recheck_ms)
}

fn bind(settings: &XdsSettings) -> Result<Listeners, BindError> {
    let unix = settings
        .socket
        .as_deref()
        .map(|path| server::bind_unix(path, settings.socket_group.as_deref(), settings.socket_mode))
        .transpose()?;
    let tcp = settings.tcp.map(server::bind_tcp).transpose()?;
    Ok(Listeners { unix, tcp })
}

fn shown(settings: &XdsSettings) -> String {
    let unix = settings.socket.iter().map(|path| format!("unix:{}", path.display()));
    unix.chain(settings.tcp.iter().map(ToString::to_string)).collect::<Vec<_>>().join(", ")
}

/// The end of a task that was started elsewhere.
async fn ended(mut task: lifecycle::Task<()>) -> Result<(), lifecycle::TaskFailed> {
    task.join().await
}

/// Reads the configuration again on SIGHUP.
struct Reload {
    file: Option<PathBuf>,
    /// What runs, for whoever asks.
    config: watch::Sender<Config>,
    telemetry: Arc<Telemetry>,
    options: watch::Sender<Options>,
    recheck: watch::Sender<Duration>,
    metrics: ReloadMetrics,
    manager: Manager,
    catalog: watch::Receiver<Arc<Catalog>>,
}

impl Reload {
    async fn run(self, mut reloads: watch::Receiver<u64>, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.wait() => return,
                changed = reloads.changed() => if changed.is_err() { return stop.wait().await },
            }
            self.manager.reloading();
            let outcome = match config::load(self.file.as_deref(), &config::process_env) {
                Ok(new) => self.apply(&new).await,
                Err(error) => self.keep(&error),
            };
            self.manager.reloaded(&self.catalog.borrow(), outcome);
        }
    }

    fn keep(&self, error: &ConfigError) -> &'static str {
        self.metrics.last_is_good.set(0);
        error!(%error, "configuration not reloaded; the running one stays");
        "serving; the configuration was not reloaded, the log says why"
    }

    async fn apply(&self, new: &Config) -> &'static str {
        let diff = Config::reload_diff(&self.config.borrow(), new);
        let running = self.config.borrow().reloaded(new);
        if let Err(error) = self.telemetry.set_level(&running.log.level.to_string()) {
            warn!(%error, "log level not changed");
        }
        if let Err(error) = self.telemetry.set_traces(&running.telemetry).await {
            warn!(%error, "traces go where they went before");
        }
        self.options.send_replace(options(&running));
        self.recheck.send_if_modified(|pace| std::mem::replace(pace, recheck(&running)) != recheck(&running));
        self.config.send_replace(running);
        self.metrics.last_is_good.set(1);
        self.metrics.waiting.set(i64::try_from(diff.needs_restart.len()).unwrap_or(i64::MAX));
        info!(applied = ?diff.applied, "configuration reloaded");
        if diff.needs_restart.is_empty() {
            return "serving";
        }
        warn!(settings = ?diff.needs_restart, "these settings need a restart of the agent");
        "serving; changed settings wait for a restart, the log names them"
    }
}
