//! Which agent a client is connected to, in the words that Envoy shows as `control_plane.identifier`.

use std::{fmt, sync::Arc};

use crate::xds::version::Version;

/// One run of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// The agent of a host. `run` is random: it tells an agent from its predecessor, and from others on that host.
    pub fn of_host(host: &str, run: u32) -> Self {
        let host = match host.trim() {
            "" => "unknown-host",
            host => host,
        };
        Self(format!("{host}/{run:08x}").into())
    }

    /// Who says that, and of which revision of the client's configuration it is a part (rule 53).
    pub(super) fn says(&self, revision: &Version) -> String {
        format!("causeway {} {self} revision {revision}", env!("CARGO_PKG_VERSION"))
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_host_and_its_run() {
        assert_eq!(AgentId::of_host("edge-1\n", 0x2a).to_string(), "edge-1/0000002a");
        assert_eq!(AgentId::of_host("", u32::MAX).to_string(), "unknown-host/ffffffff");
    }
}
