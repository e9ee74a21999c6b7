use super::*;
use crate::sync::home::tests::fake::Fake;

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_read_fails_alone() {
    let store = Fake::new(&[]);
    store.state().refused = Some("locks//x".into());
    let all = BTreeSet::from(["config/a".to_owned(), "locks//x".to_owned()]);
    let looked = look(&store, all.clone()).await;
    assert_eq!(looked.facts.get("config/a"), Some(&None));
    let refusal = looked.refusal(&all).unwrap();
    assert_eq!(refusal.status(), 400);
    assert!(refusal.to_string().contains("locks//x"), "{refusal}");
    assert_eq!(looked.refusal(&BTreeSet::from(["config/a".to_owned()])), None);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_read_at_a_time_and_no_more() {
    let store = Fake::new(&[]);
    let looked = look(&store, (0..100).map(|n| format!("config/{n}")).collect()).await;
    assert_eq!((looked.facts.len(), looked.failed.len()), (100, 0));
    assert_eq!(store.state().most_reading, READS);
}
