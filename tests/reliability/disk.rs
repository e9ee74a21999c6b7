//! The disk of an agent's state, full while it runs. A small file system takes the place of its directory, in a mount
//! namespace of the agent's own, and is filled to the last page. Where a user may mount nothing, the agent may not write a
//! byte to any file, which it is told of in nearly the same words; the table says so.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use causeway::lab::plan::ProcessPlan;

use crate::reliability::world::{CLIENT, Fault, Whole, World};

const NAME: &str = "Causeway's disk full";
/// Much more than the agent of a lab keeps.
const SIZE_BYTES: usize = 4 << 20;
const PAGE_BYTES: usize = 4_096;
/// Runs a program that finds the small file system at `$0`.
const SMALL: &str = "mount -t tmpfs -o size=4m,mode=0700 tmpfs \"$0\" && exec \"$@\"";
/// Runs a program that outlives a write beyond its limit.
const LIMITED: &str = "trap '' XFSZ; exec \"$@\"";

/// What stands in for the agent's disk.
enum Disk {
    /// A file system in a namespace that `unshare` makes with this: root needs no other users for it.
    Small(&'static [&'static str]),
    Limited,
}

pub(super) async fn full(world: &mut World) {
    match small(world).await {
        Ok(disk) => filled(world, &disk).await,
        Err(error) => world.note(NAME, &error),
    }
    if let Err(error) = usual(world).await {
        world.note("Causeway's own disk again", &error);
    }
}

async fn filled(world: &mut World, disk: &Disk) {
    let fault = Fault { name: NAME, whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        shows(world, "causeway_state_pending 0").await?;
        disk.fill(world)?;
        world.turn_second("fail").await?;
        world
            .until("the agent cannot keep what it knows", async |world| {
                // What the agent had begun to write then is gone, and has left room.
                disk.fill(world)?;
                Ok(has(world, "causeway_state_failing 1").await?.then_some(()))
            })
            .await?;
        world.turn_second("pass").await?;
        world.more(20).await?;
        Ok(format!(
            "an instance goes and comes back, and Envoy follows; nothing more is kept{}",
            disk.remark()
        ))
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        disk.free(world)?;
        shows(world, "causeway_state_failing 0").await
    };
    world.fault(fault, begin, end).await;
}

/// Starts the client's agent anew on the disk that can be filled.
async fn small(world: &World) -> anyhow::Result<Disk> {
    let disk = Disk::find()?;
    let plan = disk.around(planned(world)?, &state(world)?);
    world.rig.lab.terminate(CLIENT, "causeway").await?;
    world.rig.lab.start_process(CLIENT, &plan)?;
    world.heard().await.context("on a small disk")?;
    Ok(disk)
}

/// Starts the client's agent as it was planned.
async fn usual(world: &World) -> anyhow::Result<()> {
    world.rig.lab.terminate(CLIENT, "causeway").await?;
    world.rig.lab.start_process(CLIENT, &planned(world)?)?;
    world.heard().await
}

fn planned(world: &World) -> anyhow::Result<ProcessPlan> {
    world.rig.lab.node(CLIENT)?.process("causeway").cloned().context("the client's agent")
}

/// Where the agent keeps what it knows.
fn state(world: &World) -> anyhow::Result<PathBuf> {
    Ok(world.rig.lab.node(CLIENT)?.dir.join("state"))
}

async fn shows(world: &World, metric: &str) -> anyhow::Result<()> {
    world.until(metric, async |world| Ok(has(world, metric).await?.then_some(()))).await
}

async fn has(world: &World, metric: &str) -> anyhow::Result<bool> {
    let metrics = String::from_utf8(world.rig.causeway(CLIENT, "/metrics").await?)?;
    Ok(metrics.lines().any(|line| line == metric))
}

impl Disk {
    /// The first that this user may have.
    fn find() -> anyhow::Result<Self> {
        let place = tempfile::tempdir()?;
        for namespaces in [&["--mount"][..], &["--map-root-user", "--mount"]] {
            let mut tried = Command::new("unshare");
            tried.args(namespaces).args(["sh", "-c", SMALL]).arg(place.path()).arg("true");
            if tried.output().context("run unshare, of util-linux")?.status.success() {
                return Ok(Self::Small(namespaces));
            }
        }
        Ok(Self::Limited)
    }

    /// The same process on this disk. Every program before it is replaced by it, so that its pid is the agent's.
    fn around(&self, plan: ProcessPlan, state: &Path) -> ProcessPlan {
        let (program, mut args) = match self {
            Self::Small(namespaces) => {
                let args = namespaces.iter().copied().chain(["sh", "-c", SMALL]).map(str::to_owned);
                ("unshare", args.chain([state.display().to_string()]).collect::<Vec<_>>())
            }
            Self::Limited => ("sh", ["-c", LIMITED, "sh"].map(str::to_owned).to_vec()),
        };
        args.push(plan.program.display().to_string());
        args.extend(plan.args);
        ProcessPlan { program: program.into(), args, ..plan }
    }

    /// Leaves no room.
    fn fill(&self, world: &World) -> anyhow::Result<()> {
        let Self::Small(_) = self else { return limit(world, "0:") };
        let filler = filler(world)?;
        let mut file =
            OpenOptions::new().create(true).append(true).open(&filler).context("open the filler")?;
        for _ in 0..=SIZE_BYTES / PAGE_BYTES {
            match file.write(&[0; PAGE_BYTES]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        bail!("{} is not on the small disk", filler.display())
    }

    fn free(&self, world: &World) -> anyhow::Result<()> {
        let Self::Small(_) = self else { return limit(world, "unlimited:") };
        match std::fs::remove_file(filler(world)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("remove the filler"),
            _ => Ok(()),
        }
    }

    fn remark(&self) -> &'static str {
        match self {
            Self::Small(_) => "",
            Self::Limited => " (by a limit of its files: nothing may be mounted here)",
        }
    }
}

/// A file beside the agent's own, by way of the agent's view of the file systems.
fn filler(world: &World) -> anyhow::Result<PathBuf> {
    let pid = world.rig.lab.pid(CLIENT, "causeway")?;
    let state = state(world)?;
    Ok(Path::new("/proc").join(pid.to_string()).join("root").join(state.strip_prefix("/")?).join("filler"))
}

/// Sets the soft limit of the length of the agent's files.
fn limit(world: &World, bytes: &str) -> anyhow::Result<()> {
    let pid = world.rig.lab.pid(CLIENT, "causeway")?.to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).output();
    let done = done.context("run prlimit, of util-linux")?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
