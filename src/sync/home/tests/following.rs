//! Followers: where they go on, what they are sent, what they are never sent.

use std::collections::BTreeMap;

use super::*;
use crate::sync::{home::tests::fake::Fault, peer::SnapshotPair, record::Change, store::StoreError};

struct Follower {
    items: mpsc::Receiver<Result<FollowItem, PeerError>>,
    acks: watch::Sender<Position>,
    _task: Task<()>,
}

impl Agent {
    fn follow(&self, at: Option<(Position, Hash)>, compare: bool) -> Follower {
        let (items, received) = mpsc::channel(crate::sync::peer::FOLLOW_QUEUE);
        let (acks, acked) = watch::channel(Position::default());
        let home = self.home.clone();
        let start = FollowStart { prefix: PREFIX.into(), at, compare, origin: None };
        let task = spawn("follower", async move {
            home.follow(&"secondary".into(), start, acked, items).await;
        });
        Follower { items: received, acks, _task: task }
    }
}

/// What a follower has, kept as a replica would keep it.
#[derive(Debug, Default, PartialEq)]
struct Copy {
    keys: BTreeMap<String, Option<Bytes>>,
    at: Position,
    hash: Hash,
    hashed: usize,
}

impl Follower {
    async fn next(&mut self) -> FollowItem {
        self.items.recv().await.expect("the stream goes on").expect("without an error")
    }

    /// Takes in items until it has this entry.
    async fn until(&mut self, copy: &mut Copy, seq: u64) {
        while copy.at.seq < seq {
            match self.next().await {
                FollowItem::SnapshotBegin => copy.keys.clear(),
                FollowItem::SnapshotPairs(pairs) => pairs.into_iter().for_each(|pair| copy.pair(pair)),
                FollowItem::SnapshotEnd { position, hash, pairs } => {
                    assert_eq!(pairs as usize, copy.keys.len());
                    (copy.at, copy.hash) = (position, hash);
                }
                FollowItem::Entry { entry, hash, blobs, .. } => {
                    assert_eq!((entry.position.seq, &entry.prev_hash), (copy.at.seq + 1, &copy.hash));
                    copy.apply(&entry, blobs);
                    (copy.at, copy.hash) = (entry.position, hash);
                }
                FollowItem::Continues | FollowItem::Tip { .. } => {}
                forked @ FollowItem::Forked { .. } => panic!("{forked:?}"),
            }
        }
    }
}

impl Copy {
    fn pair(&mut self, pair: SnapshotPair) {
        match pair {
            SnapshotPair::Data(pair) => drop(self.keys.insert(pair.key, Some(pair.value))),
            SnapshotPair::Held(key) => drop(self.keys.insert(key, None)),
            SnapshotPair::Hashed { pair, .. } => {
                assert!(pair.value.is_empty());
                self.hashed += 1;
                self.keys.insert(pair.key, None);
            }
        }
    }

    fn apply(&mut self, entry: &Entry, blobs: Vec<Bytes>) {
        let mut blobs = blobs.into_iter();
        for change in &entry.ops {
            match change {
                Change::Set { k, value, .. } => {
                    let value = match value {
                        crate::sync::record::Value::Val(value) => value.clone(),
                        crate::sync::record::Value::Blob(_) => blobs.next().unwrap(),
                    };
                    self.keys.insert(k.clone(), Some(value));
                }
                Change::Held { k } => drop(self.keys.insert(k.clone(), None)),
                Change::Del { k } => drop(self.keys.remove(k)),
                Change::DelTree { k } => self.keys.retain(|key, _| !key.starts_with(k)),
            }
        }
    }

