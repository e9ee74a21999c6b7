//! A holder that is cut off from its lock's home: it stops by itself before anybody else can have the lock, the next one
//! waits no longer than was promised, and what the first one writes afterwards is refused.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use causeway::{
    lab::plan::{PRIMARY, SECONDARY},
    lifecycle,
    model::sync::Token,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    lab_sync::{
        ask::ask_within,
        world::{Background, World, until},
    },
    sync_faults::promise::{Watch, allowance, nodes},
};

/// The shortest lease that Consul grants.
const TTL: Duration = Duration::from_secs(10);
/// How long the lock stays closed after its holder's session ended.
const LOCK_DELAY: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL of the command.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks at whether the command runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The lock was lost while the command ran.
const EXIT_LOST: i32 = 76;

/// `causeway lock` in one datacenter, and a client that waits for the same lock in the other.
pub(super) struct Holder<'w> {
    world: &'w World,
    lock: String,
    command: Background,
    told: PathBuf,
}

impl<'w> Holder<'w> {
    /// Takes the lock, whose home is the secondary, from the primary.
    pub(super) fn start(world: &'w World, round: &str) -> Self {
        let lock = format!("locks/{round}/held");
        let told = world.path(&format!("{round}.held"));
        let script = format!("echo $$ $CAUSEWAY_LOCK_TOKEN > {}; exec sleep 600", told.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        command.args([
            "lock",
            &lock,
            "--ttl",
            &ms(TTL),
            "--lock-delay",
            &ms(LOCK_DELAY),
            "--grace",
            &ms(GRACE),
        ]);
        command.args(["--http-addr", &world.agent(nodes(PRIMARY)[1]), "--", "sh", "-c", &script]);
        let command = world.background(command);
        until("the holder runs", || match fs::read_to_string(&told) {
            Ok(text) if text.ends_with('\n') => Ok(()),
            Ok(_) => Err("no token yet".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        Self { world, lock, command, told }
    }

    /// While the link is cut since `cut`: when the holder's command stopped, and when the other one had the lock.
    pub(super) fn follow(self, cut: Instant) -> Followed {
        let Self { world, lock, command, told } = self;
        let told = fs::read_to_string(&told).unwrap();
        let (watch, slack) = (Watch::start(world), allowance());
        let (pid, old) = told.trim().split_once(' ').expect("a process and a token");
        let waiter = format!("{}/v1/lock/{lock}", world.agent(nodes(SECONDARY)[0]));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| {
                let body = json!({"ttl": "10s", "wait": "60s", "lock_delay": "1s", "id": "next"}).to_string();
                let reply = ask_within(TTL * 8, "POST", &waiter, &[], body.as_bytes());
                (reply, lifecycle::now())
            });
            // `causeway lock` itself goes on for a while: it tries to give the lock back.
            while fs::exists(format!("/proc/{pid}")).unwrap() {
                std::thread::sleep(LOOK_EVERY);
            }
            let stopped = cut.elapsed();
            let status = command.wait();
            let (reply, granted_at) = next.join().unwrap();
            let granted = granted_at.saturating_duration_since(cut);
            let mut broken = Vec::new();
            let mut expect = |is_kept: bool, text: String| {
                if !is_kept {
                    broken.push(text)
                }
            };
            let text = format!("the holder ended with {status:?} instead of {EXIT_LOST}");
            expect(status.code() == Some(EXIT_LOST), text);
            let slack = slack.max(allowance()) + watch.took().waited;
            let limit = TTL * 9 / 10 + slack;
            expect(stopped <= limit, format!("the holder stopped after {stopped:?} instead of {limit:?}"));
            expect(stopped < granted, format!("two held {lock}: until {stopped:?} and from {granted:?}"));
            let limit = TTL * 2 + LOCK_DELAY + slack;
            expect(granted <= limit, format!("granted again after {granted:?} instead of {limit:?}"));
            let reply = reply.map(|reply| (reply.status, reply.text()));
            expect(reply.as_ref().is_ok_and(|(status, _)| *status == 200), format!("not granted: {reply:?}"));
            let granted_to: Value =
                reply.ok().and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default();
            let is_later = |new: &str| matches!((old.parse::<Token>(), new.parse::<Token>()), (Ok(old), Ok(new)) if old < new);
            let new = granted_to["token"].as_str().unwrap_or_default().to_owned();
            expect(is_later(&new), format!("token {new} after {old}"));
            Followed { lock: lock.clone(), old: old.to_owned(), new, stopped, granted, broken }
        })
    }
}

/// What came of it.
pub(super) struct Followed {
    lock: String,
    old: String,
    new: String,
    /// Both since the cut.
    pub(super) stopped: Duration,
    pub(super) granted: Duration,
    pub(super) broken: Vec<String>,
}

impl Followed {
    /// After the link is open again: the first holder's token opens nothing, and the second one's does.
    pub(super) fn is_fenced(&mut self, world: &World) {
        let node = nodes(PRIMARY)[1];
        let url = format!("{}/v1/kv/{}-value", world.agent(node), self.lock);
        for (token, status) in [(&self.old, 409), (&self.new, 200)] {
            let headers = [("X-Lock", self.lock.as_str()), ("X-Lock-Token", token)];
            let seen = until("a guarded write is answered", || {
                match ask_within(TTL, "PUT", &url, &headers, token.as_bytes()) {
                    Ok(reply) if reply.status < 500 => Ok(reply.status),
                    other => Err(format!("{other:?}")),
                }
            });
            // The second lease may have ended by now.
            if seen != status && !(status == 200 && seen == 409) {
                self.broken.push(format!("a write with token {token} was answered with {seen}"));
            }
        }
    }
}
