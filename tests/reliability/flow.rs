//! Requests one after the other, each over a connection of its own, and what became of each.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use causeway::{
    fetch,
    lab::demo::counting::Count,
    lifecycle::{self, Task},
};
use tokio::time::Instant;

/// Enough that a stalled request leaves others to show that traffic flows.
const WORKERS: usize = 3;
/// Between two requests of a worker: two cores carry the lab and the load.
const PAUSE: Duration = Duration::from_millis(25);
/// What takes this long has failed, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(10);
/// So many in a row show that traffic flows.
const IN_A_ROW: usize = 20;

struct Asked {
    worker: usize,
    began: Instant,
    ended: Instant,
    answer: Result<String, String>,
}

/// Requests to one address until it is dropped.
pub(super) struct Flow {
    asked: Arc<Mutex<Vec<Asked>>>,
    _workers: Vec<Task<()>>,
}

/// What became of the requests of one fault.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) failed: usize,
    pub(super) slowest: Duration,
    /// Why they failed, each reason once.
    pub(super) reasons: BTreeSet<String>,
}

impl Flow {
    /// Starts asking `url`, which answers as the demo's counter does.
    pub(super) fn start(url: &str) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let worker = |worker| {
            let (asked, url) = (asked.clone(), url.to_owned());
            lifecycle::spawn("test.flow", async move {
                loop {
                    let began = lifecycle::now();
                    let answer = fetch::get_json::<Count>(&url, DEADLINE).await.map(|count| count.instance);
                    asked.lock().unwrap().push(Asked { worker, began, ended: lifecycle::now(), answer });
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        let _workers = (0..WORKERS).map(worker).collect();
        Self { asked, _workers }
    }

    /// Forgets what was.
    pub(super) fn clear(&self) {
        self.asked.lock().unwrap().clear();
    }

    /// When traffic flowed again that began after `since`: the first answer with none but answers after it, once there
    /// are enough of them, some of each worker: no request of before hangs any more.
    pub(super) fn flows_since(&self, since: Instant) -> Option<Instant> {
        let asked = self.asked.lock().unwrap();
        let last_failed = asked.iter().rposition(|one| one.answer.is_err()).map_or(0, |at| at + 1);
        let good: Vec<_> = asked[last_failed..].iter().filter(|one| one.began >= since).collect();
        let all_go_on = (0..WORKERS).all(|worker| good.iter().any(|one| one.worker == worker));
        (all_go_on && good.len() >= IN_A_ROW).then(|| good.iter().map(|one| one.ended).min())?
    }

    pub(super) fn tally(&self) -> Tally {
        let asked = self.asked.lock().unwrap();
        let reasons = asked.iter().filter_map(|one| one.answer.as_ref().err().cloned());
        Tally {
            asked: asked.len(),
            failed: asked.iter().filter(|one| one.answer.is_err()).count(),
            slowest: asked.iter().map(|one| one.ended - one.began).max().unwrap_or_default(),
            reasons: reasons.collect(),
        }
    }

    /// Who answered the last requests.
    pub(super) fn answered_by(&self) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().rev().take(IN_A_ROW).filter_map(|one| one.answer.clone().ok()).collect()
    }
}
