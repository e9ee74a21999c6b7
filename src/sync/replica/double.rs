//! Doubles for the tests of a replica: Consul's keys by its rules, in memory, and a home that streams a journal of them.

mod consul;
mod home;

use std::time::Duration;

use bytes::Bytes;

pub(super) use self::{
    consul::{Answering, FakeConsul, Kv},
    home::{FakeHome, History},
};
use crate::model::kv::Op;

/// What an answer takes.
const MOMENT: Duration = Duration::from_millis(1);

pub(super) fn set(key: &str, value: &str) -> Op {
    Op::Set { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()), flags: 0 }
}
