//! A home that lets go of what nobody needs any more: entries by their number and by their age, and values that no entry
//! names. Here something is deleted, by design; so what is proved is that bad answers delete no data, no entry behind
//! the journal's first, and no value that one of those names, and that it goes on after them.

use std::time::Duration;

use bytes::Bytes;
use causeway::{
    model::kv::{Op, TxnReply},
    sync::home::trim::{BLOB_LEEWAY, Keep, TEN},
};

use super::{
    LOG, OF_CALLS, OF_LISTS,
    asking::Clock,
    server::{Asked, Bad, Spot},
    world::{PREFIX, Plan, World, layout, set},
};
use crate::sync::consul_model::under;

/// So few entries stay that each row has some to let go.
const KEPT: u64 = 4;

const TRIM: Spot = |asked: &Asked<'_>| asked.is_txn_with(&["\"delete-tree\"", "/log/"]);
const BLOBS: Spot = |asked: &Asked<'_>| asked.is_read && asked.is_list && asked.path.contains("/blob/");
const SWEEP: Spot = |asked: &Asked<'_>| asked.is_txn_with(&["\"delete-cas\"", "/blob/"]);

fn plan() -> Plan {
    let keep = Keep { always: KEPT, ..Keep::default() };
    Plan { clock: Clock::Jumps, keep, ..Plan::default() }
}

impl World {
    fn first(&self) -> u64 {
        self.home.status().first.unwrap_or(0)
    }

    /// Writes so many entries and has the replica acknowledge them.
    async fn write_entries(&mut self, count: u64) {
        for n in 0..count {
            self.write_op(set(format!("{PREFIX}written"), format!("{n} of {count}"), 0)).await;
        }
        self.write_large().await;
        self.is_level().await;
    }

    /// A row: entries that may go, a bad answer, and then the journal is trimmed all the same.
    async fn trims(&mut self, row: &str, spot: Spot, bad: Bad, is_read: bool) {
        let before = self.first();
        self.at_home.spoil(spot, bad, None);
        self.write_entries(2 * TEN).await;
        self.at_home.has_spoiled().await;
        self.until(|world| world.home_says().is_none()).await;
        self.assert_intact(row);
        self.assert_journal(row, "");
        assert!(!is_read || self.first() == before, "{row}: trimmed by what could not be read");
        self.at_home.mend();
        self.write_entries(TEN).await;
        self.until(|world| world.first() >= before + 2 * TEN).await;
        self.is_level().await;
        self.assert_intact(row);
        self.assert_journal(row, "");
        println!("{row}: the journal begins at {}", self.first());
    }

    /// Values that no entry names: one in each part that is looked through at a time.
    fn put_orphans(&self) {
        let blobs = layout().blobs();
        let op = |part: u32| {
            let key = format!("{blobs}{part:02x}{}", "0".repeat(62));
            Op::Set { key, value: Bytes::from_static(b"no entry names it"), flags: 0 }
        };
        let ops: Vec<Op> = (0..256).map(op).collect();
        self.at_home.consul().with(|model| {
            for some in ops.chunks(64) {
                assert!(matches!(model.txn(some), Ok(TxnReply::Committed(_))));
            }
        });
    }

    fn orphans(&self) -> usize {
        let blobs = layout().blobs();
        let is_orphan = |flags: u64| flags == 0;
        self.at_home
            .consul()
            .look(|model| under(model.pairs(), &blobs).filter(|(_, pair)| is_orphan(pair.flags)).count())
    }

    /// A row: values that may go, bad answers, and then they go all the same.
    async fn sweeps(&mut self, row: &str, spot: Spot, bad: Bad, is_executed: bool) {
        self.at_home.spoil(spot, bad, None);
        self.put_orphans();
        self.write_large().await;
        self.until(|world| world.at_home.spoiled() >= 4).await;
        self.until(|world| world.home_says().is_none()).await;
        self.assert_intact(row);
        self.assert_journal(row, "");
        assert!(is_executed || self.orphans() == 256, "{row}: {} are left", self.orphans());
        self.at_home.mend();
        let before = self.orphans();
        self.until(|world| world.orphans() < before).await;
        self.write_large().await;
        self.is_level().await;
        self.assert_intact(row);
        self.assert_journal(row, "");
        println!("{row}: {} of 256 are left", self.orphans());
    }
}

/// Whether Consul had carried out what it answered so.
fn is_executed(bad: Bad) -> bool {
    matches!(bad, Bad::Empty | Bad::Failed | Bad::Cut)
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_trims_its_journal_deletes_anything_else() {
    let mut world = World::start(plan()).await;
    for bad in OF_CALLS {
        world.trims(&format!("the trim of the journal: {bad:?}"), TRIM, *bad, false).await;
    }
    world.assert_nothing_was_edited();
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_looks_for_old_entries_deletes_anything() {
    let keep = Keep { max_age: Duration::ZERO, ..plan().keep };
    // One that never says how far it is: entries go by their age only.
    let mut world = World::start(Plan { keep, silent: &["tertiary"], ..plan() }).await;
    for bad in OF_LISTS {
        world.trims(&format!("the oldest entries: {bad:?}"), LOG, *bad, true).await;
    }
    world.assert_nothing_was_edited();
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_to_a_home_that_sweeps_values_deletes_one_that_is_named() {
    let mut world = World::start(plan()).await;
    world.write_entries(BLOB_LEEWAY + 2 * TEN).await;
    world.until(|world| world.first() > BLOB_LEEWAY).await;
    for bad in OF_LISTS {
        world.sweeps(&format!("the list of values: {bad:?}"), BLOBS, *bad, false).await;
    }
    for bad in OF_CALLS {
        world.sweeps(&format!("the sweep of values: {bad:?}"), SWEEP, *bad, is_executed(*bad)).await;
    }
    world.assert_nothing_was_edited();
}
