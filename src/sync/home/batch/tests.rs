use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        kv::{Pair, TxnReply},
        sync::{PrefixId, PrefixTable},
    },
    sync::home::{
        memory::{Fences, LOCK_FLAGS, Locks},
        prepare::{Facts, Ground, prepare, wanted},
        settle::{self, RolledBack, Verdict},
        tests::fake::{Fake, body},
    },
};

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => 0..40_usize, 1 => 4000..4200_usize, 1 => 0..130_000_usize]
        .prop_map(|size| Bytes::from(vec![b'v'; size]))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![6 => "config/[a-e]", 1 => "config/\\PC{0,40}", 1 => "config/[\u{0}-\u{1f}\"\\\\<&]{0,20}"]
}

fn op() -> impl Strategy<Value = Op> {
    let session = || prop_oneof![Just("l1"), Just("l2"), Just("gone")].prop_map(SessionId::from);
    let flags = || prop_oneof![5 => Just(0), 1 => Just(u64::MAX), 1 => Just(LOCK_FLAGS)];
    let index = || prop_oneof![3 => Just(0_u64), 1 => 10..60_u64];
    prop_oneof![
        6 => (key(), value(), flags()).prop_map(|(key, value, flags)| Op::Set { key, value, flags }),
        3 => (key(), value(), flags(), index()).prop_map(|(key, value, flags, index)| Op::Cas { key, value, flags, index }),
        2 => (key(), flags(), session()).prop_map(|(key, flags, session)| Op::Lock { key, value: Bytes::new(), flags, session }),
        1 => (key(), flags(), session()).prop_map(|(key, flags, session)| Op::Unlock { key, value: Bytes::new(), flags, session }),
        2 => key().prop_map(|key| Op::Get { key }),
        1 => Just(Op::GetTree { prefix: "config/".into() }),
        1 => key().prop_map(|key| Op::CheckNotExists { key }),
        2 => key().prop_map(|key| Op::Delete { key }),
        1 => Just(Op::DeleteTree { prefix: "config/b".into() }),
        1 => (key(), index()).prop_map(|(key, index)| Op::DeleteCas { key, index }),
    ]
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let ops = prop_oneof![9 => prop::collection::vec(op(), 1..5), 1 => prop::collection::vec(op(), 1..62)];
    prop::collection::vec(ops, 1..25).prop_map(|all| {
        let request = |(n, ops)| Request { id: format!("r{n}"), origin: "b".into(), ops, guard: None };
        all.into_iter().enumerate().map(request).collect()
    })
}

/// What the client of each request must see: Consul's own answer, had it been executed alone at that moment.
struct World {
    /// The home's Consul.
    store: Fake,
    /// The same data, executed one request after the other.
    mirror: Fake,
    locks: Locks,
    fences: Fences,
    head: Head,
    head_index: u64,
}

const SESSION: &str = "me";

impl World {
    fn new() -> Self {
        let layout = layout();
        let store = Fake::new(&[SESSION, "l1", "l2"]);
        let duty =
            Op::Lock { key: layout.duty(Duty::Home), value: Bytes::new(), flags: 0, session: SESSION.into() };
        let head = Head { position: Position { epoch: 1, seq: 0 }, hash: Hash::default(), first: 1 };
        let set = Op::Set { key: layout.head(), value: record::encode(&head), flags: 0 };
        let TxnReply::Committed(pairs) = store.execute(&[duty, set]) else { panic!("the first write") };
        let head_index = pairs[1].modify_index;
        let mirror = Fake::new(&[SESSION, "l1", "l2"]);
        Self { store, mirror, locks: Locks::default(), fences: Fences::default(), head, head_index }
    }

    fn prepare(&self, request: &Request, prefixes: &PrefixTable) -> Result<Prepared, Refusal> {
        let (layout, datacenter) = (layout(), "a".into());
        let (locks, fences) = (&self.locks, &self.fences);
        let ground = Ground {
            datacenter: &datacenter,
            prefix: "config/",
            prefixes,
            layout: &layout,
            epoch: 1,
            locks,
            fences,
        };
        let facts: Facts =
            wanted(request, &ground).into_iter().map(|key| (key.clone(), self.store.pair(&key))).collect();
        prepare(request, &facts, &ground)
    }
}

fn layout() -> Layout {
    Layout::new(&PrefixId::of("config/"))
}

/// Without indexes: those of the mirror are others.
fn plain(pairs: &[Pair]) -> Vec<(String, Bytes, u64, Option<SessionId>)> {
    pairs
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone(), pair.flags, pair.session.clone()))
        .collect()
}

fn check_reply(world: &World, request: &Request, reply: &TxnReply) -> Result<(), TestCaseError> {
    // Indexes differ between the two, so that only requests without them can be compared.
    let has_index = request
        .ops
        .iter()
        .any(|op| matches!(op, Op::Cas { index: 1.., .. } | Op::DeleteCas { index: 1.., .. }));
    if has_index {
        if let TxnReply::Committed(_) = reply {
            let same = request.ops.iter().map(|op| match op.clone() {
                Op::Cas { key, value, flags, .. } => Op::Set { key, value, flags },
                Op::DeleteCas { key, .. } => Op::Delete { key },
                op => op,
            });
            prop_assert!(matches!(world.mirror.execute(&same.collect::<Vec<_>>()), TxnReply::Committed(_)));
        }
        return Ok(());
    }
    match (world.mirror.execute(&request.ops), reply) {
        (TxnReply::Committed(alone), TxnReply::Committed(together)) => {
            prop_assert_eq!(plain(&alone), plain(together))
        }
        (TxnReply::RolledBack(alone), TxnReply::RolledBack(together)) => prop_assert_eq!(&alone, together),
        (alone, together) => prop_assert!(false, "{request:?}: alone {alone:?}, together {together:?}"),
    }
    Ok(())
}

