//! A home that writes: what it reads before, what it puts beside the journal, its transaction, the look for an outcome that
//! nobody told, and its look at the head now and then. Whatever Consul says, a request is executed once, and what
//! nobody asked to be deleted stays.
//!
//! The clock jumps, and all answers are made to the real client over HTTP.

use std::collections::BTreeSet;

use bytes::Bytes;
use causeway::{
    model::{
        kv::{Op, TxnReply},
        session::{Behavior, SessionId, SessionSpec},
        sync::Token,
    },
    sync::{
        home::{Guard, Write, Written},
        record::{self, Change, Entry, Hash, Head, Value},
        refusal::Refusal,
    },
};
use tokio::time::sleep;

use super::{
    BLOB, ENTRY, HEAD, OF_CALLS, OF_KEYS, TXN, Then, Way,
    asking::Clock,
    at_home,
    server::{Asked, Bad, Spot},
    world::{LOCK, LOCK_FLAGS, PREFIX, Plan, World, layout, set},
};

/// So many bad answers are given before one is right.
const TIMES: usize = 3;

const LOCK_KEY: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.ends_with("/lock");
const FENCE: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.ends_with("/fence");
const PUT_BLOBS: Spot = |asked: &Asked<'_>| asked.is_txn_with(&["/blob/"]);

/// What became of a request that a bad answer met, before it was sent again.
#[derive(Debug)]
enum Met {
    Done,
    Refused(Refusal),
}

impl World {
    /// Has the home execute it while answers are bad, and tells what came of it once they are good again.
    async fn meets(&mut self, row: &str, write: Write) -> Met {
        let outcome = self.begin(write);
        let is_told = || outcome.borrow().is_some();
        self.until(|world| world.at_home.all_met() && (is_told() || world.at_home.spoiled() >= TIMES)).await;
        self.assert_intact(row);
        self.at_home.mend();
        self.until(|_| is_told()).await;
        let told = outcome.borrow().clone().expect("it was told");
        let met = told.map_or_else(Met::Refused, |_| Met::Done);
        println!("{row}: {met:?}");
        met
    }

    /// Sends a request again as clients do, until it is done.
    async fn again(&self, row: &str, write: &Write) -> Written {
        for _ in 0..1_000 {
            match self.home.write(write.clone()).await {
                Ok(written) => return written,
                Err(Refusal::NotServing(_) | Refusal::OutcomeUnknown { .. }) => {
                    sleep(Clock::Jumps.step()).await;
                }
                Err(refusal) => panic!("{row}: {refusal}"),
            }
        }
        panic!("{row}: the home does not go on: {:?}", self.home.status());
    }

    /// A row: the request meets bad answers, and is done once after that.
    async fn writes(&mut self, row: &str, write: Write) -> Met {
        let met = self.meets(row, write.clone()).await;
        let is_final = |refusal: &Refusal| matches!(refusal, Refusal::StaleToken { .. } | Refusal::Bad(_));
        let write = match &met {
            // Such an answer is remembered with the id: who knows better asks anew.
            Met::Refused(refusal) if is_final(refusal) => {
                Write { request_id: format!("{} again", write.request_id), ..write }
            }
            _ => write,
        };
        let written = self.again(row, &write).await;
        assert!(matches!(written.reply, TxnReply::Committed(_)), "{row}: {written:?}");
        self.is_level().await;
        self.assert_intact(row);
        assert_eq!(self.assert_journal(row, &write.request_id), 1, "{row}: executed once");
        self.assert_same(row, write.ops[0].key());
        met
    }

    /// What a write left is the same on both sides.
    fn assert_same(&self, row: &str, key: &str) {
        let value = |world: &super::server::Server| {
            world.consul().look(|model| model.get(key).1).map(|pair| pair.value)
        };
        let (home, replica) = (value(&self.at_home), value(&self.at_replica));
        assert!(home.is_some() && home == replica, "{row}: {key}");
    }

    /// All that the journal still needs is there: its entries from the first to the last, one hash after the other, and
    /// each value that one of them names. Gives how many of them tell of a request.
    pub(super) fn assert_journal(&self, row: &str, request: &str) -> usize {
        let layout = layout();
        self.at_home.consul().look(|model| {
            let value = |key: &str| {
                let pair = model.get(key).1.unwrap_or_else(|| panic!("{row}: {key} is missing"));
                pair.value
            };
            let head: Head = record::decode("head", &value(&layout.head())).unwrap();
            let (mut told, mut before) = (0, None);
            for seq in head.first.max(1)..=head.position.seq {
                let bytes = value(&layout.entry(seq));
                let entry: Entry = record::decode("entry", &bytes).unwrap();
                assert!(
                    before.is_none_or(|hash| hash == entry.prev_hash),
                    "{row}: entry {seq} follows another"
                );
                for Hash(hash) in named(&entry) {
                    assert_eq!(Hash::of(&value(&layout.blob(&hash))), Hash(hash), "{row}: of entry {seq}");
                }
                told += entry.requests.iter().filter(|one| one.id == request).count();
                before = Some(Hash::of(&bytes));
            }
            assert!(before.is_none_or(|hash| hash == head.hash), "{row}: the head names another entry");
            told
        })
    }

