//! Faults planted into an engine from outside: what it asks of Consul and of others is changed on the way. Each is one of
//! the faults of the systems before this one, and each must be caught.

mod peers;
mod store;

mod tests;

pub(crate) use self::{
    peers::{MutantPeers, Watermark},
    store::MutantStore,
};

/// Which fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// None: everything goes through as it is.
    #[default]
    None,
    /// No transaction checks whether its session still holds the duty or the lock.
    NoSessionCheck,
    /// Who holds a lock is told by the value of its key, which is looked at before the transaction: is it the one that
    /// the session's contender wrote when it took the lock, then the lock is its own. Which session holds the key is
    /// not looked at.
    OwnValue,
    /// Of a snapshot only what is newer than the newest index seen before is taken.
    Watermark,
    /// A list that is filtered away counts as one without keys.
    EmptyList,
    /// The data of a replica is written first, its progress after that.
    SplitProgress,
    /// A transaction is acknowledged before Consul has it, and given up when Consul is not there.
    EarlyAck,
    /// Agents keep nothing on their disks.
    NoDisk,
    /// Agents take every token for one that may do everything.
    NoRights,
}
