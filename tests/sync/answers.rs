//! No bad answer of Consul's deletes anything: a table of what is asked on replication's way, and of what may come back
//! instead of the truth, over as many keys as consul-replicate once deleted after such an answer. The real client asks over
//! HTTP.
//!
//! While it lasts the replica says that something is wrong, or needs nothing of it; after that it has what the home has. An
//! answer that is a lie in Consul's own form, such as an empty list, is told from the truth by nothing in it: at home it is
//! believed only when a transaction says so too, and what a list lacks is deleted only when one confirms that it is gone.

mod asking;
mod duty;
mod home;
mod server;
mod upkeep;
mod world;

use std::time::Duration;

use causeway::sync::replica::machine::Stage;

use self::{
    server::{Asked, Bad, Spot},
    world::{KEYS, PREFIX, Plan, World},
};

/// Which of the two asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Home,
    Replica,
}

/// What leads there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All data is taken anew.
    Resync,
    /// The stream is cut and begins again. Meanwhile the home has written.
    Reconnect,
    /// Another agent takes the home over.
    MoveHome,
    /// Another agent takes the replica over.
    MoveReplica,
    /// The home writes.
    Write,
    /// The same with a value that stands beside the journal.
    WriteLarge,
    /// All data is taken anew, and behind its list the home writes such a value.
    WriteBehind,
    /// Nothing: it is asked now and then.
    Wait,
}

/// What an answer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The replica is interrupted and says why.
    Retries,
    /// The home does not serve and says why.
    HomeWaits,
    /// Nothing needs it.
    GoesOn,
}

/// A place where Consul is asked.
struct Point {
    name: &'static str,
    side: Side,
    spot: Spot,
    way: Way,
    /// Whether the replica has to have everything again after each answer, or after all of them.
    is_each: bool,
    /// What is said of it contains one of these.
    words: &'static [&'static str],
}

const LIST: Spot = |asked: &Asked<'_>| asked.is_read && asked.is_list && asked.path == "kv/config/";
const LOG: Spot = |asked: &Asked<'_>| asked.is_read && asked.is_list && asked.path.contains("/log/");
const MARKS: Spot = |asked: &Asked<'_>| asked.is_read && asked.is_list && asked.path.ends_with("/held/");
const STATE: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.ends_with("/state");
const HEAD: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.ends_with("/head");
const HEAD_BEHIND: Spot = |asked: &Asked<'_>| HEAD(asked) && asked.is_behind_list;
const EPOCH: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.ends_with("/epoch");
const SENTINEL: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.ends_with("/sentinel");
const DUTY: Spot = |asked: &Asked<'_>| asked.is_read && asked.path.contains("/duty/");
const ENTRY: Spot = |asked: &Asked<'_>| asked.is_read && !asked.is_list && asked.path.contains("/log/");
const BLOB: Spot = |asked: &Asked<'_>| asked.is_read && !asked.is_list && asked.path.contains("/blob/");
const RIGHTS: Spot = |asked: &Asked<'_>| asked.path == "internal/acl/authorize";
/// What confirms that keys are gone.
const CONFIRMATION: Spot = |asked: &Asked<'_>| asked.is_txn_with(&["check-not-exists"]);
const TXN: Spot = |asked: &Asked<'_>| asked.path == "txn";

/// What may come instead of a list.
const OF_LISTS: &[Bad] = &[
    Bad::Empty,
    Bad::Missing,
    Bad::Elsewhere,
    Bad::Filtered,
    Bad::Hidden,
    Bad::Denied,
    Bad::Failed,
    Bad::Cut,
    Bad::Stale,
];

/// What was not asked for so long after the way was opened is not going to be.
const A_WHILE: Duration = Duration::from_secs(10);

/// What may come instead of a key. One that the token may not read is denied.
const OF_KEYS: &[Bad] = &[
    Bad::Empty,
    Bad::Missing,
    Bad::Elsewhere,
    Bad::Filtered,
    Bad::Denied,
    Bad::Failed,
    Bad::Cut,
    Bad::Stale,
];

/// What may come instead of what became of a transaction, or of what the token may do.
const OF_CALLS: &[Bad] =
    &[Bad::Empty, Bad::Missing, Bad::Elsewhere, Bad::Filtered, Bad::Denied, Bad::Failed, Bad::Cut];

impl World {
    fn side(&self, side: Side) -> &server::Server {
        match side {
            Side::Home => &self.at_home,
            Side::Replica => &self.at_replica,
        }
    }

