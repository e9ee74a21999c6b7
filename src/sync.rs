//! Keys and locks that stay consistent between datacenters: one home for each prefix, a journal there, replicas elsewhere.
//!
//! `docs/sync.md` states what is guaranteed. The engine sees its own Consul as a [`store::Store`] and other agents as
//! [`peer::Peers`]; what decides is pure (`record`, `layout`, `refusal`, and the pure files of `home`, `replica`, `lock`,
//! `endpoint`), what acts is a task with an owner. It knows nothing of Envoy.

pub mod duty;
pub mod endpoint;
pub mod engine;
pub mod home;
pub mod layout;
pub mod lock;
pub mod metrics;
pub mod peer;
pub mod positions;
pub mod record;
pub mod refusal;
pub mod replica;
pub mod status;
pub mod store;
