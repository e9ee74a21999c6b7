//! The engine of one sync agent: what it is told, and what others ask of it.

use std::time::Duration;

use crate::model::{
    name::{Datacenter, NodeName},
    sync::PrefixTable,
};

/// What an engine is told.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Our datacenter.
    pub datacenter: Datacenter,
    /// All datacenters that replicate, ours among them.
    pub datacenters: Vec<Datacenter>,
    /// Our Consul node.
    pub node: NodeName,
    /// Where our peer service listens: `address:port`, as others of our datacenter reach it.
    pub address: String,
    /// The prefixes and their homes.
    pub prefixes: PrefixTable,
    /// Where sessions live that name no datacenter.
    pub sessions_home: Datacenter,
    /// Sizes.
    pub limits: Limits,
    /// Times.
    pub times: Times,
    /// Makes the random numbers. Another one at every start of a real agent.
    pub seed: u64,
}

/// Sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most verbs that a transaction of our Consul takes: 64 before Consul 1.14, 128 since.
    pub max_txn_ops: usize,
    /// The largest value that is taken. Twice as much, as base64, fits a transaction of 512 KiB.
    pub max_value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_txn_ops: 64, max_value_bytes: 256 << 10 }
    }
}

/// Times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// After so long a home that does not answer counts as unreachable.
    pub forward: Duration,
    /// How long a commit at home may take.
    pub commit: Duration,
    /// How long a forwarded write waits for the own replica to have it.
    pub applied: Duration,
    /// A replica older than this answers no read; none to answer always.
    pub max_staleness: Option<Duration>,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            forward: Duration::from_secs(2),
            commit: Duration::from_secs(5),
            applied: Duration::from_secs(2),
            max_staleness: None,
        }
    }
}