    /// One row.
    async fn row(&mut self, point: &Point, bad: Bad, then: Then) {
        let row = format!("{}: {bad:?}", point.name);
        if point.way == Way::Reconnect {
            self.cut(true);
            self.until(|world| world.status().stage == Stage::Retry).await;
            self.write().await;
        }
        let retries = |world: &Self| world.status().counts.stages.get("retry").copied().unwrap_or(0);
        let before = if point.way == Way::MoveReplica { 0 } else { retries(self) };
        // A replica that believes that it has nothing writes all of it: once is enough.
        let times = (then == Then::GoesOn && is_lie(bad)).then_some(1);
        self.side(point.side).spoil(point.spot, bad, times);
        match point.way {
            Way::Resync => self.resync().await,
            Way::Reconnect => self.reconnect(point.side).await,
            Way::MoveHome => self.move_home(),
            Way::MoveReplica => self.move_replica(),
            Way::Write => self.write().await,
            Way::WriteLarge => self.write_large().await,
            Way::WriteBehind => self.write_behind().await,
            Way::Wait => {}
        }
        self.side(point.side).has_spoiled().await;
        let says = |text: &str| point.words.iter().any(|word| text.contains(word));
        let told = |world: &Self| match then {
            Then::Retries => {
                let status = world.status();
                status.reason.filter(|reason| status.stage == Stage::Retry && says(reason))
            }
            Then::HomeWaits => world.home_says().filter(|reason| says(reason)),
            Then::GoesOn => Some(String::new()),
        };
        self.until(|world| told(world).is_some()).await;
        println!("{row}: {then:?}: {}", told(self).unwrap_or_default());
        self.assert_intact(&row);
        self.side(point.side).mend();
        if point.is_each || then == Then::GoesOn {
            self.is_level().await;
            self.assert_intact(&row);
            assert!(then != Then::GoesOn || retries(self) == before, "{row}");
        }
    }

    /// Until a bad answer is met: who tried while the way was cut may have asked before the answers turned bad, and follow now
    /// that it is open.
    async fn reconnect(&self, side: Side) {
        self.cut(false);
        while !self.side(side).has_spoiled_within(A_WHILE).await {
            self.cut(true);
            self.until(|world| world.status().stage == Stage::Retry).await;
            self.cut(false);
        }
    }

    async fn write_behind(&mut self) {
        self.at_home.hold();
        self.resync().await;
        self.at_home.has_held().await;
        self.write_large().await;
        self.at_home.let_go();
    }

    /// A column: each of these answers at a point.
    async fn column(&mut self, point: &Point, bads: &[Bad], then: impl Fn(Bad) -> Then) {
        for bad in bads {
            if point.is_each && point.way != Way::MoveReplica {
                self.refresh().await;
            }
            self.row(point, *bad, then(*bad)).await;
        }
        if point.way == Way::MoveHome {
            self.move_home();
        }
        self.refresh().await;
        self.assert_intact(point.name);
    }

    /// What was taken for an edit.
    fn assert_nothing_was_edited(&self) {
        assert_eq!(self.status().counts.local_edits, 0, "{:?}", self.status());
    }
}

/// What becomes of a replica that gets it instead of a list of its own keys: it writes what it seems to lack.
fn told_unless_lied(bad: Bad) -> Then {
    if is_lie(bad) { Then::GoesOn } else { Then::Retries }
}

/// Whether it is a lie in Consul's own form.
fn is_lie(bad: Bad) -> bool {
    matches!(bad, Bad::Empty | Bad::Missing)
}

