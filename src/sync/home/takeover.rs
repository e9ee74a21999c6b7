//! Taking a prefix over: reading what is there, asking what others know, and beginning a new epoch where that differs.
//!
//! It runs while this agent holds the duty's lock. What another agent had sent before can no longer be executed then: it
//! begins with a check of that agent's session.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{
        kv::{Op, TxnReply},
        session::SessionId,
    },
    sync::{
        home::{
            Others, Shared,
            batch::{self, Behind},
            commit::End,
            fence::{self, Decision, Found, Sentinel},
            history::Logged,
            journal::{self, JournalError, Recorded},
            memory::Locks,
        },
        layout::Duty,
        peer::Known,
        record::{self, Epochs, Hash, Head},
        store::Store,
    },
};

/// How long others may take to say what they know.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a home serves from.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) epochs: Epochs,
    pub(crate) head: Head,
    pub(crate) head_index: u64,
    /// When the last entry was committed.
    pub(crate) ts_ms: u64,
    pub(crate) locks: Locks,
    /// The newest entries.
    pub(crate) newest: Vec<Logged>,
}

/// The records, with the indexes that replace them.
struct Records {
    found: Found,
    epochs_index: u64,
    head_index: u64,
    ts_ms: u64,
}

/// Takes over. `remembered` is what this process knows, `contested` what a follower has shown.
///
/// # Errors
/// Why not, for people. Trying again is right.
pub(crate) async fn take_over<S: Store, O: Others>(
    shared: &Shared<S>,
    others: &O,
    session: &SessionId,
    remembered: Option<&Known>,
    contested: Option<&Known>,
) -> Result<Taken, End> {
    let prefix = &shared.settings.prefix;
    has_duty(shared, session).await?;
    let doubt = |error: JournalError| End::Doubt(error.to_string());
    let mut records = read(shared).await.map_err(doubt)?;
    let mut known = tokio::time::timeout(ASK_TIMEOUT, others.known(&prefix.text)).await.unwrap_or_default();
    known.retain(|known| known.prefix == prefix.text);
    known.extend(remembered.cloned());
    known.extend(shared.settings.positions.known(&prefix.text));
    records.found.entries = entries(shared, &records.found, &known).await.map_err(doubt)?;
    let epoch = contested.map(|contested| contested.position.epoch);
    let (epochs, head, ts_ms) = match fence::decide(&records.found, &known, epoch, prefix) {
        Decision::Serve => {
            let Found { epochs: Some(epochs), head: Some(head), .. } = records.found else {
                return Err(End::Doubt("the records are incomplete".into()));
            };
            return finish(shared, epochs, head, records.head_index, records.ts_ms).await.map_err(doubt);
        }
        Decision::Begin { epochs, head } => {
            tracing::info!(prefix = prefix.text, epoch = epochs.epoch, "journal begun");
            (epochs, head, 0)
        }
        Decision::NewEpoch { epochs, head, reason } => {
            tracing::warn!(
                prefix = prefix.text,
                epoch = epochs.epoch,
                seq = head.position.seq,
                reason,
                "history was restored: new epoch"
            );
            (epochs, head, records.ts_ms)
        }
        Decision::Refuse(reason) => return Err(End::Doubt(reason)),
    };
    let written = write(shared, session, &epochs, &head, &records).await;
    let head_index =
        written.map_err(|reason| End::Doubt(format!("begin epoch {}: {reason}", epochs.epoch)))?;
    finish(shared, epochs, head, head_index, ts_ms).await.map_err(doubt)
}

/// Whether Consul says so too. Nobody else's transaction can be executed from then on.
async fn has_duty<S: Store>(shared: &Shared<S>, session: &SessionId) -> Result<(), End> {
    let lock = shared.layout.duty(Duty::Home);
    let held = journal::key(&shared.store, &lock).await.map_err(|error| End::Doubt(error.to_string()))?;
    let is_ours = held.is_some_and(|pair| pair.session.as_ref() == Some(session));
    if is_ours { Ok(()) } else { Err(End::DutyLost) }
}

