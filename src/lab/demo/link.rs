//! Owns what the dashboard knows of its link: the count, whether it is up and since when, and the last minute.
//! Pure: attempts and times in, a picture out.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::lab::demo::counting::Count;

/// One minute at one attempt a second.
const HISTORY: usize = 60;

/// How one attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub latency_ms: u64,
    /// The answer, or why there was none.
    pub answer: Result<Count, String>,
}

/// Whether the link is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The last attempt was answered.
    pub up: bool,
    /// Since when it is so, milliseconds since the Unix epoch; none before the first attempt ended.
    pub since_ms: Option<u64>,
    /// Why the last attempt was not answered; none while the link is up.
    pub error: Option<String>,
    /// How long the last attempt took, milliseconds.
    pub latency_ms: Option<u64>,
}

/// One attempt of the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it ended, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub latency_ms: u64,
    /// The count; none when it was not answered.
    pub count: Option<u64>,
}

/// Everything known of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whether it is up.
    pub link: Link,
    /// The last answer, kept while the link is down.
    pub last: Option<Count>,
    /// The last minute, oldest first.
    pub history: VecDeque<Sample>,
}

impl Default for Watched {
    fn default() -> Self {
        let link = Link { up: false, since_ms: None, error: None, latency_ms: None };
        Self { link, last: None, history: VecDeque::with_capacity(HISTORY) }
    }
}

impl Watched {
    /// Takes in one attempt.
    pub fn record(&mut self, attempt: Attempt) {
        let Attempt { at_ms, latency_ms, answer } = attempt;
        let up = answer.is_ok();
        if up != self.link.up || self.link.since_ms.is_none() {
            self.link.since_ms = Some(at_ms);
        }
        (self.link.up, self.link.latency_ms) = (up, Some(latency_ms));
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let count = answer.as_ref().ok().map(|answer| answer.count);
        self.history.push_back(Sample { at_ms, latency_ms, count });
        match answer {
            Ok(answer) => (self.last, self.link.error) = (Some(answer), None),
            Err(reason) => self.link.error = Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at_ms: u64, count: Option<u64>) -> Attempt {
        let answer = count.map(|count| Count { count, instance: "i".into(), datacenter: "d".into() });
        Attempt { at_ms, latency_ms: 3, answer: answer.ok_or_else(|| "refused".into()) }
    }

    #[test]
    fn since_moves_only_when_the_link_changes() {
        let mut watched = Watched::default();
        let mut seen = Vec::new();
        for (at, count) in [(10, None), (20, None), (30, Some(1)), (40, Some(2)), (50, None)] {
            watched.record(attempt(at, count));
            seen.push((watched.link.up, watched.link.since_ms));
            assert_eq!(
                watched.link.error.is_none(),
                watched.link.up,
                "an error is told while the link is down"
            );
        }
        let expected =
            [(false, Some(10)), (false, Some(10)), (true, Some(30)), (true, Some(30)), (false, Some(50))];
        assert_eq!(seen, expected);
        assert_eq!(watched.last.unwrap().count, 2, "the last count stays visible while the link is down");
        assert_eq!(watched.link.error.as_deref(), Some("refused"));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut watched = Watched::default();
        (0..200).for_each(|at| watched.record(attempt(at, Some(at))));
        assert_eq!(watched.history.len(), HISTORY);
        assert_eq!(watched.history.front().unwrap().at_ms, 140);
    }
}