/// One transaction; gives back what must go again.
fn round(
    world: &mut World,
    mut queue: Vec<(Request, bool)>,
    budget: &Budget,
) -> Result<Vec<(Request, bool)>, TestCaseError> {
    let layout = layout();
    let prefixes = PrefixTable::default();
    let mut batch = Batch::default();
    let mut taking: Vec<(Request, Prepared)> = Vec::new();
    while let Some((request, is_first)) = queue.first().cloned() {
        if is_first && !taking.is_empty() {
            break;
        }
        match world
            .prepare(&request, &prefixes)
            .map(|prepared| (batch.add(&request, &prepared, budget, &layout), prepared))
        {
            Ok((Fit::Yes, prepared)) => taking.push((request, prepared)),
            Ok((Fit::Later, _)) => break,
            Ok((Fit::Never(_), _)) | Err(_) => {}
        }
        queue.remove(0);
    }
    let session = SessionId::from(SESSION);
    let behind = Behind {
        layout: &layout,
        session: &session,
        head: &world.head,
        head_index: world.head_index,
        ts_ms: u64::MAX,
    };
    let transaction = compose(taking.iter().map(|(request, prepared)| (request, prepared)), &behind);
    prop_assert!(transaction.ops.len() <= budget.ops);
    prop_assert!(body(&transaction.ops) <= budget.bytes, "{} bytes", body(&transaction.ops));
    match world.store.execute(&transaction.ops) {
        TxnReply::Committed(pairs) => {
            let index = pairs.last().map_or(0, |pair| pair.modify_index);
            let answers = settle::committed(&transaction, pairs);
            prop_assert!(answers.is_some());
            for ((request, prepared), pairs) in taking.iter().zip(answers.unwrap_or_default()) {
                check_reply(world, request, &TxnReply::Committed(pairs))?;
                world.locks.apply(&request.ops, &prepared.changes);
                prepared.tokens.iter().for_each(|(lock, token)| world.fences.insert(lock, *token, index));
            }
            if let Some(journaled) = transaction.written {
                world.head = Head { position: journaled.entry.position, hash: journaled.hash, first: 1 };
                world.head_index = index;
            }
        }
        TxnReply::RolledBack(errors) => {
            let prepared: Vec<&Prepared> = taking.iter().map(|(_, prepared)| prepared).collect();
            let why = settle::rolled_back(&transaction, &prepared, &errors);
            let RolledBack::ByRequests(verdicts) = why else {
                return Err(TestCaseError::fail(format!("{why:?}: {errors:?}")));
            };
            let mut after = Vec::new();
            let mut again = Vec::new();
            for ((request, _), verdict) in taking.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Again => again.push((request, false)),
                    Verdict::After => after.push((request, after.is_empty())),
                    Verdict::Anew => return Err(TestCaseError::fail("nobody else writes our records")),
                    Verdict::Failed(errors) => check_reply(world, &request, &TxnReply::RolledBack(errors))?,
                }
            }
            again.extend(after);
            again.extend(queue);
            return Ok(again);
        }
    }
    Ok(queue)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes together, each request has the answer that it would have had alone, the data is that of requests
    /// executed one after the other, and no budget is exceeded.
    #[test]
    fn together_is_as_one_after_the_other(requests in requests(), ops in prop_oneof![Just(64_usize), Just(128)]) {
        let mut world = World::new();
        let budget = Budget::new(ops);
        let mut queue: Vec<_> = requests.into_iter().map(|request| (request, false)).collect();
        let mut rounds = 0;
        while !queue.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 200, "it comes to an end");
            queue = round(&mut world, queue, &budget)?;
        }
        let data = |store: &Fake| -> Vec<_> {
            let state = store.state();
            plain(&state.keys.values().filter(|pair| pair.key.starts_with("config/")).cloned().collect::<Vec<_>>())
        };
        prop_assert_eq!(data(&world.store), data(&world.mirror));
    }
}

#[test]
fn large_values_are_put_in_transactions_that_fit() {
    let (layout, session, head) = (layout(), SessionId::from("s"), Head::default());
    let behind = Behind { layout: &layout, session: &session, head: &head, head_index: 1, ts_ms: 0 };
    let budget = Budget::new(64);
    let blobs: Vec<_> = [5_000, 256 * 1024, 256 * 1024, 100_000, 5_000]
        .into_iter()
        .chain([4_097; 90])
        .map(|size| (Hash(format!("{size}")), Bytes::from(vec![1; size])))
        .collect();
    let all = put_blobs(&blobs, &budget, &behind);
    assert_eq!(all.iter().map(|ops| ops.len() - 1).sum::<usize>(), blobs.len());
    for ops in &all {
        assert!(matches!(ops[0], Op::CheckSession { .. }) && ops.len() <= 64 && body(ops) <= budget.bytes);
    }
    assert!(all.iter().flatten().skip(1).all(|op| !matches!(op, Op::Set { flags, .. } if *flags != 1)));
    assert!(put_blobs(&[], &budget, &behind).is_empty());
}
