//! A bar on a terminal for what takes a while, or a count where nobody knows how much there is. Where standard error is no
//! terminal nothing is drawn.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

use crate::lifecycle;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(100);

const WIDTH: usize = 30;

/// How far something is. It goes from the terminal when it is dropped.
pub(crate) struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    start: Instant,
    drawn: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// Of so many things none is done.
    pub(crate) fn of(total: u64, what: &'static str) -> Self {
        Self::new(what, Some(total), io::stderr().is_terminal())
    }

    /// Of nobody knows how many, none is done.
    pub(crate) fn counting(what: &'static str) -> Self {
        Self::new(what, None, io::stderr().is_terminal())
    }

    /// The same while standard output is being written: a terminal that shows that shows no progress.
    pub(crate) fn beside_output(what: &'static str) -> Self {
        Self::new(what, None, io::stderr().is_terminal() && !io::stdout().is_terminal())
    }

    fn new(what: &'static str, total: Option<u64>, is_shown: bool) -> Self {
        Self { what, total, done: 0, start: lifecycle::now(), drawn: None, is_shown }
    }

    /// So many more are done.
    pub(crate) fn advance(&mut self, more: u64) {
        self.done += more;
        let now = lifecycle::now();
        if self.is_shown && self.drawn.is_none_or(|drawn| now - drawn >= DRAW_EVERY) {
            self.drawn = Some(now);
            self.draw(&line(self.what, self.done, self.total, now - self.start));
        }
    }

    fn draw(&self, text: &str) {
        let mut err = io::stderr().lock();
        // A terminal that cannot be written to shows no progress.
        let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            self.draw("");
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, taken: Duration) -> String {
    let rate = (done as f64 / taken.as_secs_f64().max(0.001)) as u64;
    let Some(total) = total else { return format!("{done} {what}, {rate}/s") };
    let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
    let full = (share * WIDTH as f64) as usize;
    let bar = format!("{}{}", "=".repeat(full), " ".repeat(WIDTH - full));
    format!("[{bar}] {:3.0} %  {done} of {total} {what}, {rate}/s", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_tells_how_far_and_how_fast() {
        let half = line("keys", 500, Some(1000), Duration::from_secs(2));
        assert_eq!(half, "[===============               ]  50 %  500 of 1000 keys, 250/s");
        assert_eq!(line("keys", 500, None, Duration::from_secs(2)), "500 keys, 250/s");
        assert!(line("keys", 0, Some(0), Duration::ZERO).contains("100 %"));
        assert!(
            line("keys", 9, Some(3), Duration::ZERO).starts_with("[==============================] 100 %")
        );
    }
}