    fn is_like(&self, store: &Fake) {
        let state = store.state();
        let data = state.keys.values().filter(|pair| pair.key.starts_with(PREFIX));
        let theirs: BTreeMap<_, _> =
            data.map(|pair| (pair.key.clone(), pair.session.is_none().then(|| pair.value.clone()))).collect();
        assert_eq!(self.keys, theirs);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_all_data_and_then_every_entry() {
    let store = Fake::new(&["s", "l"]);
    store.execute(&[set("config/old", "was here before")]);
    let agent = Agent::serving(&store, "s").await;
    let large = "x".repeat(100_000);
    agent.write(vec![set("config/a", "1"), set("config/large", &large)]).await.unwrap();
    let held = Op::Lock { key: "config/l".into(), value: Bytes::new(), flags: 0, session: "l".into() };
    agent.write(vec![held]).await.unwrap();
    let mut follower = agent.follow(None, false);
    let mut copy = Copy::default();
    follower.until(&mut copy, 2).await;
    copy.is_like(&store);
    assert_eq!(copy.keys["config/l"], None, "what a lock holds stays at home");
    agent
        .write(vec![set("config/b", &large.replace('x', "y")), Op::Delete { key: "config/a".into() }])
        .await
        .unwrap();
    agent.write(vec![Op::DeleteTree { prefix: "config/o".into() }]).await.unwrap();
    follower.until(&mut copy, 4).await;
    copy.is_like(&store);
    follower.acks.send_replace(copy.at);
    let mut acks = agent.home.0.acks.subscribe();
    acks.wait_for(|acks| acks.get("secondary") == Some(&copy.at)).await.unwrap();
    let heard = crate::lifecycle::now();
    for _ in 0..3 {
        let tip = follower.next().await;
        assert!(matches!(tip, FollowItem::Tip { position, .. } if position.seq == 4), "{tip:?}");
    }
    assert!(heard.elapsed() <= Duration::from_secs(30), "silence would look like a cut");
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_misses_nothing() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    agent.write(vec![set("config/a", "0")]).await.unwrap();
    let mut follower = agent.follow(None, false);
    let mut copy = Copy::default();
    follower.until(&mut copy, 1).await;
    for n in 0..400 {
        agent.write(vec![set(&format!("config/{}", n % 7), &n.to_string())]).await.unwrap();
    }
    follower.until(&mut copy, 401).await;
    copy.is_like(&store);
    // One that was away goes on where it was.
    let at = (copy.at, copy.hash.clone());
    drop(follower);
    for n in 0..25 {
        agent.write(vec![set("config/x", &n.to_string())]).await.unwrap();
    }
    let mut again = agent.follow(Some(at), false);
    assert_eq!(again.next().await, FollowItem::Continues);
    again.until(&mut copy, 426).await;
    copy.is_like(&store);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_of_one_position_even_while_others_write() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    for n in 0..50 {
        agent.write(vec![set(&format!("config/{n}"), "0")]).await.unwrap();
    }
    let writes = async {
        for n in 0..40 {
            let tree = Op::DeleteTree { prefix: format!("config/{}", n % 5) };
            agent.write(vec![tree, set(&format!("config/{n}"), &"y".repeat(5000 + n))]).await.unwrap();
        }
    };
    let follow = async {
        let mut follower = agent.follow(None, false);
        let mut copy = Copy::default();
        follower.until(&mut copy, 90).await;
        copy
    };
    let ((), copy) = tokio::join!(writes, follow);
    copy.is_like(&store);
}

#[tokio::test(start_paused = true)]
async fn who_only_compares_is_sent_hashes() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    agent.write(vec![set("config/a", "1"), set("config/b", "2")]).await.unwrap();
    let at = agent.served().await;
    let mut follower = agent.follow(Some((at.position, at.hash)), true);
    let mut copy = Copy::default();
    follower.until(&mut copy, 1).await;
    assert_eq!(copy.hashed, 2);
}

#[tokio::test(start_paused = true)]
async fn another_history_is_told_so_and_a_later_one_is_believed() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    for n in 0..3 {
        agent.write(vec![set("config/a", &n.to_string())]).await.unwrap();
    }
    let other = Hash::of(b"other");
    let forked = |seq, epoch| agent.follow(Some((Position { epoch, seq }, other.clone())), false);
    // That of an epoch that never was here began later than it says.
    let mut later = forked(9, 1);
    let item = later.next().await;
    assert!(matches!(item, FollowItem::Forked { home: Position { epoch: 1, seq: 3 }, .. }), "{item:?}");
    let mut tip = agent.home.tip();
    let is_new = |known: &Option<Known>| known.as_ref().is_some_and(|known| known.position.epoch == 2);
    tip.wait_for(is_new).await.unwrap();
    // It comes again and again, and changes nothing any more.
    for _ in 0..3 {
        let item = forked(9, 1).next().await;
        assert!(matches!(item, FollowItem::Forked { home: Position { epoch: 2, seq: 3 }, .. }), "{item:?}");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(agent.served().await.position, Position { epoch: 2, seq: 3 });
    // What was ours before the fork still is.
    let entries = journal_of(&store).await;
    let mut ours = agent.follow(Some((entries[1].entry.position, entries[1].hash.clone())), false);
    assert_eq!(ours.next().await, FollowItem::Continues);
}

async fn ends_without(mut follower: Follower) {
    let mut has_ended = false;
    while let Some(item) = follower.items.recv().await {
        match item {
            Ok(FollowItem::SnapshotEnd { .. }) => panic!("a snapshot was completed"),
            Ok(_) => {}
            Err(error) => has_ended = matches!(error, PeerError::Unreached(_)),
        }
    }
    assert!(has_ended);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_whole_is_an_error_and_no_snapshot() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    let errors = [
        StoreError::Unusable("filtered by ACLs".into()),
        StoreError::Refused { status: 403, reason: "Permission denied".into() },
        StoreError::Unknown("500".into()),
    ];
    for error in errors {
        store.state().unreadable = Some(error);
        ends_without(agent.follow(None, false)).await;
    }
    store.state().unreadable = None;
    store.execute(&[Op::Delete { key: layout().sentinel() }]);
    ends_without(agent.follow(None, false)).await;
    store.execute(&[Op::Delete { key: layout().entry(1) }]);
    ends_without(agent.follow(Some((Position { epoch: 1, seq: 0 }, Hash::default())), false)).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_of_a_prefix_that_is_not_is_no_snapshot() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let mut follower = agent.follow(None, false);
    let mut copy = Copy::default();
    assert_eq!(follower.next().await, FollowItem::SnapshotBegin);
    let end = follower.next().await;
    assert!(matches!(end, FollowItem::SnapshotEnd { pairs: 0, .. }), "it is empty indeed: {end:?}");
    store.state().faults.push_back(Fault::RequestLost);
    ends_without(agent.follow(None, false)).await;
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    follower.until(&mut copy, 1).await;
    store.state().lists_nothing = true;
    ends_without(agent.follow(None, false)).await;
    store.state().lists_nothing = false;
    agent.follow(None, false).until(&mut copy, 1).await;
    copy.is_like(&store);
}

#[tokio::test(start_paused = true)]
async fn followers_go_when_the_home_does() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let mut follower = agent.follow(None, false);
    follower.until(&mut Copy::default(), 0).await;
    agent.duty.send_replace(Holding::default());
    let mut last = None;
    while let Some(item) = follower.items.recv().await {
        last = Some(item);
    }
    assert!(matches!(last, Some(Err(PeerError::Unreached(_)))), "{last:?}");
    let mut refused = agent.follow(None, false);
    assert!(matches!(refused.items.recv().await, Some(Err(PeerError::Unreached(_)))));
}

