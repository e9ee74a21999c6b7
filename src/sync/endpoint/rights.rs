//! Which rights a client's own token needs at home before the engine's token acts for it. Pure.
//!
//! As Consul 1.8.7 asks for them: reads inside a transaction need none, since what may not be seen is left out of its
//! results; checks do, since their outcome tells something.

use crate::{
    model::{
        kv::{Op, Pair},
        name::NodeName,
    },
    sync::{
        endpoint::ask::{Ask, LockAct, SyncAsk, Wishes},
        store::{Access, Resource, Right},
    },
};

/// The rights that a request needs, each with the number of the operation that needs it.
pub fn needed(ask: &Ask, wishes: &Wishes, node: &NodeName) -> Vec<(usize, Right)> {
    let mut rights = match ask {
        Ask::Write(op) => {
            vec![(0, of(op))].into_iter().filter_map(|(at, right)| Some((at, right?))).collect()
        }
        Ask::Txn(txn) => txn.ops.iter().enumerate().filter_map(|(at, op)| Some((at, of(op)?))).collect(),
        Ask::Lock(lock) if lock.act == LockAct::Look => vec![(0, key(Access::Read, &lock.key))],
        Ask::Lock(lock) => vec![
            (0, key(Access::Write, &lock.key)),
            (
                0,
                Right {
                    resource: Resource::Session,
                    access: Access::Write,
                    segment: node.as_str().to_owned(),
                },
            ),
        ],
        Ask::Sync(SyncAsk::Approve(_) | SyncAsk::Resync(_)) => {
            vec![(0, Right { resource: Resource::Operator, access: Access::Write, segment: String::new() })]
        }
        Ask::Sync(SyncAsk::Status) | Ask::Other | Ask::Read(_) | Ask::Session(_) => Vec::new(),
    };
    if let Some((lock, _)) = &wishes.guard {
        rights.push((0, key(Access::Read, lock)));
    }
    rights
}

/// The rights to see these.
pub fn seen(pairs: &[Pair]) -> Vec<Right> {
    pairs.iter().map(|pair| key(Access::Read, &pair.key)).collect()
}

/// A right for people: `key:write on config/a`.
pub fn shown(right: &Right) -> String {
    let resource = match right.resource {
        Resource::Key => "key",
        Resource::Session => "session",
        Resource::Operator => return format!("operator:{}", access(right.access)),
    };
    format!("{resource}:{} on {}", access(right.access), right.segment)
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::List => "list",
        Access::Write => "write",
        Access::WritePrefix => "write (all below)",
    }
}

fn of(op: &Op) -> Option<Right> {
    let access = match op {
        Op::Get { .. } | Op::GetTree { .. } => return None,
        Op::CheckIndex { .. } | Op::CheckSession { .. } => Access::Read,
        Op::DeleteTree { .. } => Access::WritePrefix,
        Op::Set { .. }
        | Op::Cas { .. }
        | Op::Lock { .. }
        | Op::Unlock { .. }
        | Op::CheckNotExists { .. }
        | Op::Delete { .. }
        | Op::DeleteCas { .. } => Access::Write,
    };
    Some(key(access, op.key()))
}

fn key(access: Access, segment: &str) -> Right {
    Right { resource: Resource::Key, access, segment: segment.to_owned() }
}

#[cfg(test)]
mod tests;
