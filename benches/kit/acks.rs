//! When an Envoy acknowledged endpoints, from the agent's log.

use std::time::UNIX_EPOCH;

use causeway::lifecycle;

/// Each ACK of endpoints is a line of this target, with the time to the microsecond.
pub(crate) const LOG: &str = "log.level = \"warn,causeway=info,causeway::xds::server=debug\"";

const DAY_US: i64 = 86_400_000_000;

/// The time of day in microseconds, which is what a line of the log begins with.
pub(crate) fn day_us() -> i64 {
    let since_epoch = lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap().as_micros();
    i64::try_from(since_epoch % u128::from(DAY_US.unsigned_abs())).unwrap()
}

pub(crate) fn since(start: i64, end: i64) -> i64 {
    // Over midnight the end is a day behind. An ACK may come before the write returns.
    (end - start + DAY_US / 2).rem_euclid(DAY_US) - DAY_US / 2
}

/// When endpoints were acknowledged, if this line of the log says so.
pub(crate) fn ack_us(line: &str) -> Option<i64> {
    if !line.contains("acknowledged") || !line.contains("ClusterLoadAssignment") {
        return None;
    }
    let (_, time) = line.split_whitespace().next()?.split_once('T')?;
    let mut parts = time.trim_end_matches('Z').split([':', '.']);
    let mut next = || parts.next()?.parse::<i64>().ok();
    let (hours, minutes, seconds, us) = (next()?, next()?, next()?, next()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + us)
}