/// A home whose last transaction was committed without an answer, and which cannot see that it was.
async fn in_the_dark(store: &Fake) -> (Agent, Task<Outcome>) {
    let agent = Agent::serving(store, "s").await;
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    store.state().faults.push_back(Fault::AnswerLost);
    store.state().refused = Some(layout().entry(2));
    let (home, request) = (agent.home.clone(), agent.request("r", vec![set("config/a", "2")]));
    let write = spawn("write", async move { home.write(request).await });
    while store.pair(&layout().entry(2)).is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (agent, write)
}

/// Takes in all of a snapshot but its end, which does not come.
async fn without_its_end(follower: &mut Follower, copy: &mut Copy) {
    assert_eq!(follower.next().await, FollowItem::SnapshotBegin);
    let FollowItem::SnapshotPairs(pairs) = follower.next().await else { panic!("no pairs") };
    pairs.into_iter().for_each(|pair| copy.pair(pair));
    let more = tokio::time::timeout(Duration::from_secs(3), follower.items.recv()).await;
    assert!(more.is_err(), "the home does not know of entry 2: {more:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_ends_once_the_home_knows_that_it_has_committed_as_much() {
    let store = Fake::new(&["s"]);
    let (agent, mut write) = in_the_dark(&store).await;
    let (mut follower, mut copy) = (agent.follow(None, false), Copy::default());
    without_its_end(&mut follower, &mut copy).await;
    assert_eq!(agent.served().await.position.seq, 1);
    store.state().refused = None;
    assert_eq!(write.join().await.unwrap().unwrap().at.seq, 2);
    follower.until(&mut copy, 2).await;
    assert_eq!((copy.at, &copy.hash), (agent.served().await.position, &agent.served().await.hash));
    copy.is_like(&store);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_waits_for_its_home_ends_with_it() {
    let store = Fake::new(&["s"]);
    let (agent, mut write) = in_the_dark(&store).await;
    let mut follower = agent.follow(None, false);
    without_its_end(&mut follower, &mut Copy::default()).await;
    agent.duty.send_replace(Holding::default());
    ends_without(follower).await;
    let outcome = write.join().await.unwrap();
    assert!(matches!(outcome, Err(Refusal::OutcomeUnknown { .. })), "{outcome:?}");
}
