use super::*;

#[test]
fn a_wait_is_no_longer_than_consul_grants() {
    assert_eq!(reading(Read::Wait { index: 7, wait: Duration::MAX }).wait, Some((7, MAX_WAIT)));
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
