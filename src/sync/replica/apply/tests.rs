use proptest::prelude::*;

use super::*;
use crate::{
    model::{kv::TxnReply, sync::PrefixId},
    sync::{
        record,
        replica::{
            chain::Chain,
            double::{History, Kv, set},
            indexes::{Indexes, Memory},
        },
    },
};

const PREFIX: &str = "p/";
const ROOMY: Budget = Budget { ops: 62, bytes: 500_000 };

fn layout() -> Layout {
    Layout::new(&PrefixId::of(PREFIX))
}

fn planner(budget: Budget) -> Planner {
    Planner::new(layout(), budget, std::iter::empty())
}

fn links(history: &History) -> VecDeque<Link> {
    let mut chain = Chain::new(PREFIX.into(), Position { epoch: 1, seq: 0 }, Hash::default());
    let take = |(entry, hash, index): &(record::Entry, Hash, u64)| {
        chain.take(entry.clone(), hash.clone(), *index, Vec::new()).unwrap().unwrap()
    };
    history.log.iter().map(take).collect()
}

fn lock(key: &str) -> Op {
    Op::Lock { key: key.into(), value: Bytes::from_static(b"me"), flags: 0, session: SessionId::from("s") }
}

fn history(writes: &[&[Op]]) -> History {
    let mut history = History { epoch: 1, ..History::default() };
    writes.iter().for_each(|ops| assert!(history.write(ops)));
    history
}

#[test]
fn whole_entries_share_a_transaction_as_far_as_they_fit() {
    let two = [set("p/a", "1"), set("p/b", "1")];
    let mut queue = links(&history(&[&two, &two, &two]));
    let mut planner = planner(Budget { ops: 5, ..ROOMY });
    let first = planner.plan(&mut queue).unwrap();
    assert_eq!((first.entries, first.data.len(), first.to.seq), (2, 4, 2));
    assert_eq!(planner.plan(&mut queue).unwrap().entries, 1);
    assert!(planner.plan(&mut queue).is_none());
}

#[test]
fn an_entry_is_never_split_whatever_it_costs() {
    let many: Vec<Op> = (0..10).map(|n| set(&format!("p/{n}"), "value")).collect();
    let mut queue = links(&history(&[&many, &many]));
    let small = Budget { ops: 4, bytes: 10 };
    let batch = planner(small).plan(&mut queue).unwrap();
    assert_eq!((batch.entries, batch.data.len()), (1, 10));
}

#[test]
fn a_lock_becomes_a_mark_and_back() {
    let freed =
        Op::Unlock { key: "p/l".into(), value: Bytes::new(), flags: 0, session: SessionId::from("s") };
    let history = history(&[&[set("p/l", "1")], &[lock("p/l")], &[freed]]);
    let mut planner = planner(Budget { ops: 2, ..ROOMY });
    let mut queue = links(&history);
    let data = planner.plan(&mut queue).unwrap();
    assert_eq!(data.data, [set("p/l", "1")]);
    let held = planner.plan(&mut queue).unwrap();
    assert_eq!(held.marks, [mark(&layout(), "p/l")]);
    assert_eq!(held.data, [Op::Delete { key: "p/l".into() }]);
    let freed = planner.plan(&mut queue).unwrap();
    assert_eq!(freed.unmarks, [unmark(&layout(), "p/l")]);
    assert_eq!(freed.data, [set("p/l", "")]);
}

#[test]
fn what_is_held_for_a_moment_of_the_batch_needs_no_mark() {
    let freed =
        Op::Unlock { key: "p/l".into(), value: Bytes::new(), flags: 0, session: SessionId::from("s") };
    let batch = planner(ROOMY).plan(&mut links(&history(&[&[lock("p/l")], &[freed]]))).unwrap();
    assert!(batch.marks.is_empty() && batch.unmarks.is_empty());
}

#[test]
fn progress_and_data_stand_behind_the_check_of_the_session() {
    let guarded = Guarded { duty: "duty".into(), session: SessionId::from("s"), state: "state".into() };
    let ops = guarded.replace(7, Bytes::new(), [set("p/a", "1")]);
    assert!(matches!(&ops[0], Op::CheckSession { key, .. } if key == "duty"));
    assert!(matches!(&ops[1], Op::Cas { key, index: 7, .. } if key == "state"));
    assert_eq!(ops.len(), 3);
    assert!(matches!(&guarded.keep(7, [])[1], Op::CheckIndex { index: 7, .. }));
}

#[test]
fn results_belong_to_verbs_by_their_keys() {
    let pair = |key: &str, modify_index| Pair {
        key: key.into(),
        value: Bytes::new(),
        flags: 0,
        session: None,
        lock_index: 0,
        create_index: 1,
        modify_index,
    };
    let guarded = Guarded { duty: "d".into(), session: SessionId::from("s"), state: "t".into() };
    let ops = guarded.replace(7, Bytes::new(), [Op::Delete { key: "p/x".into() }, set("p/a", "1")]);
    let expected = BTreeMap::from([("t", 9), ("p/a", 9)]);
    let with_check = [pair("d", 3), pair("t", 9), pair("p/a", 9)];
    assert_eq!(written(&ops, &with_check), Some(expected.clone()));
    assert_eq!(written(&ops, &with_check[1..]), Some(expected));
    assert_eq!(written(&ops, &with_check[..2]), None, "a result is missing");
    assert_eq!(written(&ops, &[with_check[1].clone(), with_check[1].clone()]), None, "it is another's");
}

