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
    let acquire = Request::new(Method::POST, "/v1/lock/locks/a", Vec::new(), Bytes::new());
    assert_eq!(patience(&acquire).as_secs(), 600 + 37 + 10);
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