/// Of a point at home.
fn at_home(name: &'static str, spot: Spot, way: Way, words: &'static [&'static str]) -> Point {
    Point { name, side: Side::Home, spot, way, is_each: false, words }
}

/// Of a point at the replica.
fn at_replica(name: &'static str, spot: Spot, way: Way, words: &'static [&'static str]) -> Point {
    Point { name, side: Side::Replica, spot, way, is_each: false, words }
}

impl Point {
    fn each(self) -> Self {
        Self { is_each: true, ..self }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_answer_to_a_home_that_sends_a_snapshot_deletes_anything() {
    let mut world = World::start(Plan::default()).await;
    let list = at_home("the list of a snapshot", LIST, Way::Resync, &[PREFIX]).each();
    world.column(&list, OF_LISTS, |_| Then::Retries).await;
    let head = at_home("the head at a snapshot", HEAD, Way::Resync, &["head"]);
    world.column(&head, OF_KEYS, |_| Then::Retries).await;
    let after = at_home("the head after the list of a snapshot", HEAD_BEHIND, Way::Resync, &["head"]);
    world.column(&after, OF_KEYS, |_| Then::Retries).await;
    let sentinel = at_home("the sentinel at a snapshot", SENTINEL, Way::Resync, &["sentinel"]);
    world.column(&sentinel, &[Bad::Missing, Bad::Denied, Bad::Failed], |_| Then::Retries).await;
    let behind: [(_, Spot, &'static [&'static str], _); 2] = [
        ("the entries behind the list of a snapshot", LOG, &["/log/"], OF_LISTS),
        ("the values behind the list of a snapshot", BLOB, &["/blob/"], OF_KEYS),
    ];
    for (name, spot, words, bads) in behind {
        world.column(&at_home(name, spot, Way::WriteBehind, words).each(), bads, |_| Then::Retries).await;
    }
    let entries = at_home("the entries behind a follower", LOG, Way::Reconnect, &["/log/"]).each();
    world.column(&entries, OF_LISTS, |_| Then::Retries).await;
    world.assert_nothing_was_edited();
}

/// So few that no guard keeps them, and the rights tell nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_that_the_homes_list_lacks_is_deleted_before_the_home_confirms_that_it_is_gone() {
    let world = World::start(Plan::default()).await;
    let answers = std::iter::once(None).chain(OF_CALLS.iter().copied().map(Some));
    for confirmation in answers {
        let row = format!("a list without some keys, and their confirmation: {confirmation:?}");
        world.at_home.spoil(LIST, Bad::Narrowed, None);
        if let Some(bad) = confirmation {
            world.at_home.spoil_too(CONFIRMATION, bad, None);
        }
        world.resync().await;
        let says = |world: &World| world.status().reason.filter(|reason| reason.contains("cannot confirm"));
        world.until(|world| world.status().stage == Stage::Retry && says(world).is_some()).await;
        println!("{row}: {}", says(&world).unwrap_or_default());
        world.assert_intact(&row);
        assert!(world.at_home.all_met(), "{row}");
        world.at_home.mend();
        world.is_level().await;
        world.assert_intact(&row);
    }
    world.assert_nothing_was_edited();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_answer_to_a_home_that_takes_over_deletes_anything() {
    let mut world = World::start(Plan::default()).await;
    let list = at_home("the list of a takeover", LIST, Way::MoveHome, &[PREFIX]);
    world.column(&list, OF_LISTS, |_| Then::HomeWaits).await;
    let keys: [(_, _, &'static [&'static str]); 5] = [
        ("the duty's key at a takeover", DUTY, &["/duty/", "duty's lock"]),
        ("the epoch at a takeover", EPOCH, &["epoch"]),
        ("the head at a takeover", HEAD, &["head"]),
        ("the sentinel at a takeover", SENTINEL, &["sentinel"]),
        ("the last entry at a takeover", ENTRY, &["/log/", "should end with entry"]),
    ];
    for (name, spot, words) in keys {
        world.column(&at_home(name, spot, Way::MoveHome, words), OF_KEYS, |_| Then::HomeWaits).await;
    }
    let newest = at_home("the newest entries at a takeover", LOG, Way::MoveHome, &["/log/"]);
    world.column(&newest, &[Bad::Missing, Bad::Denied, Bad::Cut], |_| Then::HomeWaits).await;
    world.assert_nothing_was_edited();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_answer_to_a_replica_that_copies_deletes_anything() {
    let mut world = World::start(Plan::default()).await;
    let copy = at_replica("the list of a copy", LIST, Way::Resync, &[PREFIX, "/held/"]).each();
    world.column(&copy, OF_LISTS, told_unless_lied).await;
    let rights = at_replica("the rights on a list", RIGHTS, Way::Resync, &["authorize"]);
    world.column(&rights, OF_CALLS, |_| Then::Retries).await;
    let marks = at_replica("the marks at a copy", MARKS, Way::Resync, &["/held/"]);
    world.column(&marks, OF_LISTS, told_unless_lied).await;
    let begin = at_replica("the first transaction of a copy", TXN, Way::Resync, &["/v1/txn"]);
    world.column(&begin, OF_CALLS, |_| Then::Retries).await;
    assert_eq!(world.status().keys, KEYS);
    world.assert_nothing_was_edited();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_answer_to_a_replica_that_takes_over_or_follows_deletes_anything() {
    let mut world = World::start(Plan::default()).await;
    let compare = at_replica("the list of a comparison", LIST, Way::MoveReplica, &[PREFIX, "/held/"]).each();
    world.column(&compare, OF_LISTS, told_unless_lied).await;
    let state = at_replica("the state at a takeover", STATE, Way::MoveReplica, &["/state"]);
    world.column(&state, OF_KEYS, |_| Then::Retries).await;
    let state = at_replica("the state", STATE, Way::Reconnect, &["/state"]).each();
    world.column(&state, OF_KEYS, |_| Then::Retries).await;
    let apply = at_replica("a transaction", TXN, Way::Write, &["/v1/txn"]).each();
    world.column(&apply, OF_CALLS, |_| Then::Retries).await;
    assert_eq!(world.status().keys, KEYS + 1, "all of them, and the one that was written");
    world.assert_nothing_was_edited();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_answer_to_an_audit_changes_anything() {
    let mut world = World::start(Plan { audit: Duration::from_millis(20), ..Plan::default() }).await;
    let list = at_replica("the list of an audit", LIST, Way::Reconnect, &[]).each();
    world.column(&list, OF_LISTS, |_| Then::GoesOn).await;
    let marks = at_replica("the marks of an audit", MARKS, Way::Reconnect, &[]).each();
    world.column(&marks, OF_LISTS, |_| Then::GoesOn).await;
    // Only a record that is gone is something to be told of.
    let state = at_replica("the state of an audit", STATE, Way::Write, &["/state"]).each();
    let then = |bad| if bad == Bad::Missing { Then::Retries } else { Then::GoesOn };
    world.column(&state, OF_KEYS, then).await;
    world.assert_nothing_was_edited();
    assert_eq!(world.status().counts.snapshots, 1, "nothing was taken anew");
}
