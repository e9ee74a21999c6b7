//! Whether keys are really gone, which no list proves: it leaves out what the agent's token may not see, and Consul
//! before 1.11 does not say so. Its leader tells in a transaction, which it refuses where the token may not write a key
//! (1.8.7).

use crate::{
    model::{
        kv::{Op, TxnReply},
        sync::Position,
    },
    sync::{
        home::{Shared, journal},
        peer::PeerError,
        store::{Read, Store, within},
    },
};

/// Confirms that none of these keys was there at this position.
pub(crate) async fn confirm<S: Store>(
    shared: &Shared<S>,
    keys: &[String],
    at: Position,
) -> Result<(), PeerError> {
    for some in keys.chunks(shared.settings.max_txn_ops.max(1)) {
        let checks = some.iter().map(|key| Op::CheckNotExists { key: key.clone() }).collect();
        let reply = within(shared.settings.commit_timeout, shared.store.txn(checks)).await;
        let TxnReply::RolledBack(errors) = reply.map_err(|error| unknown(&error))? else { continue };
        for error in errors {
            let key = some.get(error.op_index).ok_or_else(|| refused("a key", &error.what))?;
            since(shared, key, at).await.map_err(|why| refused(key, &why))?;
        }
    }
    Ok(())
}

/// Makes sure that a key which is there now was made after the position.
async fn since<S: Store>(shared: &Shared<S>, key: &str, at: Position) -> Result<(), String> {
    let read = within(shared.settings.commit_timeout, shared.store.get(key, Read::Consistent)).await;
    let pair = read.map_err(|error| error.to_string())?.value.ok_or("it comes and goes")?;
    let entry = journal::key(&shared.store, &shared.layout.entry(at.seq)).await;
    let entry =
        entry.map_err(|error| error.to_string())?.ok_or("it is there, and the entry of the list is gone")?;
    match pair.create_index > entry.modify_index {
        true => Ok(()),
        false => {
            Err("it is there, and the list lacked it: this agent's token may not see all keys".to_owned())
        }
    }
}

fn refused(key: &str, why: &str) -> PeerError {
    PeerError::Refused(format!("the home cannot confirm that {key} is gone: {why}"))
}

fn unknown(error: &impl std::fmt::Display) -> PeerError {
    PeerError::Refused(format!("the home cannot confirm that keys are gone: {error}"))
}
