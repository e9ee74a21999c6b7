//! A bar on a terminal for what takes a while. Where standard error is no terminal nothing is drawn.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

use crate::lifecycle;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(100);

const WIDTH: usize = 30;

/// How far something is.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    start: Instant,
    drawn: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// Of so many things, none is done.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let is_shown = io::stderr().is_terminal();
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

    /// Takes the bar away.
    pub(crate) fn end(self) {
        if self.drawn.is_some() {
            self.draw("");
        }
    }

    fn draw(&self, text: &str) {
        let mut err = io::stderr().lock();
        // A terminal that cannot be written to shows no progress.
        let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
    }
}

fn line(what: &str, done: u64, total: u64, taken: Duration) -> String {
    let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
    let full = (share * WIDTH as f64) as usize;
    let bar = format!("{}{}", "=".repeat(full), " ".repeat(WIDTH - full));
    let rate = (done as f64 / taken.as_secs_f64().max(0.001)) as u64;
    format!("[{bar}] {:3.0} %  {done} of {total} {what}, {rate}/s", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_tells_how_far_and_how_fast() {
        let half = line("keys", 500, 1000, Duration::from_secs(2));
        assert_eq!(half, "[===============               ]  50 %  500 of 1000 keys, 250/s");
        assert!(line("keys", 0, 0, Duration::ZERO).contains("100 %"));
        assert!(line("keys", 9, 3, Duration::ZERO).starts_with("[==============================] 100 %"));
    }
}
