use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A disk that takes a while, and refuses on order.
#[derive(Clone, Default)]
pub(crate) struct Slow {
    content: Arc<Mutex<String>>,
    writes: Arc<AtomicU32>,
    refuses: Arc<Mutex<bool>>,
}

impl Disk for Slow {
    fn write(&self, body: String) -> BoxFuture<'static, Result<(), String>> {
        let slow = self.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if *slow.refuses.lock().unwrap() {
                return Err("no space left".into());
            }
            slow.writes.fetch_add(1, Ordering::Relaxed);
            *slow.content.lock().unwrap() = body;
            Ok(())
        })
    }
}

impl Slow {
    /// As the next run finds them.
    pub(crate) fn positions(&self) -> Positions {
        Positions::on(self.clone(), &self.content.lock().unwrap())
    }

    /// How often it was written.
    pub(crate) fn writes(&self) -> u32 {
        self.writes.load(Ordering::Relaxed)
    }
}

fn known(prefix: &str, epoch: u32, seq: u64) -> Known {
    Known { prefix: prefix.into(), position: Position { epoch, seq }, hash: Hash(format!("h{epoch}.{seq}")) }
}

fn at(epoch: u32, seq: u64) -> Position {
    Position { epoch, seq }
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_there_after_a_restart() {
    let disk = Slow::default();
    let positions = disk.positions();
    positions.learn(&known("config/", 1, 7));
    positions.learn(&known("locks/", 2, 3));
    positions.kept("config/", at(1, 7)).await;
    let again = disk.positions();
    assert_eq!(again.known("config/"), Some(known("config/", 1, 7)));
    assert_eq!(again.known("locks/"), Some(known("locks/", 2, 3)));
    assert_eq!(again.known("other/"), None);
    again.kept("config/", at(1, 7)).await;
    again.flush().await;
    assert_eq!(disk.writes(), 1, "what is there already is not written again");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_never_goes_back() {
    let positions = Positions::default();
    for (learned, newest) in [((1, 7), (1, 7)), ((1, 6), (1, 7)), ((2, 1), (2, 1)), ((1, 9), (2, 1))] {
        positions.learn(&known("config/", learned.0, learned.1));
        assert_eq!(positions.known("config/"), Some(known("config/", newest.0, newest.1)));
    }
    positions.learn(&known("empty/", 0, 0));
    assert_eq!(positions.known("empty/"), None);
    positions.kept("config/", at(9, 9)).await;
}

#[tokio::test(start_paused = true)]
async fn many_that_wait_share_one_writing() {
    let disk = Slow::default();
    let positions = disk.positions();
    let grants = (1..=64).map(|seq| {
        let positions = positions.clone();
        async move {
            positions.learn(&known("locks/", 1, seq));
            positions.kept("locks/", at(1, seq)).await;
            assert!(positions.0.written.lock().await.positions["locks/"] >= at(1, seq));
        }
    });
    futures_util::future::join_all(grants).await;
    assert!(disk.writes() <= 2, "{} writings for 64 grants at once", disk.writes());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_holds_nobody_up_and_is_tried_again() {
    let disk = Slow::default();
    let positions = disk.positions();
    *disk.refuses.lock().unwrap() = true;
    positions.learn(&known("locks/", 1, 1));
    positions.kept("locks/", at(1, 1)).await;
    let began = lifecycle::now();
    positions.kept("locks/", at(1, 1)).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for it again at once");
    *disk.refuses.lock().unwrap() = false;
    tokio::time::sleep(RETRY).await;
    positions.flush().await;
    assert_eq!(disk.positions().known("locks/"), Some(known("locks/", 1, 1)));
}

#[test]
fn lines_that_are_not_understood_are_left_out() {
    let good = encode(&BTreeMap::from([("config/".into(), known("config/", 3, 4))]));
    let text = format!("{good}{{\"prefix\":\"locks/\",\"epoch\":\"three\"}}\nnothing at all\n");
    assert_eq!(decode(&text), decode(&good));
    assert_eq!(decode(&good)["config/"], known("config/", 3, 4));
}
