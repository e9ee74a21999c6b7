//! What an answer proves.

use http::StatusCode;

use crate::{
    consul::{
        client::{ClientError, Reply, path},
        wire::{WireError, kv as wire},
    },
    model::kv::{Op, Pair, TxnReply},
};

/// Why there is no answer that proves something. Never holds a token or a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// It never left: nothing was executed.
    #[error("{0}")]
    NotSent(String),
    /// Consul said no: nothing was executed.
    #[error("{reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What Consul said, with its remedy.
        reason: String,
    },
    /// No answer, or none that tells: whether it was executed is open.
    #[error("{0}")]
    Unknown(String),
    /// An answer that says less than it seems to, to a question that changes nothing.
    #[error("{0}")]
    Unusable(String),
}

impl KvError {
    /// Of what could have changed something.
    pub(crate) fn of_write(error: ClientError) -> Self {
        match error {
            ClientError::Cut { .. }
            | ClientError::Deadline { .. }
            | ClientError::TooLong { .. }
            | ClientError::Status { .. }
            | ClientError::Json { .. } => Self::Unknown(error.to_string()),
            ClientError::Tls(_)
            | ClientError::TokenFile { .. }
            | ClientError::Unsendable { .. }
            | ClientError::Path { .. }
            | ClientError::Connect { .. } => Self::NotSent(error.to_string()),
        }
    }

    /// Of what changes nothing.
    pub(crate) fn of_read(error: ClientError) -> Self {
        match error {
            ClientError::TooLong { .. } | ClientError::Json { .. } => Self::Unusable(error.to_string()),
            _ => Self::of_write(error),
        }
    }
}

/// The path of a key. Consul's HTTP server mends paths by a redirect, so that some keys cannot be named in one; a
/// transaction can name them.
pub(crate) fn path_of(key: &str) -> Result<String, KvError> {
    let is_mended = |(place, part): (usize, &str)| match part {
        "." | ".." => true,
        // Nothing behind the last slash is how a folder ends.
        "" => place == 0 || place < key.matches('/').count(),
        _ => false,
    };
    if !key.is_empty() && key.split('/').enumerate().any(is_mended) {
        let reason =
            format!("the key {key:?} cannot be named in a path of HTTP; write keys without //, /./ and /../");
        return Err(KvError::Refused { status: 400, reason });
    }
    let parts: Vec<&str> = ["v1", "kv"].into_iter().chain(key.split('/')).collect();
    Ok(path(&parts))
}

/// What became of a transaction.
pub(crate) fn txn(reply: &Reply, ops: &[Op]) -> Result<TxnReply, KvError> {
    let unknown = |error: WireError| KvError::Unknown(format!("PUT /v1/txn: {error}"));
    match reply.status {
        StatusCode::OK => wire::committed(&reply.body).map_err(unknown),
        StatusCode::CONFLICT => {
            let reply = wire::rolled_back(&reply.body).map_err(unknown)?;
            denied(&reply, ops).map_or(Ok(reply), Err)
        }
        _ => Err(refused_write(reply)),
    }
}

/// A right that the token lacks, among the reasons of a rollback.
fn denied(reply: &TxnReply, ops: &[Op]) -> Option<KvError> {
    let TxnReply::RolledBack(errors) = reply else { return None };
    let error = errors.iter().find(|error| error.what.starts_with(wire::DENIED))?;
    let key = ops.get(error.op_index).map_or("a key", Op::key);
    let reason = format!(
        "PUT /v1/txn: {} on {key}; give the token a key_prefix rule with policy = \"write\"",
        error.what
    );
    Some(KvError::Refused { status: 403, reason })
}

/// A status that is no success, of what could have changed something. A proxy on the way says 408 or 499 of what it
/// may have passed on.
pub(crate) fn refused_write(reply: &Reply) -> KvError {
    let (status, reason) = (reply.status.as_u16(), reply.refusal().to_string());
    match status {
        408 | 499 => KvError::Unknown(reason),
        300..=499 => KvError::Refused { status, reason },
        _ => KvError::Unknown(reason),
    }
}

/// The same of what changes nothing.
pub(crate) fn refused_read(reply: &Reply) -> KvError {
    match reply.status.as_u16() {
        200..=299 => KvError::Unusable(reply.refusal().to_string()),
        _ => refused_write(reply),
    }
}

/// The pair of this key, or that there is none.
pub(crate) fn get(reply: &Reply, key: &str) -> Result<(Option<Pair>, u64), KvError> {
    if reply.status != StatusCode::OK {
        return no_pairs(reply).map(|index| (None, index));
    }
    let index = index(reply)?;
    let pair = wire::only(&reply.body).map_err(not_understood)?;
    match pair.key == key {
        true => Ok((Some(pair), index)),
        false => {
            Err(KvError::Unusable(format!("Consul was asked for the key {key:?} and answers with another")))
        }
    }
}

/// Whether a status other than 200 says that there are no such keys. Consul does so with a 404 without a word; any
/// other 404 is of somebody who does not know what is asked.
pub(crate) fn no_pairs(reply: &Reply) -> Result<u64, KvError> {
    match reply.status {
        StatusCode::NOT_FOUND if reply.body.is_empty() => index(reply),
        StatusCode::NOT_FOUND => Err(KvError::Unusable(reply.refusal().to_string())),
        _ => Err(refused_read(reply)),
    }
}

/// What to wait on, if the headers say that the answer is one.
pub(crate) fn index(head: &Reply) -> Result<u64, KvError> {
    let doubt = |what: &str| Err(KvError::Unusable(format!("{}: {what}", head.act())));
    match (head.known_leader, head.filtered_by_acls, head.index) {
        (_, true, _) => {
            doubt("Consul left out what the token may not see; give it the right to read all of it")
        }
        (Some(true), false, Some(index)) => Ok(index),
        (Some(true), false, None) => doubt("the answer has no X-Consul-Index; is this Consul's HTTP API?"),
        _ => doubt("it was not answered by or through a Consul leader; it is asked again"),
    }
}

pub(crate) fn not_understood(error: WireError) -> KvError {
    KvError::Unusable(error.to_string())
}

#[cfg(test)]
mod tests;
