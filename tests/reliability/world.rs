//! The lab, the traffic through it, and how a fault is run and judged.

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use causeway::{
    api::wire::{ProxyStatus, Status},
    consul::index::MARGIN,
    lab::LabOptions,
    lifecycle,
    xds::status::ResourceState,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    lab::{
        actors::{Api, UPSTREAM_PORT},
        diff, live,
        rig::Rig,
    },
    reliability::{
        checks::Checks,
        flow::Flow,
        table::{self, Row},
        watch::{Spared, Watch},
    },
};

/// A limit that only a fault of ours reaches. Consul's own timers add up: servers that were all restarted join each other
/// first and stop there, and find the other datacenter when a pull of the WAN's gossip happens upon it (every 60 s, 121 s
/// seen).
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The client's VM: the dashboard's sidecar, where all traffic begins, and two instances of `api`.
pub(super) const CLIENT: &str = "primary-services";

/// Which requests have a path that the fault leaves whole, and so must not fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Both,
    /// Inside the datacenter only.
    Near,
    Neither,
}

/// One fault's name and what is expected of it.
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) whole: Whole,
    /// Lists of endpoints that are rightly gone or changed meanwhile.
    pub(super) spared: &'static [Spared],
}

pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) api: Api,
    /// From the client's sidecar to `api` in the same datacenter.
    pub(super) near: Flow,
    /// From the client's sidecar to `counting`, through both gateways and the link.
    pub(super) far: Flow,
    watch: Watch,
    rows: Vec<Row>,
    problems: Vec<String>,
}

impl World {
    pub(super) async fn start() -> Self {
        let rig = Rig::with(|options| LabOptions { servers: 3, links: true, clocks: true, ..options }).await;
        let api = Api::start(&rig).await.unwrap();
        keep_upstream(&rig).unwrap();
        for id in ["api-1", "api-2", "api-3"] {
            // Consul's agents keep the state of such a check over a restart once they were told one.
            api.turn(&rig, id, "pass").await.unwrap();
        }
        let far = rig.lab.node(CLIENT).unwrap().address;
        let (near, far) = (Flow::start(&api.url), Flow::start(&format!("http://{far}:5000/")));
        let watch = Watch::start(&rig).unwrap();
        let world = Self { rig, api, near, far, watch, rows: Vec::new(), problems: Vec::new() };
        world.shorten_waits().await.unwrap();
        world
    }

    /// Gives the client's agent so few connections to Consul that more than half are taken. Then Consul may hold its
    /// questions for seconds instead of a minute, and a fault lasts beyond their deadline without lasting for minutes. All
    /// other agents keep the usual waits.
    async fn shorten_waits(&self) -> anyhow::Result<()> {
        self.heard().await?;
        let topics: Vec<String> =
            self.rig.status(CLIENT).await?.topics.into_iter().map(|it| it.topic).collect();
        let counted = topics.iter().filter(|it| !it.starts_with("chain/"));
        let of =
            |datacenter: &&str| counted.clone().filter(|it| it.ends_with(&format!("@{datacenter}"))).count();
        let most = ["primary", "secondary"].iter().map(of).max().unwrap_or_default();
        // Room for some more; and a census would be taken of a datacenter with more than a quarter, which is another way
        // of waiting.
        let connections = (topics.len() * 5 / 4).max(4 * most);
        println!("the client's agent has {} topics, and now {connections} connections", topics.len());
        let file = self.rig.lab.node(CLIENT)?.dir.join("causeway.toml");
        let config = std::fs::read_to_string(&file)?;
        let changed = config.replace("[consul]\n", &format!("[consul]\nmax_connections = {connections}\n"));
        ensure!(changed != config, "{} has no [consul]", file.display());
        std::fs::write(&file, changed)?;
        self.rig.lab.restart(CLIENT, "causeway").await?;
        self.heard().await
    }

    /// Begins a fault, which returns what was seen of it once it has shown, ends it, and waits until all is well.
    pub(super) async fn fault(
        &mut self,
        fault: Fault,
        begin: impl AsyncFnOnce(&Self) -> anyhow::Result<String>,
        end: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
    ) {
        let began = lifecycle::now();
        let outcome = self.run(&fault, begin, end).await;
        let took = began.elapsed().as_secs_f32();
        match outcome {
            Ok(row) => {
                println!("{} ({took:.1} s)", row.line());
                self.rows.push(row);
            }
            Err(error) => self.note(fault.name, &error),
        }
    }

