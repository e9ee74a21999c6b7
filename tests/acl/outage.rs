//! Streams and their tokens while Consul is away: what Consul said of late counts, and nothing else.

use std::{collections::BTreeSet, time::Duration};

use causeway::{lifecycle, state::store::Store, xds::resource::Kind};
use nix::sys::signal::Signal;
use tonic::Code;

use super::{Bench, NOBODYS, PROXY, delete, make, policy};
use crate::rig::parts::{Agent, until};

/// How long nothing may come: far longer than what may come takes.
const QUIET: Duration = Duration::from_secs(4);

impl Bench {
    /// Waits until all that is known is on disk, and the token.
    fn until_kept(&self) {
        let dir = self.agent.home.path("state");
        until("everything is on disk", || {
            let now = lifecycle::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap();
            let kept = Store::new(&dir).load(true, now.as_secs());
            let kept: BTreeSet<_> = kept.topics.keys().map(ToString::to_string).collect();
            let has_all = self.status().topics.iter().all(|it| kept.contains(&it.topic));
            let has_token =
                std::fs::read_to_string(dir.join("tokens.state")).is_ok_and(|it| it.contains("web"));
            (has_all && has_token).then_some(())
        });
    }

    /// Kills the agent and Consul as `kill -9` does, and starts the agent alone.
    fn restart_without_consul(mut self) -> Self {
        let Agent { mut process, home } = self.agent;
        process.signal(Signal::SIGKILL);
        process.ended();
        self.consul.kill();
        self.agent = Agent::with(home, &self.consul.address(), &self.settings, &[]);
        self.agent.until_ready();
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_passed_of_late_passes_while_consul_is_away_and_no_other() {
    let (bench, _own) = Bench::start().await;
    let good = make(&bench.root, "good", &policy("sidecar.hcl", "web")).await;
    let never_seen = make(&bench.root, "never-seen", &policy("sidecar.hcl", "web")).await;
    let mut stream = bench.stream(PROXY, Some(&good.secret)).await.unwrap();
    stream.until(&["local_app"]).await.unwrap();
    bench.until_complete();
    bench.until_kept();
    drop(stream);

    let mut bench = bench.restart_without_consul();
    let mut known = bench.stream(PROXY, Some(&good.secret)).await.unwrap();
    known.until(&["local_app"]).await.unwrap();
    let secrets = ["leaf/web", "roots"].map(String::from);
    known.subscribe(Kind::Secret, secrets.clone()).await;
    known.until(&secrets.each_ref().map(String::as_str)).await.unwrap();
    let mut others = Vec::new();
    for token in [Some(NOBODYS), Some(&*never_seen.secret), None] {
        others.push(bench.stream(PROXY, token).await.unwrap());
    }
    for other in &mut others {
        let heard = tokio::time::timeout(QUIET, other.names()).await;
        assert!(heard.is_err(), "nothing is known of it, so it waits: {heard:?}");
    }
    let kept = std::fs::read_to_string(bench.agent.home.path("state/tokens.state")).unwrap();
    assert!(!kept.contains(&good.secret) && !bench.agent.log().text().contains(&good.secret));

    bench.consul.run();
    let ends = [Some(Code::Unauthenticated), None, Some(Code::Unauthenticated)];
    for (other, end) in others.iter_mut().zip(ends) {
        match (other.until(&["local_app"]).await, end) {
            (Err(status), Some(code)) => assert_eq!(status.code(), code, "{status}"),
            (Ok(_), None) => {}
            (heard, _) => panic!("{heard:?}"),
        }
    }
    delete(&bench.root, &good).await;
    let end = loop {
        if let Err(end) = known.names().await {
            break end;
        }
    };
    assert_eq!(end.code(), Code::Unauthenticated, "Consul has the last word");
}
