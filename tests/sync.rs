//! Proof of replication: a model of Consul that is held against the real one, the engine over it in simulated datacenters,
//! histories and what must hold of them, and the faults of others planted to be caught.

mod answers;
mod client;
pub(crate) mod compare;
mod consul_model;
mod datastore;
pub(crate) mod history;
mod mutants;
mod net;
mod scenario;
mod world;
