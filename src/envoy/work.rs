//! Whether an Envoy serves and how much it has to do, read from its statistics. Pure.

use std::collections::BTreeMap;

/// The statistics that [`Work::read`] needs, as a filter for the admin interface.
pub const FILTER: &str = "downstream_(cx|rq)_active$";

/// What would be cut if Envoy ended now. Idle HTTP connections are not part of it: their clients open new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// HTTP requests under way.
    pub requests: u64,
    /// Connections that carry no HTTP. Whether their clients wait for something cannot be seen.
    pub connections: u64,
}

impl Work {
    /// Reads gauges by their full names. Those of the admin interface itself are left out.
    pub fn read(stats: &BTreeMap<String, u64>) -> Self {
        let sum = |area: &str, gauge: &str| -> u64 {
            let of_area = stats.iter().filter(|(name, _)| is_of(name, area, gauge));
            of_area.map(|(_, value)| value).sum()
        };
        let http = sum("http.", ".downstream_cx_active");
        Self {
            requests: sum("http.", ".downstream_rq_active"),
            connections: sum("listener.", ".downstream_cx_active").saturating_sub(http),
        }
    }

    /// Whether nothing would be cut.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The statistics that [`serves`] needs, as a filter for the admin interface.
pub const LISTENERS: &str = "^listener_manager\\.total_listeners_(active|warming)$";

/// Whether its listeners are there. Envoy calls itself live as soon as it heard that there are none yet.
pub fn serves(stats: &BTreeMap<String, u64>) -> bool {
    let count = |state: &str| stats.get(&format!("listener_manager.total_listeners_{state}")).copied();
    count("active").is_some_and(|active| active > 0) && count("warming") == Some(0)
}

fn is_of(name: &str, area: &str, gauge: &str) -> bool {
    let Some(owner) = name.strip_prefix(area).and_then(|rest| rest.strip_suffix(gauge)) else { return false };
    // A listener counts its connections once more for each worker.
    owner != "admin" && !owner.contains("admin.") && !owner.contains(".worker_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(stats: &[(&str, u64)]) -> Work {
        Work::read(&stats.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    #[test]
    fn plain_connections_and_requests_count_and_idle_http_connections_do_not() {
        let stats = [
            ("listener.10.0.0.5_20000.downstream_cx_active", 5),
            ("listener.127.0.0.1_5000.downstream_cx_active", 2),
            ("http.public_listener.downstream_cx_active", 5),
            ("http.public_listener.downstream_rq_active", 1),
            ("tcp.upstream.downstream_cx_total", 9),
        ];
        assert_eq!(work(&stats), Work { requests: 1, connections: 2 });
        assert!(!work(&stats).is_none());
    }

    #[test]
    fn what_the_admin_interface_and_each_worker_count_is_left_out() {
        let stats = [
            ("listener.admin.downstream_cx_active", 1),
            ("listener.admin.main_thread.downstream_cx_active", 1),
            ("http.admin.downstream_cx_active", 1),
            ("http.admin.downstream_rq_active", 1),
            ("listener.10.0.0.5_20000.worker_0.downstream_cx_active", 3),
        ];
        assert!(work(&stats).is_none());
    }

    #[test]
    fn it_serves_when_all_its_listeners_are_active() {
        let with = |active: u64, warming: u64| {
            let name = |state: &str| format!("listener_manager.total_listeners_{state}");
            serves(&[(name("active"), active), (name("warming"), warming)].into())
        };
        assert_eq!([with(0, 0), with(0, 1), with(1, 1), with(2, 0)], [false, false, false, true]);
        assert!(!serves(&BTreeMap::new()));
    }

    #[test]
    fn counts_that_were_read_at_different_moments_are_never_negative() {
        let stats = [("listener.a.downstream_cx_active", 1), ("http.a.downstream_cx_active", 2)];
        assert!(work(&stats).is_none());
    }
}
