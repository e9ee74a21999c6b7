//! The agent's HTTP interface: latest values out, one small write (the log level) in, and Consul's API where it is served.
//!
//! It asks a [`Sources`] for everything it tells, hands `/v1/` to a [`Kv`], and knows nothing of tasks, Consul or streams.
//! No secret passes here but what a client sends under `/v1/`.

mod kv;
mod page;
mod patient;
mod routes;
mod server;

pub mod wire;

use crate::api::wire::{ProxyConfig, Readiness, Status};
pub use crate::api::{
    kv::{Body, Kv},
    server::{BindError, bind, serve},
};

/// What the interface tells. Every call answers at once from latest values.
pub trait Sources: Send + Sync + 'static {
    /// Whether the agent is ready, and what it waits for.
    fn readiness(&self) -> Readiness;
    /// Everything of `/status`.
    fn status(&self) -> Status;
    /// The intended resources of a proxy, secrets redacted; none for a proxy that is not known.
    fn proxy_config(&self, proxy: &str) -> Option<ProxyConfig>;
    /// All metrics, as OpenMetrics text.
    fn metrics(&self) -> String;
    /// What is logged now.
    fn log_level(&self) -> String;
    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// The text is no filter: one sentence with its remedy.
    fn set_log_level(&self, filter: &str) -> Result<(), String>;
}

#[cfg(test)]
mod tests;
