//! Which agent of a datacenter does which work: one at a time for each prefix and duty, decided by a lock of Consul's.

use crate::{model::session::SessionId, sync::record::Doer};

/// Who does a duty, as far as is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// We do, and hold its lock with this session.
    pub session: Option<SessionId>,
    /// Who does.
    pub doer: Option<Doer>,
}
