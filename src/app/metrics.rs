//! Every metric of the agent, in one registry.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::{
    consul::metrics::ConsulMetrics, state::metrics::StateMetrics, sync::metrics::SyncMetrics,
    telemetry::metrics::Metrics, xds::metrics::XdsMetrics,
};

/// `causeway_config_last_reload_successful`, by the custom of Prometheus's own programs.
const LAST_RELOAD: &str = "causeway_config_last_reload_successful";
/// `causeway_config_keys_waiting`
const KEYS_WAITING: &str = "causeway_config_keys_waiting";

/// What became of the configuration file.
#[derive(Clone, Debug, Default)]
pub struct ReloadMetrics {
    /// 1 when the last read of the file was good, else 0.
    pub(super) last_is_good: Gauge,
    /// Keys that changed in the file and wait for a restart.
    pub(super) waiting: Gauge,
}

impl ReloadMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.last_is_good.set(1);
        let help =
            "Whether the last read of the configuration file was good; when not, the one before it runs";
        registry.register(LAST_RELOAD, help, metrics.last_is_good.clone());
        let help = "Keys that changed in the configuration file and wait for a restart";
        registry.register(KEYS_WAITING, help, metrics.waiting.clone());
        metrics
    }
}

/// The registry, and the areas' handles that count into it.
#[derive(Debug)]
pub struct AgentMetrics {
    /// What `/metrics` is written from.
    pub registry: Metrics,
    /// For the watches.
    pub consul: ConsulMetrics,
    /// For what is kept on disk.
    pub state: StateMetrics,
    /// For replication.
    pub sync: SyncMetrics,
    /// For the xDS server.
    pub xds: XdsMetrics,
    /// For the configuration read again.
    pub reload: ReloadMetrics,
}

/// Registers all of them in a registry of their own.
pub fn register() -> AgentMetrics {
    let mut registry = Metrics::new();
    let consul = ConsulMetrics::register(registry.registry_mut());
    let state = StateMetrics::register(registry.registry_mut());
    let sync = SyncMetrics::register(registry.registry_mut());
    let xds = XdsMetrics::register(registry.registry_mut());
    let reload = ReloadMetrics::register(registry.registry_mut());
    AgentMetrics { registry, consul, state, sync, xds, reload }
}
