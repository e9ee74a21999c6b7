//! The last known good, kept on disk: what an agent that starts while Consul is away serves.
//!
//! [`keep`] says what is kept, [`record`] and [`mod@format`] how it is written, [`pace`] when; those decide and are pure.
//! [`store`] holds the files and [`keeper`] is the task that writes them. What becomes of what was read is for others:
//! the watches use a topic's kept value as long as Consul has not answered, streams pass by [`tokens`] while Consul
//! cannot be asked. Knows neither Consul nor Envoy.
//!
//! Three files, in a directory that only the agent may open: the catalog without secrets of its own, leaf certificates
//! with their private keys, and marks of the tokens that passed. `docs/adr/0005-last-known-good.md` has the reasons.

pub mod format;
pub mod keep;
pub mod keeper;
pub mod memory;
pub mod metrics;
pub mod pace;
pub mod record;
pub mod store;
pub mod tokens;
