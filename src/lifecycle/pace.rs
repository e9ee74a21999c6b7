//! Resting after work that everything known goes through, so that many changes on end cannot keep a core busy: what
//! comes meanwhile is done together. The first piece of work after quiet never waits.

use std::time::Duration;

use tokio::time::Instant;

/// Work below this is not worth a rest: timers are hardly finer.
const NOT_WORTH_A_REST: Duration = Duration::from_micros(500);
/// Rests are so many times as long as the work before them: at most a third of a core goes into it.
const REST: u32 = 2;
/// Work that took very long was held up by something else, which no rest makes better.
const REST_LIMIT: Duration = Duration::from_millis(500);

/// When the next piece of work may begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    rests_until: Option<Instant>,
}

impl Pace {
    /// Notes that a piece of work took from one moment to the other.
    pub fn worked(&mut self, from: Instant, to: Instant) {
        let took = to.saturating_duration_since(from);
        self.rests_until = (took >= NOT_WORTH_A_REST).then(|| to + (took * REST).min(REST_LIMIT));
    }

    /// Whether the next may begin now.
    pub fn is_rested(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|end| end <= now)
    }

    /// Waits until the next may begin. Cancel-safe.
    pub async fn rested(&self) {
        if let Some(end) = self.rests_until {
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::now;

    #[tokio::test(start_paused = true)]
    async fn work_takes_a_third_of_the_time_at_most() {
        let (mut pace, start) = (Pace::default(), now());
        assert!(pace.is_rested(start), "the first never waits");
        let end = start + Duration::from_millis(20);
        pace.worked(start, end);
        assert!(!pace.is_rested(end + Duration::from_millis(39)));
        assert!(pace.is_rested(end + Duration::from_millis(40)));
        pace.rested().await;
        assert!(start.elapsed() >= Duration::from_millis(60));
        let short = now();
        pace.worked(short, short + NOT_WORTH_A_REST / 2);
        assert!(pace.is_rested(short), "nor does what is short make the next wait");
        pace.worked(short, short + REST_LIMIT * 10);
        assert!(pace.is_rested(short + REST_LIMIT * 11), "and no rest is very long");
    }
}
