//! Every metric of the agent, in one registry.

use crate::{
    consul::metrics::ConsulMetrics, state::metrics::StateMetrics, telemetry::metrics::Metrics,
    xds::metrics::XdsMetrics,
};

/// The registry, and the areas' handles that count into it.
#[derive(Debug)]
pub struct AgentMetrics {
    /// What `/metrics` is written from.
    pub registry: Metrics,
    /// For the watches.
    pub consul: ConsulMetrics,
    /// For what is kept on disk.
    pub state: StateMetrics,
    /// For the xDS server.
    pub xds: XdsMetrics,
}

/// Registers all of them in a registry of their own.
pub fn register() -> AgentMetrics {
    let mut registry = Metrics::new();
    let consul = ConsulMetrics::register(registry.registry_mut());
    let state = StateMetrics::register(registry.registry_mut());
    let xds = XdsMetrics::register(registry.registry_mut());
    AgentMetrics { registry, consul, state, xds }
}