    /// A fault that did not go as it should.
    pub(super) fn note(&mut self, name: &str, error: &anyhow::Error) {
        println!("{name}: FAILED: {error:#}");
        self.problems.push(format!("{name}: {error:#}"));
        self.rows.push(Row::failed(name));
    }

    async fn run(
        &self,
        fault: &Fault,
        begin: impl AsyncFnOnce(&Self) -> anyhow::Result<String>,
        end: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Row> {
        // Before the lists: what changed since counts as a reason for an endpoint to turn, however late it does.
        let checks = self.checks().await?;
        self.flows(lifecycle::now()).await.context("before it")?;
        self.watch.begin(fault.spared).await?;
        self.near.clear();
        self.far.clear();
        // What was begun is ended in any case: the next fault has a whole lab.
        let during = begin(self).await.context("begin");
        let ended_at = lifecycle::now();
        end(self).await.context("end")?;
        let during = during?;
        self.flows(ended_at).await.context("traffic afterwards")?;
        self.heard().await?;
        // Only now is it over: what recovers may break something yet, and no request of before hangs any more.
        let flowed_at = self.flows(ended_at).await.context("traffic after all is well")?;
        let (near, far) = (self.near.tally(), self.far.tally());
        self.lists_stood(&checks).await?;
        ensure!(
            fault.whole == Whole::Neither || near.failed == 0,
            "requests inside the datacenter failed: {:?}",
            near.reasons
        );
        ensure!(
            fault.whole != Whole::Both || far.failed == 0,
            "requests over the link failed: {:?}",
            far.reasons
        );
        let was_interrupted = near.failed + far.failed > 0;
        let back_after = was_interrupted.then(|| flowed_at.saturating_duration_since(ended_at));
        Ok(Row { name: fault.name.to_owned(), during, near: Some(near), far: Some(far), back_after })
    }

    /// Judges the lists of endpoints since the fault began, when the catalogs had these checks.
    async fn lists_stood(&self, before: &Checks) -> anyhow::Result<()> {
        let verdict = self.watch.judge().await?;
        ensure!(verdict.lost.is_empty(), "lists of endpoints shrank: {:?}", verdict.lost);
        if verdict.turned.is_empty() {
            return Ok(());
        }
        let now = self.checks().await?;
        let wrong: Vec<_> = verdict.turned.iter().filter(|turned| !now.justify(before, turned)).collect();
        ensure!(wrong.is_empty(), "endpoints turned unhealthy of which Consul said nothing: {wrong:?}");
        Ok(())
    }

    async fn checks(&self) -> anyhow::Result<Checks> {
        self.until("the catalogs' checks", async |world| Ok(Some(Checks::now(&world.rig).await?))).await
    }

    /// Says that a fault has ended an Envoy: its lists begin anew.
    pub(super) fn envoy_ended(&self, node: &str) {
        self.watch.ended(node);
    }

    /// Waits until both kinds of requests are answered that began after `since`; when they first were.
    async fn flows(&self, since: Instant) -> anyhow::Result<Instant> {
        self.until("requests are answered, inside and over the link", async |world| {
            let both = world.near.flows_since(since).zip(world.far.flows_since(since));
            Ok(both.map(|(near, far)| near.max(far)))
        })
        .await
    }

    /// Waits until every agent has heard its Consul about everything, every stream has acknowledged what it was sent, and
    /// every Envoy has what is intended for it, field by field.
    pub(super) async fn heard(&self) -> anyhow::Result<()> {
        for node in crate::lab::rig::ENVOYS {
            self.until(
                &format!("{node}'s agent has heard Consul, and its Envoys are synced"),
                async |world| {
                    let status = world.rig.status(node).await?;
                    let silent =
                        status.topics.iter().find(|topic| topic.trouble.is_some() || topic.from_disk);
                    ensure!(silent.is_none(), "{silent:?}");
                    ensure!(
                        is_synced(&status),
                        "{:?}",
                        status.proxies.iter().map(outline).collect::<Vec<_>>()
                    );
                    let report = diff::report(&world.rig, node).await?;
                    ensure!(report.equal, "{report:#?}");
                    Ok(Some(()))
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Waits until an agent says that something of Consul's is not to be had.
    pub(super) async fn silence_at(&self, node: &str) -> anyhow::Result<String> {
        self.until(&format!("{node}'s agent misses something"), async |world| {
            let status = world.rig.status(node).await?;
            Ok(status.topics.iter().find_map(|topic| topic.trouble.clone()))
        })
        .await
    }

    /// Waits until an agent has given up a question that Consul was let wait with: neither an answer nor an end of the
    /// connection came, and its deadline is over.
    pub(super) async fn overdue_at(&self, node: &str) -> anyhow::Result<String> {
        // What Consul is to answer at once has this deadline, and is no such question.
        let at_once = format!("no answer within {} ms", MARGIN.as_millis());
        self.until(&format!("a question of {node}'s agent is over its deadline"), async |world| {
            let status = world.rig.status(node).await?;
            let mut troubles = status.topics.into_iter().filter_map(|topic| topic.trouble);
            Ok(troubles.find(|it| it.contains("no answer within") && !it.contains(&at_once)))
        })
        .await
    }

    /// Has Consul say that the second instance of `api` is critical (`fail`) or passing (`pass`), and waits until the
    /// client's Envoy shows it. It is listed in either case.
    pub(super) async fn turn_second(&self, turn: &str) -> anyhow::Result<()> {
        let wanted = if turn == "fail" { "UNHEALTHY" } else { "HEALTHY" };
        self.api.turn(&self.rig, "api-2", turn).await?;
        self.until(&format!("the client's Envoy shows the second instance as {wanted}"), async |world| {
            Ok(world.shows_second(wanted).await?.then_some(()))
        })
        .await
    }

    /// Whether the client's Envoy shows the second instance of `api` so.
    pub(super) async fn shows_second(&self, health: &str) -> anyhow::Result<bool> {
        let second = format!("{}:21102 {health}", self.rig.lab.node(CLIENT)?.address);
        Ok(live::every_endpoint(&self.rig, CLIENT).await?.contains(&second))
    }

    /// Waits until some request over the link has failed.
    pub(super) async fn far_fails(&self) -> anyhow::Result<()> {
        self.until("a request over the link fails", async |world| {
            Ok((world.far.tally().failed > 0).then_some(()))
        })
        .await
    }

    /// Waits until so many more requests of each kind are over.
    pub(super) async fn more(&self, count: usize) -> anyhow::Result<()> {
        let (near, far) = (self.near.tally().asked + count, self.far.tally().asked + count);
        self.until("more requests", async |world| {
            Ok((world.near.tally().asked >= near && world.far.tally().asked >= far).then_some(()))
        })
        .await
    }

    /// Looks again and again until there is something. What a look runs into is told when patience ends.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = lifecycle::now() + PATIENCE;
        loop {
            let trouble = match look(self).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if lifecycle::now() > deadline {
                let never = anyhow!("never seen within {PATIENCE:?}: {what}");
                return Err(trouble.map_or(never, |error| error.context(format!("waiting for: {what}"))));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops everything and gives what went wrong, the table's own problem included.
    pub(super) async fn end(mut self) -> Vec<String> {
        println!("\n{}", table::render(&self.rows));
        if !self.problems.is_empty() {
            self.rig.keep_logs();
        }
        let mut problems = self.problems;
        problems.extend(table::keep(&self.rows, problems.is_empty()).err().map(|error| format!("{error:#}")));
        drop((self.near, self.far, self.watch));
        self.rig.stop().await;
        problems
    }
}

/// Writes the upstream to `api` where the client's Consul agent finds it when it starts anew: what its file says of the
/// sidecar then counts, and not what it was told over HTTP.
fn keep_upstream(rig: &Rig) -> anyhow::Result<()> {
    let node = rig.lab.node(CLIENT)?;
    let file = node.dir.join("consul.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let upstream = json!({
        "destination_name": "api", "local_bind_port": UPSTREAM_PORT, "mesh_gateway": { "mode": "local" },
        "local_bind_address": node.address.to_string(),
    });
    let proxy = &mut config["services"][0]["connect"]["sidecar_service"]["proxy"];
    proxy["upstreams"].as_array_mut().context("the sidecar's upstreams")?.push(upstream);
    Ok(std::fs::write(&file, config.to_string())?)
}

fn is_synced(status: &Status) -> bool {
    !status.proxies.is_empty()
        && status.proxies.iter().all(|proxy| {
            let mut resources = proxy.streams.iter().flat_map(|it| &it.types).flat_map(|it| &it.resources);
            proxy.complete
                && !proxy.streams.is_empty()
                && resources.all(|it| it.state == ResourceState::Synced)
        })
}

/// What is not synced, for the report.
fn outline(proxy: &ProxyStatus) -> String {
    let resources = proxy.streams.iter().flat_map(|it| &it.types).flat_map(|it| &it.resources);
    let open: Vec<_> = resources.filter(|it| it.state != ResourceState::Synced).map(|it| &it.name).collect();
    format!("{} complete={} streams={} open={open:?}", proxy.proxy, proxy.complete, proxy.streams.len())
}
