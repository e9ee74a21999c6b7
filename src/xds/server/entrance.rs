//! How fast new streams are let in. When all Envoys come at once, after this agent's restart or a rollout, those that
//! are served already must not wait behind the first responses of thousands.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::lifecycle;

/// Lets streams in, first come, first served: a second's worth at once after quiet, then at a steady rate.
pub(super) struct Entrance {
    between: Duration,
    /// When the next would come in if streams came one by one at exactly the rate.
    next: Mutex<Option<Instant>>,
}

impl Entrance {
    /// `per_second` of zero counts as one.
    pub(super) fn new(per_second: u32) -> Self {
        Self { between: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    /// Waits for a stream's turn. Whoever gives up meanwhile has used its turn.
    pub(super) async fn turn(&self) {
        let now = lifecycle::now();
        let turn = self.take(now);
        if turn > now {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// The moment that belongs to whoever asks at `now`.
    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.map_or(now, |next| next.max(now));
        *next = Some(due + self.between);
        // The first second of a rush is not made to wait.
        due.checked_sub(Duration::from_secs(1)).map_or(now, |early| early.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rush_is_let_in_at_the_rate_after_its_first_second() {
        let entrance = Entrance::new(100);
        let start = lifecycle::now();
        let turns: Vec<Duration> = (0..300).map(|_| entrance.take(start) - start).collect();
        assert!(turns[..=100].iter().all(Duration::is_zero), "{turns:?}");
        assert_eq!(turns[101], Duration::from_millis(10));
        assert_eq!(turns[299], Duration::from_millis(1_990));
        entrance.turn().await;
        assert_eq!(start.elapsed(), Duration::from_secs(2), "the next waits its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_gives_back_a_second_at_most() {
        let entrance = Entrance::new(10);
        let late = lifecycle::now() + Duration::from_secs(3_600);
        let waits = (0..30).filter(|_| entrance.take(late) > late).count();
        assert_eq!(waits, 19);
    }
}
