//! How replication stands, as `/v1/sync/status` tells it.

use serde::Serialize;

use crate::{
    model::{
        name::{Datacenter, NodeName},
        sync::PrefixId,
    },
    sync::{home::HomeStatus, replica::ReplicaStatus},
};

/// One agent's view of replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyncStatus {
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its Consul node.
    pub node: NodeName,
    /// Where sessions live that name no datacenter.
    pub sessions_home: Datacenter,
    /// Its prefixes.
    pub prefixes: Vec<PrefixStatus>,
    /// The other datacenters.
    pub datacenters: Vec<DatacenterStatus>,
    /// In what the sync agents of this datacenter are configured otherwise than this one, a sentence for each prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disagreements: Vec<String>,
}

/// One prefix, seen from one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixStatus {
    /// Its text.
    pub prefix: String,
    /// Its name in reserved keys and metrics.
    pub id: PrefixId,
    /// Where it is written.
    pub home: Datacenter,
    /// Whether this agent does the work on it in its datacenter.
    pub is_active: bool,
    /// Which node does, as far as this agent knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_node: Option<NodeName>,
    /// Why it is not served: datacenters disagree on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misfit: Option<String>,
    /// The journal, where this datacenter is its home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_home: Option<HomeStatus>,
    /// The replica, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_replica: Option<ReplicaStatus>,
}

/// Another datacenter, seen from one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatacenterStatus {
    /// Its name.
    pub datacenter: Datacenter,
    /// Which of its nodes answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// How long ago, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    /// The most verbs that a transaction of its Consul takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_txn_ops: Option<usize>,
    /// The largest value that it is configured to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_value_bytes: Option<usize>,
    /// Why the last try to reach it failed; none when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