async fn read<S: Store>(shared: &Shared<S>) -> Result<Records, JournalError> {
    let (store, layout) = (&shared.store, &shared.layout);
    let epochs: Option<Recorded<Epochs>> = journal::record(store, &layout.epoch()).await?;
    let head: Option<Recorded<Head>> = journal::record(store, &layout.head()).await?;
    let sentinel: Option<Recorded<Sentinel>> = journal::record(store, &layout.sentinel()).await?;
    let seq = head.as_ref().map_or(0, |head| head.record.position.seq);
    let last = match journal::key(store, &layout.entry(seq)).await? {
        Some(pair) => Some(journal::logged(&pair)?),
        None => None,
    };
    Ok(Records {
        epochs_index: epochs.as_ref().map_or(0, |epochs| epochs.index),
        head_index: head.as_ref().map_or(0, |head| head.index),
        ts_ms: last.as_ref().map_or(0, |last| last.entry.ts_ms),
        found: Found {
            epochs: epochs.map(|epochs| epochs.record),
            head: head.map(|head| head.record),
            sentinel: sentinel.map(|sentinel| sentinel.record),
            last: last.map(|last| (last.entry.position, last.hash)),
            entries: BTreeMap::new(),
        },
    })
}

/// Our entries at the positions of the present epoch that are known elsewhere, as far as they are kept.
async fn entries<S: Store>(
    shared: &Shared<S>,
    found: &Found,
    known: &[Known],
) -> Result<BTreeMap<u64, Hash>, JournalError> {
    let mut entries = BTreeMap::new();
    for seq in known.iter().filter_map(|known| fence::compared(found, known)) {
        if let Some(pair) = journal::key(&shared.store, &shared.layout.entry(seq)).await? {
            entries.insert(seq, journal::logged(&pair)?.hash);
        }
    }
    Ok(entries)
}

/// Writes the records of a new epoch over those that were read, and over no others.
async fn write<S: Store>(
    shared: &Shared<S>,
    session: &SessionId,
    epochs: &Epochs,
    head: &Head,
    over: &Records,
) -> Result<u64, String> {
    let (layout, prefix) = (&shared.layout, &shared.settings.prefix);
    let sentinel = Sentinel { prefix: prefix.text.clone(), home: prefix.home.clone() };
    let behind = Behind { layout, session, head, head_index: over.head_index, ts_ms: 0 };
    let cas = |key, value, index| Op::Cas { key, value, flags: 0, index };
    let ops = vec![
        batch::check(&behind),
        cas(layout.epoch(), record::encode(epochs), over.epochs_index),
        Op::Set { key: layout.sentinel(), value: record::encode(&sentinel), flags: 0 },
        cas(layout.head(), record::encode(head), over.head_index),
    ];
    match tokio::time::timeout(shared.settings.commit_timeout, shared.store.txn(ops)).await {
        Ok(Ok(TxnReply::Committed(_))) => {}
        Ok(Ok(TxnReply::RolledBack(errors))) => {
            let what = errors.first().map_or("", |error| error.what.as_str());
            return Err(what.to_owned());
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("Consul did not answer in time".into()),
    }
    let written: Recorded<Head> =
        journal::expected(&shared.store, &layout.head()).await.map_err(|error| error.to_string())?;
    if written.record == *head {
        Ok(written.index)
    } else {
        Err("the head was replaced by somebody else".into())
    }
}

/// Learns what the prefix holds: which keys are locks, and which requests were carried out lately.
async fn finish<S: Store>(
    shared: &Shared<S>,
    epochs: Epochs,
    head: Head,
    head_index: u64,
    ts_ms: u64,
) -> Result<Taken, JournalError> {
    let (store, layout) = (&shared.store, &shared.layout);
    let mut locks = Locks::default();
    for pair in &journal::data(store, layout, &shared.settings.prefix.text).await? {
        locks.learn(pair);
    }
    let last = head.position.seq;
    let from = head.first.max((last + 1).saturating_sub(shared.settings.keep.always));
    let newest = journal::entries(store, layout, from.max(1), last).await?;
    Ok(Taken { epochs, head, head_index, ts_ms, locks, newest })
}
