//! When to write: soon after a change, and then so seldom that no disk is worn by it. Pure; times are counted from
//! any one moment.

use std::time::Duration;

/// From the first change to its writing: what changes together is written together.
const SOON: Duration = Duration::from_millis(250);
/// Between two writings at least.
const GAP: Duration = Duration::from_secs(2);
/// What a catalog that never rests may write on average: 8.6 GB a day. What is lost by it is some of the last changes
/// before a sudden end, and only where Consul is away at the next start too.
const BYTES_PER_S: u64 = 100_000;
/// After a writing that came to nothing.
const RETRY: Duration = Duration::from_secs(10);

/// The pace of one writer.
#[derive(Debug, Default)]
pub struct Pace {
    changed_at: Option<Duration>,
    not_before: Duration,
}

impl Pace {
    /// Something changed.
    pub fn changed(&mut self, now: Duration) {
        self.changed_at.get_or_insert(now);
    }

    /// When to write, if there is a reason to.
    pub fn due(&self) -> Option<Duration> {
        self.changed_at.map(|at| (at + SOON).max(self.not_before))
    }

    /// All changes so far are about to be written.
    pub fn begun(&mut self) {
        self.changed_at = None;
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, now: Duration, bytes: u64) {
        let pause = Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_S);
        self.not_before = now + if bytes == 0 { Duration::ZERO } else { pause.max(GAP) };
    }

    /// It cannot be written as it is: the next change may, and is not tried at once.
    pub fn gave_up(&mut self, now: Duration) {
        self.not_before = now + RETRY;
    }

    /// It could not be written: what changed has to be yet.
    pub fn failed(&mut self, now: Duration) {
        self.changed(now);
        self.not_before = now + RETRY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_change_is_written_soon_and_the_next_ones_together() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.changed(ms(1_000));
        pace.changed(ms(1_200));
        assert_eq!(pace.due(), Some(ms(1_250)));
        pace.begun();
        assert_eq!(pace.due(), None);
        pace.wrote(ms(1_260), 40_000);
        pace.changed(ms(1_300));
        assert_eq!(pace.due(), Some(ms(3_260)));
        pace.begun();
        pace.changed(ms(20_000));
        assert_eq!(pace.due(), Some(ms(20_250)));
    }

    #[test]
    fn what_is_long_is_written_seldom_and_what_was_the_same_costs_nothing() {
        let mut pace = Pace::default();
        pace.wrote(ms(0), 10_000_000);
        pace.changed(ms(10));
        assert_eq!(pace.due(), Some(ms(100_000)));
        pace.begun();
        pace.wrote(ms(100_000), 0);
        pace.changed(ms(100_010));
        assert_eq!(pace.due(), Some(ms(100_260)));
    }

    #[test]
    fn what_failed_is_tried_again() {
        let mut pace = Pace::default();
        pace.changed(ms(0));
        pace.begun();
        pace.failed(ms(300));
        assert_eq!(pace.due(), Some(ms(10_300)));
    }

    #[test]
    fn what_cannot_be_written_waits_for_a_change() {
        let mut pace = Pace::default();
        pace.changed(ms(0));
        pace.begun();
        pace.gave_up(ms(300));
        assert_eq!(pace.due(), None);
        pace.changed(ms(400));
        assert_eq!(pace.due(), Some(ms(10_300)));
    }
}