/// A replica that applies batches, as the task does.
struct Applied {
    local: Kv,
    memory: Memory,
    planner: Planner,
}

impl Applied {
    fn apply(&mut self, queue: &mut VecDeque<Link>) -> Option<Batch> {
        let batch = self.planner.plan(queue)?;
        let ops = [batch.marks.clone(), batch.data.clone(), batch.unmarks.clone()].concat();
        let TxnReply::Committed(results) = self.local.txn(&ops) else { panic!("{ops:?} was rolled back") };
        let indexes = written(&ops, &results).unwrap();
        let fates =
            batch.fates.iter().map(|(key, fate)| (key.as_str(), *fate, indexes.get(key.as_str()).copied()));
        self.memory.apply(&batch.trees, fates);
        Some(batch)
    }
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["p/a", "p/b", "p/d/x", "p/d/y"]).prop_map(str::to_owned)
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop::sample::select(vec!["", "1", "2"]);
    let unlock = |key| Op::Unlock { key, value: Bytes::new(), flags: 0, session: SessionId::from("s") };
    prop_oneof![
        6 => (key(), value).prop_map(|(key, value)| set(&key, value)),
        2 => key().prop_map(|key| Op::Delete { key }),
        1 => prop::sample::select(vec!["p/", "p/d/"]).prop_map(|tree| Op::DeleteTree { prefix: tree.into() }),
        1 => key().prop_map(|key| lock(&key)),
        1 => key().prop_map(unlock),
    ]
}

/// Whether the home takes it: a plain write of a key that somebody holds is refused.
fn is_taken(history: &History, ops: &[Op]) -> bool {
    let is_held = |key: &str| history.kv.pairs.get(key).is_some_and(|pair| pair.session.is_some());
    let locked_here =
        |key: &str| ops.iter().any(|op| matches!(op, Op::Lock { .. }) && op.key().starts_with(key));
    ops.iter().all(|op| match op {
        Op::Set { key, .. } | Op::Delete { key } => !is_held(key) && !locked_here(key),
        Op::DeleteTree { prefix } => {
            !history.kv.list(prefix).iter().any(|pair| is_held(&pair.key)) && !locked_here(prefix)
        }
        _ => true,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the batches, the replica holds what the home held at that entry, and each index told is the home's.
    #[test]
    fn a_replica_is_the_fold_of_the_journal(
        writes in prop::collection::vec(prop::collection::vec(op(), 1..4), 1..30),
        budget in 1_usize..12,
        lost_sessions in prop::collection::vec(any::<bool>(), 30),
    ) {
        let mut home = History { epoch: 1, ..History::default() };
        let mut moments = vec![home.clone()];
        for (ops, loses_sessions) in writes.iter().zip(lost_sessions) {
            if is_taken(&home, ops) && home.write(ops) {
                moments.push(home.clone());
            }
            if loses_sessions {
                // Consul frees a session's locks without an entry.
                home.kv.index += 1;
                let index = home.kv.index;
                for pair in home.kv.pairs.values_mut().filter(|pair| pair.session.is_some()) {
                    (pair.session, pair.modify_index) = (None, index);
                }
            }
        }
        let budget = Budget { ops: budget, ..ROOMY };
        let local = Kv { index: 1_000, ..Kv::default() };
        let mut replica = Applied { local, memory: Memory::default(), planner: planner(budget) };
        let mut queue = links(&home);
        while let Some(batch) = replica.apply(&mut queue) {
            let at = &moments[usize::try_from(batch.to.seq).unwrap()];
            check(&replica, at)?;
        }
    }
}

fn check(replica: &Applied, home: &History) -> Result<(), TestCaseError> {
    let mut expected = home.kv.data(PREFIX);
    expected.retain(|key, _| !home.held.contains(key));
    prop_assert_eq!(replica.local.data(PREFIX), expected);
    let marks = replica.local.list(&layout().all_held());
    let marks: BTreeSet<_> =
        marks.iter().filter_map(|pair| layout().is_held(&pair.key)).map(str::to_owned).collect();
    prop_assert_eq!(&marks, &home.held);
    prop_assert_eq!(replica.memory.held().map(str::to_owned).collect::<BTreeSet<_>>(), marks);
    for pair in replica.local.list(PREFIX) {
        let Pair { create_index: create, modify_index: modify, lock_index: lock, .. } =
            home.kv.pairs[&pair.key];
        match replica.memory.indexes(&pair.key, pair.modify_index) {
            Indexes::Known { .. } => prop_assert_eq!(
                replica.memory.indexes(&pair.key, pair.modify_index),
                Indexes::Known { create, modify, lock }
            ),
            Indexes::Unknown => {
                let was_lock = home
                    .log
                    .iter()
                    .flat_map(|(entry, ..)| &entry.ops)
                    .any(|change| matches!(change, record::Change::Held { k } if *k == pair.key));
                prop_assert!(was_lock, "{} was never a lock, and its index is not known", pair.key);
            }
        }
    }
    prop_assert_eq!(replica.memory.len(), replica.local.list(PREFIX).len());
    Ok(())
}
