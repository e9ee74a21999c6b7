//! Owns waiting for a real event of the bring-up, with a deadline and with the evidence when it does not come. It
//! must not know what is waited for.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    lab::{LabError, error::StepFailed, runner::Runner},
    lifecycle,
};

/// Between two questions. Short beside any step, and of no weight: a handful of questions are open at once.
const POLL: Duration = Duration::from_millis(40);
/// How much of a log goes into an error.
const TAIL_LINES: usize = 15;

/// Shows each step as it is done, with the time since the start.
pub(crate) struct Progress<F> {
    began: Instant,
    show: Mutex<F>,
}

impl<F: FnMut(&str)> Progress<F> {
    pub(crate) fn new(show: F) -> Self {
        Self { began: lifecycle::now(), show: Mutex::new(show) }
    }

    /// `primary-server: Consul leader elected (1.9 s)`
    pub(crate) fn done(&self, node: &str, what: &str) {
        let seconds = (lifecycle::now() - self.began).as_secs_f64();
        let mut show = self.show.lock().unwrap_or_else(PoisonError::into_inner);
        show(&format!("{node}: {what} ({seconds:.1} s)"));
    }
}

enum Ending {
    Died(Option<String>),
    Deadline,
}

/// Asks until the answer is good, the deadline passes or the process dies that is to bring it about.
///
/// Errors: the latter two, with the last answer and the end of the process's log.
pub(crate) async fn until<T, Fut>(
    runner: &Runner,
    (node, process): (&str, &str),
    awaited: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Fut,
) -> Result<T, LabError>
where
    Fut: Future<Output = Result<T, String>>,
{
    let (mut ended, log) = runner.watch(node, process)?;
    let mut last = String::new();
    let asking = async {
        loop {
            match probe().await {
                Ok(answer) => return answer,
                Err(reason) => last = reason,
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let death = async { ended.wait_for(Option::is_some).await.ok().and_then(|status| status.clone()) };
    let ending = tokio::select! {
        answer = asking => return Ok(answer),
        status = death => Ending::Died(status),
        () = tokio::time::sleep(deadline) => Ending::Deadline,
    };
    let ending = match ending {
        Ending::Died(status) => format!("{process} ended ({})", status.unwrap_or_default()),
        Ending::Deadline => format!("not done within {} s", deadline.as_secs()),
    };
    let last = if last.is_empty() { last } else { format!("; last answer: {last}") };
    let (node, awaited, tail) = (node.to_owned(), awaited.to_owned(), tail(&log));
    Err(LabError::Step(Box::new(StepFailed { node, awaited, ending, last, log, tail })))
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    match lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n") {
        empty if empty.is_empty() => "(it is empty)".into(),
        tail => tail,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tail_is_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        assert_eq!(super::tail(&log), "(it is empty)");
        let lines: Vec<String> = (1..=40).map(|line| line.to_string()).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        assert!(super::tail(&log).starts_with("26\n") && super::tail(&log).ends_with("\n40"));
    }
}
