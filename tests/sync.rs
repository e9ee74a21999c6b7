//! Proof of replication: a model of Consul that is held against the real one, and later all that runs over it.

mod compare;
mod consul_model;
mod history;
mod net;
