use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::*;

fn request(target: &str) -> Request {
    Request::new(Method::GET, target, Vec::new(), Bytes::new())
}

#[test]
fn a_blocking_query_has_the_time_that_it_asks_for() {
    let seconds = |target: &str| patience(&request(target)).as_secs();
    assert_eq!(seconds("/v1/kv/a"), 60);
    assert_eq!(seconds("/v1/kv/a?wait=5m"), 60);
    assert_eq!(seconds("/v1/kv/a?index="), 60);
    assert_eq!(seconds("/v1/kv/a?index=7&wait=10s"), 60);
    assert_eq!(seconds("/v1/kv/a?index=7"), 300 + 18 + 10);
    assert_eq!(seconds("/v1/agent/service/a?hash=7&wait=2m"), 120 + 7 + 10);
    // Consul says that this is no wait; and never waits longer than ten minutes.
    for longest in ["soon", "1h", "99999h"] {
        assert_eq!(seconds(&format!("/v1/kv/a?index=7&wait={longest}")), 600 + 37 + 10, "{longest}");
    }
    assert_eq!(reading(Read::Wait { index: 7, wait: Duration::MAX }).wait, Some((7, MAX_WAIT)));
}

#[test]
fn whose_rights_a_request_has() {
    let asked = request("/v1/kv/a?token=t");
    assert_eq!(bearer(&asked), Bearer::Token("t".into()));
    assert_eq!(bearer(&request("/v1/kv/a")), Bearer::Nobody);
    let passed = |target: &str| {
        Request::new(Method::GET, target, vec![("X-Sync-Passed".into(), "1".into())], Bytes::new())
    };
    assert_eq!(bearer(&passed("/v1/kv/a")), Bearer::Token(nobody()));
    assert_eq!(bearer(&passed("/v1/kv/a?token=t")), Bearer::Token("t".into()));
}

#[test]
fn prefixes_that_were_seen_are_bounded() {
    let mut seen = BTreeSet::new();
    for n in 0..MAX_SEEN {
        remember(&mut seen, &n.to_string());
    }
    remember(&mut seen, "0");
    assert_eq!(seen.len(), MAX_SEEN);
    remember(&mut seen, "one more");
    assert_eq!(seen.len(), 1);
}
