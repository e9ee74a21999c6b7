//! Whether keys are really gone, which no list proves: it leaves out what the agent's token may not see, and Consul
//! before 1.11 does not say so. Its leader tells in a transaction, which it refuses where the token may not write a key
//! (1.8.7).

use std::collections::BTreeSet;

use crate::{
    model::{
        kv::{Op, TxnReply},
        sync::Position,
    },
    sync::{
        home::{Shared, facts, journal},
        peer::PeerError,
        store::{Store, within},
    },
};

/// Looks at keys that are neither there nor gone for long enough to be seen twice.
const ROUNDS: usize = 8;

/// Confirms that none of these keys was there at this position.
pub(crate) async fn confirm<S: Store>(
    shared: &Shared<S>,
    keys: &[String],
    at: Position,
) -> Result<(), PeerError> {
    let mut left: BTreeSet<String> = present(shared, keys.to_vec()).await?;
    for _ in 0..ROUNDS {
        if left.is_empty() {
            return Ok(());
        }
        let gone = without_newer(shared, left, at).await?;
        left = present(shared, gone).await?;
    }
    left.first().map_or(Ok(()), |key| Err(refused(key, "it comes and goes")))
}

/// Those that are there now. The leader says so of each, or refuses all of them.
async fn present<S: Store>(shared: &Shared<S>, keys: Vec<String>) -> Result<BTreeSet<String>, PeerError> {
    let mut present = BTreeSet::new();
    for some in keys.chunks(shared.settings.max_txn_ops.max(1)) {
        let checks = some.iter().map(|key| Op::CheckNotExists { key: key.clone() }).collect();
        let reply = within(shared.settings.commit_timeout, shared.store.txn(checks)).await;
        let reply = reply.map_err(|error| refused(&some[0], &error.to_string()))?;
        let TxnReply::RolledBack(errors) = reply else { continue };
        for error in errors {
            let key = some.get(error.op_index).ok_or_else(|| refused(&some[0], &error.what))?;
            present.insert(key.clone());
        }
    }
    Ok(present)
}

/// Those that are gone again. All others must have been made after the position.
async fn without_newer<S: Store>(
    shared: &Shared<S>,
    keys: BTreeSet<String>,
    at: Position,
) -> Result<Vec<String>, PeerError> {
    let entry = journal::key(&shared.store, &shared.layout.entry(at.seq)).await;
    let looked = facts::look(&shared.store, keys.clone()).await;
    let mut gone = Vec::new();
    for key in keys {
        if let Some(refusal) = looked.failed.get(&key) {
            return Err(refused(&key, &refusal.to_string()));
        }
        let Some(pair) = looked.facts.get(&key).and_then(Option::as_ref) else {
            gone.push(key);
            continue;
        };
        let listed = match &entry {
            Ok(Some(entry)) => entry.modify_index,
            Ok(None) => return Err(refused(&key, "it is there, and the entry where the list ended is gone")),
            Err(error) => return Err(refused(&key, &error.to_string())),
        };
        if pair.create_index <= listed {
            return Err(refused(
                &key,
                "it is there: was it hidden from the list, since this agent's token may not see it?",
            ));
        }
    }
    Ok(gone)
}

fn refused(key: &str, why: &str) -> PeerError {
    PeerError::Refused(format!("the home cannot confirm that {key} is gone: {why}"))
}
