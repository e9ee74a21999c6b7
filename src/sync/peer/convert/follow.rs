//! The messages of a follower's stream.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    model::{
        kv::{Pair, UNKNOWN_LOCK},
        sync::Position,
    },
    sync::{
        peer::{
            FollowItem, FollowStart, SnapshotPair,
            convert::{ConvertError, PART_BYTES, bad, hash_in, named, position_in, position_out},
            wire as pb,
        },
        record::{self, Hash},
    },
};

/// Where a follower begins, to be sent.
pub fn start_out(start: FollowStart) -> pb::FollowUp {
    let (position, hash) = start.at.map_or((None, String::new()), |(at, hash)| (Some(at), hash.0));
    let start = pb::FollowStart {
        prefix: start.prefix,
        position: position.map(position_out),
        hash,
        compare: start.compare,
        origin: start.origin.map(|datacenter| datacenter.to_string()).unwrap_or_default(),
    };
    pb::FollowUp { message: Some(pb::follow_up::Message::Start(start)) }
}

/// How far a follower is, to be sent.
pub fn ack_out(position: Position) -> pb::FollowUp {
    pb::FollowUp { message: Some(pb::follow_up::Message::Ack(position_out(position))) }
}

/// The first message of a follower.
///
/// # Errors
/// It is none.
pub fn start_in(up: pb::FollowUp) -> Result<FollowStart, ConvertError> {
    let start = match up.message {
        Some(pb::follow_up::Message::Start(start)) => start,
        Some(pb::follow_up::Message::Ack(_)) => return Err(bad("the first message", "is an ack")),
        None => return Err(ConvertError::Unknown),
    };
    let hash = hash_in("start.hash", start.hash)?;
    let at = start.position.map(|position| Ok((position_in(Some(position))?, hash))).transpose()?;
    let origin = Some(start.origin).filter(|name| !name.is_empty()).map(|name| name.as_str().into());
    Ok(FollowStart { prefix: named("start.prefix", start.prefix)?, at, compare: start.compare, origin })
}

/// All other messages of a follower.
///
/// # Errors
/// It is no ack.
pub fn ack_in(up: pb::FollowUp) -> Result<Position, ConvertError> {
    match up.message {
        Some(pb::follow_up::Message::Ack(position)) => position_in(Some(position)),
        Some(pb::follow_up::Message::Start(_)) => Err(bad("a later message", "is a start")),
        None => Err(ConvertError::Unknown),
    }
}

/// What a follower is sent; pairs in as many messages as they take.
///
/// # Errors
/// An entry's bytes do not have its hash: another release wrote it, with more than this one knows.
pub fn item_out(item: FollowItem) -> Result<Vec<pb::FollowDown>, ConvertError> {
    use pb::follow_down::Message;
    let message = match item {
        FollowItem::Continues => Message::Continues(pb::Continues {}),
        FollowItem::Forked { home, reason } => {
            Message::Forked(pb::Forked { home: Some(position_out(home)), reason })
        }
        FollowItem::SnapshotBegin => Message::SnapshotBegin(pb::SnapshotBegin {}),
        FollowItem::SnapshotPairs(pairs) => {
            let parts = in_parts(pairs.into_iter().map(pair_out));
            let down = |pairs| down(Message::SnapshotPairs(pb::SnapshotPairs { pairs }));
            return Ok(parts.map(down).collect());
        }
        FollowItem::SnapshotEnd { position, hash, pairs } => Message::SnapshotEnd(pb::SnapshotEnd {
            position: Some(position_out(position)),
            hash: hash.0,
            pairs,
        }),
        FollowItem::Entry { entry, hash, modify_index, blobs } => {
            let record = record::encode(&entry);
            if Hash::of(&record) != hash {
                return Err(bad("entry", format!("{} holds more than this release knows", entry.position)));
            }
            Message::Entry(pb::Entry { record, modify_index, blobs })
        }
        FollowItem::Tip { position, ts_ms } => {
            Message::Tip(pb::Tip { position: Some(position_out(position)), ts_ms })
        }
    };
    Ok(vec![down(message)])
}

