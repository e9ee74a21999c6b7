//! Keys of `[sync]` that bound what is taken, kept and deleted, and the locks that name no bounds of their own.

use crate::config::{
    key::{Key, Kind, Value},
    sync::section::{DAY_S, seconds},
};

/// In base64 it leaves some KiB of Consul's 512 KiB to the rest of its transaction.
const MAX_VALUE_BYTES_LIMIT: u64 = 384_000;

pub(super) const MAX_VALUE_BYTES: Key = Key {
    name: "max_value_bytes",
    kind: Kind::Number("bytes", 1..=MAX_VALUE_BYTES_LIMIT),
    example: "262144",
    meaning: "the largest value that is taken (413 beyond); what fits into a transaction of Consul's is the upper limit",
    value: |config| Value::count(config.sync.max_value_bytes),
    ..Key::TEXT
};
pub(super) const JOURNAL_MAX_ENTRIES: Key = Key {
    name: "journal_max_entries",
    kind: Kind::Number("entries", 1_000..=100_000_000),
    example: "1000000",
    meaning: "how many entries of a journal are kept at most for a datacenter that is away; one that is away longer gets a snapshot",
    value: |config| Value::Number(config.sync.journal_max_entries),
    ..Key::TEXT
};
pub(super) const JOURNAL_MAX_AGE_S: Key = Key {
    name: "journal_max_age_s",
    kind: Kind::Number("seconds", 60..=30 * DAY_S),
    example: "86400",
    meaning: "for how long at most",
    value: |config| seconds(config.sync.journal_max_age),
    ..Key::TEXT
};
pub(super) const DELETE_GUARD_KEYS: Key = Key {
    name: "delete_guard_keys",
    kind: Kind::Number("keys", 0..=100_000_000),
    example: "100",
    meaning: "how many keys a comparison with the home may delete from a replica at once; beyond, it holds and waits for `causeway sync approve`",
    more: "What the journal deletes, key by key, is not meant. A home that has nothing left needs an approval too, unless its journal has gone on since: then its entries have emptied it",
    value: |config| Value::count(config.sync.delete_guard_keys),
    ..Key::TEXT
};
pub(super) const DELETE_GUARD_PERCENT: Key = Key {
    name: "delete_guard_percent",
    kind: Kind::Number("percent", 0..=100),
    example: "10",
    meaning: "the same as a share of the replica's keys; the greater of the two counts",
    value: |config| Value::count(config.sync.delete_guard_percent),
    ..Key::TEXT
};
pub(super) const LOCK_TTL_S: Key = Key {
    name: "lock_ttl_s",
    kind: Kind::Number("seconds", 10..=DAY_S),
    example: "15",
    meaning: "how long a lock of `/v1/lock/` lives without renewal, where its client names no `ttl`; `causeway lock` always names one",
    more: "Set it where the locks have their home. A hand-over after a holder's death takes at most twice this and the delay",
    value: |config| seconds(config.sync.lock_ttl),
    ..Key::TEXT
};
pub(super) const LOCK_DELAY_S: Key = Key {
    name: "lock_delay_s",
    kind: Kind::Number("seconds", 0..=60),
    example: "15",
    meaning: "how long such a lock stays closed after its holder was lost, where its client names no `lock_delay`",
    value: |config| seconds(config.sync.lock_delay),
    ..Key::TEXT
};
