//! Tasks that are held and go on together, as those of one process: a simulation has many agents in one runtime, and stops one
//! of them as SIGSTOP does. A task belongs where the one that started it does; an agent by itself belongs nowhere.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Says when tasks may run. Who has to wait is woken by it.
pub trait Turns: Send + Sync + 'static {
    /// Ready when the task may run now.
    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()>;
}

tokio::task_local! {
    static TURNS: Arc<dyn Turns>;
}

/// Where the present task belongs.
pub(super) fn current() -> Option<Arc<dyn Turns>> {
    TURNS.try_with(Clone::clone).ok()
}

/// Has tasks that start here belong there.
pub fn enter<T>(turns: Arc<dyn Turns>, start: impl FnOnce() -> T) -> T {
    TURNS.sync_scope(turns, start)
}

/// A future that belongs there, and so do the tasks that it starts. While it may not run nothing in it happens; what came
/// meanwhile, it finds all at once.
pub fn within<F: Future>(turns: Arc<dyn Turns>, future: F) -> impl Future<Output = F::Output> {
    let future = Box::pin(TURNS.scope(turns.clone(), future));
    Held { turns, future }
}

struct Held<F> {
    turns: Arc<dyn Turns>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Held<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.turns.poll_turn(cx) {
            Poll::Ready(()) => self.future.as_mut().poll(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        time::Duration,
    };

    use tokio::{sync::watch, time::sleep};

    use super::*;
    use crate::lifecycle::spawn;

    struct Switch {
        is_on: AtomicBool,
        waiting: std::sync::Mutex<Vec<std::task::Waker>>,
    }

    impl Switch {
        fn turn(&self, is_on: bool) {
            self.is_on.store(is_on, Ordering::Relaxed);
            self.waiting.lock().unwrap().drain(..).for_each(std::task::Waker::wake);
        }
    }

    impl Turns for Switch {
        fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
            if self.is_on.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            self.waiting.lock().unwrap().push(cx.waker().clone());
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_has_no_timers_and_finds_all_of_them_overdue() {
        let switch = Arc::new(Switch { is_on: AtomicBool::new(true), waiting: std::sync::Mutex::default() });
        let ticks = Arc::new(AtomicU32::new(0));
        let (source, mut changed) = watch::channel(0);
        let counted = ticks.clone();
        let mut parent = enter(switch.clone(), || {
            spawn("parent", async move {
                // A child of a task belongs where its parent does.
                let mut child = spawn("child", async move {
                    loop {
                        sleep(Duration::from_secs(1)).await;
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                });
                changed.changed().await.unwrap();
                drop(child.join());
            })
        });
        let elsewhere = spawn("elsewhere", sleep(Duration::from_secs(1)));
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2);
        switch.turn(false);
        source.send_replace(1);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2, "no timer while it is held");
        switch.turn(true);
        parent.join().await.unwrap();
        assert!(ticks.load(Ordering::Relaxed) <= 3, "one timer was overdue");
        drop(elsewhere);
    }
}