fn down(message: pb::follow_down::Message) -> pb::FollowDown {
    pb::FollowDown { message: Some(message) }
}

/// Pairs that fit into one message together. One is shorter than a message: Consul takes no value above half a MiB.
fn in_parts(pairs: impl Iterator<Item = pb::Pair>) -> impl Iterator<Item = Vec<pb::Pair>> {
    let mut parts: Vec<Vec<pb::Pair>> = Vec::new();
    let mut filled = PART_BYTES;
    for pair in pairs {
        let bytes = pair.encoded_len();
        match parts.last_mut() {
            Some(part) if filled + bytes <= PART_BYTES => part.push(pair),
            _ => {
                parts.push(vec![pair]);
                filled = 0;
            }
        }
        filled += bytes;
    }
    parts.into_iter()
}

/// What a follower was sent. The hash of an entry is that of its bytes.
///
/// # Errors
/// It makes no sense, or is of a kind that this release does not know.
pub fn item_in(down: pb::FollowDown, compare: bool) -> Result<FollowItem, ConvertError> {
    use pb::follow_down::Message;
    Ok(match down.message.ok_or(ConvertError::Unknown)? {
        Message::Continues(pb::Continues {}) => FollowItem::Continues,
        Message::Forked(forked) => {
            FollowItem::Forked { home: position_in(forked.home)?, reason: forked.reason }
        }
        Message::SnapshotBegin(pb::SnapshotBegin {}) => FollowItem::SnapshotBegin,
        Message::SnapshotPairs(pairs) => {
            let pairs = pairs.pairs.into_iter().map(|pair| pair_in(pair, compare));
            FollowItem::SnapshotPairs(pairs.collect::<Result<_, _>>()?)
        }
        Message::SnapshotEnd(end) => FollowItem::SnapshotEnd {
            position: position_in(end.position)?,
            hash: hash_in("snapshot_end.hash", end.hash)?,
            pairs: end.pairs,
        },
        Message::Entry(entry) => FollowItem::Entry {
            hash: Hash::of(&entry.record),
            entry: record::decode("the entry", &entry.record).map_err(|error| bad("entry.record", error))?,
            modify_index: entry.modify_index,
            blobs: entry.blobs,
        },
        Message::Tip(tip) => FollowItem::Tip { position: position_in(tip.position)?, ts_ms: tip.ts_ms },
    })
}

fn pair_out(pair: SnapshotPair) -> pb::Pair {
    match pair {
        SnapshotPair::Data(pair) => {
            let value = pair.value.clone();
            valued(pair, value)
        }
        SnapshotPair::Hashed { pair, hash } => valued(pair, Bytes::copy_from_slice(&hash)),
        SnapshotPair::Held(key) => pb::Pair { key, held: true, ..pb::Pair::default() },
    }
}

fn valued(pair: Pair, value: Bytes) -> pb::Pair {
    pb::Pair {
        key: pair.key,
        flags: pair.flags,
        value,
        create_index: pair.create_index,
        modify_index: pair.modify_index,
        held: false,
        lock_index: Some(pair.lock_index).filter(|index| *index != UNKNOWN_LOCK),
    }
}

fn pair_in(pair: pb::Pair, compare: bool) -> Result<SnapshotPair, ConvertError> {
    let key = named("pair.key", pair.key)?;
    if pair.held {
        return Ok(SnapshotPair::Held(key));
    }
    let data = Pair {
        key,
        value: Bytes::new(),
        flags: pair.flags,
        session: None,
        lock_index: pair.lock_index.unwrap_or(UNKNOWN_LOCK),
        create_index: pair.create_index,
        modify_index: pair.modify_index,
    };
    if !compare {
        return Ok(SnapshotPair::Data(Pair { value: pair.value, ..data }));
    }
    let hash = <[u8; 32]>::try_from(&*pair.value).map_err(|_| bad("pair.value", "is no hash of 32 bytes"))?;
    Ok(SnapshotPair::Hashed { pair: data, hash })
}