    /// A lock that a session holds which never ends.
    async fn hold_lock(&mut self) -> (SessionId, Token) {
        let session = self.at_home.consul().with(|model| {
            let (name, behavior) = ("holder".to_owned(), Behavior::Release);
            let (ttl, lock_delay) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
            model.create_session(&SessionSpec { name, ttl, lock_delay, behavior }).unwrap()
        });
        let value = Bytes::new();
        let lock = Op::Lock { key: LOCK.into(), value, flags: LOCK_FLAGS, session: session.clone() };
        let written = self.write_op(lock).await;
        (session, written.tokens[0].1)
    }
}

fn named(entry: &Entry) -> BTreeSet<Hash> {
    let values = entry.ops.iter().filter_map(|change| match change {
        Change::Set { value: Value::Blob(hash), .. } => Some(hash.clone()),
        _ => None,
    });
    values.collect()
}

fn jumping() -> Plan {
    Plan { clock: Clock::Jumps, ..Plan::default() }
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_commits_deletes_anything() {
    let mut world = World::start(jumping()).await;
    for bad in OF_CALLS {
        let small = set(format!("{PREFIX}written"), format!("{bad:?}"), 0);
        let rows = [("a commit", TXN, small), ("a large value beside the journal", PUT_BLOBS, world.large())];
        for (name, spot, op) in rows {
            world.at_home.spoil(spot, *bad, None);
            let write = world.request(op);
            world.writes(&format!("{name}: {bad:?}"), write).await;
        }
    }
    world.assert_nothing_was_edited();
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_looks_for_an_outcome_deletes_anything() {
    let mut world = World::start(jumping()).await;
    for bad in OF_KEYS {
        let row = format!("the entry after a commit without an answer: {bad:?}");
        world.at_home.spoil(TXN, Bad::Failed, Some(1));
        world.at_home.spoil_too(ENTRY, *bad, None);
        let write = world.request(set(format!("{PREFIX}written"), row.clone(), 0));
        world.writes(&row, write).await;
    }
    for bad in OF_CALLS {
        let row = format!("the commit and all that bars its way: {bad:?}");
        world.at_home.spoil(TXN, Bad::Failed, Some(1));
        // It was executed, and does not seem to be.
        world.at_home.spoil_too(ENTRY, Bad::Missing, Some(1));
        world.at_home.spoil_too(TXN, *bad, None);
        let write = world.request(set(format!("{PREFIX}written"), row.clone(), 0));
        world.writes(&row, write).await;
    }
    world.assert_nothing_was_edited();
}

/// A lock that seems to be nobody's (a 404, Consul's own form) refuses a guarded write: nothing tells that from the truth.
#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_reads_what_a_request_rests_on_deletes_anything() {
    let mut world = World::start(jumping()).await;
    let (session, token) = world.hold_lock().await;
    for (name, spot) in [("the lock of a guarded write", LOCK_KEY), ("its fence", FENCE)] {
        for bad in OF_KEYS {
            let row = format!("{name}: {bad:?}");
            world.at_home.spoil(spot, *bad, None);
            let write = world.request(set(format!("{PREFIX}written"), row.clone(), 0));
            let met =
                world.writes(&row, Write { guard: Some(Guard { lock: LOCK.into(), token }), ..write }).await;
            let is_stale = matches!(met, Met::Refused(Refusal::StaleToken { .. }));
            assert_eq!(is_stale, *bad == Bad::Missing, "{row}: {met:?}");
        }
    }
    // To delete what a session holds is refused, and so it is where nobody can tell whether one does.
    for bad in OF_KEYS.iter().filter(|bad| **bad != Bad::Missing) {
        let row = format!("the lock that is to be deleted: {bad:?}");
        world.at_home.spoil(LOCK_KEY, *bad, None);
        let write = world.request(Op::Delete { key: LOCK.into() });
        let met = world.meets(&row, write.clone()).await;
        assert!(matches!(met, Met::Refused(Refusal::NotServing(_) | Refusal::Bad(_))), "{row}: {met:?}");
        let held = world.home.write(write).await;
        assert!(matches!(held, Err(Refusal::Held { .. })), "{row}: {held:?}");
        let holder = world.at_home.consul().look(|model| model.get(LOCK).1).and_then(|pair| pair.session);
        assert_eq!(holder.as_ref(), Some(&session), "{row}");
        world.assert_intact(&row);
    }
    world.assert_nothing_was_edited();
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_looks_around_deletes_anything() {
    let mut world = World::start(jumping()).await;
    for bad in OF_KEYS {
        // A head that is gone is a reason to look at everything anew; what cannot be read is none.
        let then = if *bad == Bad::Missing { Then::HomeWaits } else { Then::GoesOn };
        let look = at_home("the head now and then", HEAD, Way::Wait, &["head"]);
        world.row(&look, *bad, then).await;
        world.until(|world| world.home_says().is_none()).await;
        world.write_large().await;
        world.is_level().await;
        let row = format!("the head now and then: {bad:?}");
        world.assert_journal(&row, "");
        world.assert_intact(&row);
    }
    let value = at_home("the value of an entry", BLOB, Way::WriteLarge, &["/blob/"]).each();
    world.column(&value, OF_KEYS, |_| Then::Retries).await;
    world.assert_journal(value.name, "");
    world.assert_nothing_was_edited();
}
