//! `[sync]`: which keys stay consistent between datacenters, and how the agents that see to it find each other.

mod section;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

pub(crate) use crate::config::sync::section::{LISTEN, SECTION, read};
use crate::model::{chain::GatewayMode, name::Datacenter, sync::PrefixTable};

/// The port of the service for other sync agents.
const DEFAULT_PORT: u16 = 18443;

/// The part of the agent that replicates keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSettings {
    /// Whether this agent takes part.
    pub enabled: bool,
    /// All datacenters that take part, the own one included.
    pub datacenters: Vec<Datacenter>,
    /// Where a session lives that names no datacenter; none where neither this nor the prefixes tell.
    pub sessions_home: Option<Datacenter>,
    /// Where other sync agents are served.
    pub listen: SocketAddr,
    /// The address that the catalog shows for that service, and its port if that is another one.
    pub advertise: Option<Advertised>,
    /// How agents of other datacenters are reached.
    pub gateway_mode: GatewayMode,
    /// How long a request waits to learn that the home cannot be reached.
    pub forward_deadline: Duration,
    /// How long a write waits for its commit.
    pub commit_deadline: Duration,
    /// How long a commit at home waits for more writes, while there are many.
    pub commit_linger: Duration,
    /// How often a replica compares its keys with what it applied.
    pub audit_interval: Duration,
    /// The age beyond which a replica that is cut off answers no more reads; none for never.
    pub max_staleness: Option<Duration>,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// Entries of a journal that are kept at most.
    pub journal_max_entries: u64,
    /// The age of entries that are kept at most.
    pub journal_max_age: Duration,
    /// So many keys are deleted at once from a replica that is compared with its home, without a person's word.
    pub delete_guard_keys: usize,
    /// And so many of a hundred, where that is more.
    pub delete_guard_percent: usize,
    /// How long a lock lives without renewal whose client does not say.
    pub lock_ttl: Duration,
    /// How long a lock stays closed after its holder was lost, where its client does not say.
    pub lock_delay: Duration,
    /// The prefixes and their homes.
    pub prefixes: PrefixTable,
}

/// What the catalog shows of the service for other sync agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Its address.
    pub address: IpAddr,
    /// Its port, if it is not that of `listen`.
    pub port: Option<u16>,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            datacenters: Vec::new(),
            sessions_home: None,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            advertise: None,
            gateway_mode: GatewayMode::Local,
            forward_deadline: Duration::from_secs(2),
            commit_deadline: Duration::from_secs(5),
            commit_linger: Duration::from_millis(2),
            audit_interval: Duration::from_secs(30),
            max_staleness: None,
            max_value_bytes: 256 * 1024,
            journal_max_entries: 1_000_000,
            journal_max_age: Duration::from_secs(86_400),
            delete_guard_keys: 100,
            delete_guard_percent: 10,
            lock_ttl: Duration::from_secs(15),
            lock_delay: Duration::from_secs(15),
            prefixes: PrefixTable::default(),
        }
    }
}

impl SyncSettings {
    /// Where a session lives that names no datacenter: the setting, or the one home that all prefixes have.
    pub fn home_of_sessions(&self) -> Option<Datacenter> {
        self.sessions_home.clone().or_else(|| self.only_home().cloned())
    }

    fn only_home(&self) -> Option<&Datacenter> {
        let mut homes = self.prefixes.iter().map(|prefix| &prefix.home);
        let first = homes.next()?;
        homes.all(|home| home == first).then_some(first)
    }
}

#[cfg(test)]
mod tests;
