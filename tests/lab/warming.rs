//! Clusters warm until they have their endpoints: never for lack of something that the agent had.
//!
//! Envoy holds an ACK back while a cluster warms, so the time from a response to its ACK is the time of warming and what
//! Envoy's main thread took to get there: 4 ms of work for each cluster, and what it waits for a processor or its disk. That
//! is tens of milliseconds and is printed. A lack is another order: it lasts until something else is sent, or until Envoy
//! gives up after 15 s.

use anyhow::{Context, ensure};

use crate::lab::rig::{ENVOYS, Rig};

/// The limits that are printed, in seconds, as the agent's histogram has them.
const LIMITS: [&str; 4] = ["0.01", "0.02", "0.05", "0.1"];
/// The last of them: an ACK that is later was held up by something else than warming.
const LATE_MS: u64 = 100;
/// Beyond this, in seconds, something lacked.
const LACK: &str = "5.0";

/// Looks at all that was acknowledged since it last looked.
pub(crate) async fn no_cluster_lacked_anything(rig: &mut Rig) -> anyhow::Result<()> {
    for node in ENVOYS {
        let now = Seen::now(rig, node).await?;
        let before = rig.seen.insert(node.to_owned(), now);
        let (late, waited_ms, faults) = now.since(before);
        println!(
            "  {node}: {late} ACKs took more than 100 ms, Envoy waited {waited_ms} ms for a processor and {faults} times for its disk"
        );
        ensure!(
            late == 0 || waited_ms >= LATE_MS || faults > 0,
            "{node}: {late} ACKs took more than {LATE_MS} ms, and Envoy was kept from nothing else"
        );
        // What Envoy counts when it gives up waiting, after 15 s.
        let given_up = rig.envoy(node)?.stats(r"\.init_fetch_timeout$").await?;
        ensure!(!given_up.is_empty(), "{node}: Envoy has no such statistic");
        ensure!(given_up.values().all(|n| *n == 0), "{node}: something warmed in vain: {given_up:?}");
    }
    Ok(())
}

/// What has been seen of an Envoy and its agent.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    agent: u32,
    /// ACKs that took long, of clusters and listeners, in the life of the agent.
    late: u64,
    envoy: u32,
    /// How long its main thread could run and did not, in its life.
    waited_ms: u64,
    /// How often it waited for a page of its files, in its life.
    faults: u64,
}

impl Seen {
    async fn now(rig: &Rig, node: &str) -> anyhow::Result<Self> {
        let (agent, envoy) = (rig.lab.pid(node, "causeway")?, rig.lab.pid(node, "envoy")?);
        let schedstat = std::fs::read_to_string(format!("/proc/{envoy}/task/{envoy}/schedstat"))?;
        let waited_ns: u64 = schedstat.split(' ').nth(1).context("the second figure")?.parse()?;
        let stat = std::fs::read_to_string(format!("/proc/{envoy}/task/{envoy}/stat"))?;
        // Counted from behind the name, which may hold anything: state, and eight more before it.
        let (_, fields) = stat.rsplit_once(") ").context("a name")?;
        let faults = fields.split(' ').nth(9).context("major faults")?.parse()?;
        let metrics = String::from_utf8(rig.causeway(node, "/metrics").await?)?;
        let mut late = 0;
        for kind in ["CDS", "LDS"] {
            let upto = |limit: &str| -> anyhow::Result<u64> {
                let series =
                    format!("causeway_xds_ack_delay_seconds_bucket{{le=\"{limit}\",type=\"{kind}\"}}");
                let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
                Ok(line.with_context(|| format!("{series} in\n{metrics}"))?.trim().parse()?)
            };
            let (soon, all) = (upto(LACK)?, upto("+Inf")?);
            let counts = LIMITS.iter().map(|limit| Ok(format!("{} within {limit} s", upto(limit)?)));
            let counts = counts.collect::<anyhow::Result<Vec<_>>>()?.join(", ");
            println!("  {node}: of {all} {kind} ACKs {counts}");
            ensure!(soon == all, "{node}: {} {kind} ACKs took more than {LACK} s", all - soon);
            late += all - upto(LIMITS[LIMITS.len() - 1])?;
        }
        Ok(Self { agent, late, envoy, waited_ms: waited_ns / 1_000_000, faults })
    }

    /// Late ACKs and waits since then; all of those of a process that has started since.
    fn since(self, before: Option<Self>) -> (u64, u64, u64) {
        let late = before.filter(|before| before.agent == self.agent).map_or(0, |before| before.late);
        let same_envoy = before.filter(|before| before.envoy == self.envoy);
        let (waited_ms, faults) = same_envoy.map_or((0, 0), |before| (before.waited_ms, before.faults));
        (self.late - late, self.waited_ms - waited_ms, self.faults - faults)
    }
}
