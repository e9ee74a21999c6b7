//! How fast new streams are let in. When all Envoys come at once, after this agent's restart or a rollout, those that
//! are served already must not wait behind the first responses of thousands.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use crate::lifecycle;

/// After quiet so much of the steady rate is let in at once.
const RUSH: Duration = Duration::from_secs(1);

/// Lets streams in, first come, first served: a second's worth at once after quiet, then at a steady rate.
pub(super) struct Entrance {
    between: Duration,
    /// When the next would come in if streams came one by one at exactly the rate. Whoever is first in line holds the
    /// lock, which is fair.
    next: Mutex<Option<Instant>>,
}

impl Entrance {
    /// `per_second` of zero counts as one.
    pub(super) fn new(per_second: u32) -> Self {
        Self { between: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    /// Waits for a stream's turn. Whoever gives up before it has cost the others nothing: else clients that come and go
    /// would keep out those that stay.
    pub(super) async fn turn(&self) {
        let mut next = self.next.lock().await;
        let now = lifecycle::now();
        let due = next.map_or(now, |next| next.max(now));
        if let Some(turn) = due.checked_sub(RUSH).filter(|turn| *turn > now) {
            sleep_until(turn).await;
        }
        *next = Some(due + self.between);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    /// When so many that come now are let in.
    async fn turns(entrance: &Entrance, count: usize) -> Vec<Duration> {
        let start = lifecycle::now();
        let all = (0..count).map(|_| async {
            entrance.turn().await;
            start.elapsed()
        });
        join_all(all).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_rush_is_let_in_at_the_rate_after_its_first_second() {
        let entrance = Entrance::new(100);
        let turns = turns(&entrance, 300).await;
        assert!(turns[..=100].iter().all(Duration::is_zero), "{turns:?}");
        assert_eq!(turns[101], Duration::from_millis(10));
        assert_eq!(turns[299], Duration::from_millis(1_990));
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_gives_back_a_second_at_most() {
        let entrance = Entrance::new(10);
        turns(&entrance, 30).await;
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let waited = turns(&entrance, 30).await.iter().filter(|turn| !turn.is_zero()).count();
        assert_eq!(waited, 19);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_give_up_cost_the_others_nothing() {
        let entrance = Entrance::new(10);
        turns(&entrance, 11).await;
        for _ in 0..10_000 {
            assert_eq!(entrance.turn().now_or_never(), None);
        }
        assert_eq!(turns(&entrance, 1).await, [Duration::from_millis(100)]);
    }
}
