//! `causeway lab up --detach`: starts the same program again in the background and stays until the lab works.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use tokio::process::{Child, Command};

use crate::{
    cli::lab::{Signals, UpArgs, say, show_ready},
    lab::{
        process::ProcessId,
        state::{self, LOG_FILE, LabFile, LabState},
    },
};

const POLL: Duration = Duration::from_millis(50);

/// Returns 0 once the lab works. Otherwise nothing is left running and the reason was shown.
pub(super) async fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(&args.dir.dir)?;
    // Held only for a moment: it shows that no other lab is there, before that one's log is emptied.
    drop(state::lock(&dir)?);
    let mut signals = Signals::new()?;
    let log = dir.join(LOG_FILE);
    let mut child = start(args, &dir, &log)?;
    let mut shown = File::open(&log)?;
    loop {
        forward(&mut shown)?;
        tokio::select! {
            ended = child.wait() => {
                forward(&mut shown)?;
                say(&format!("the lab did not come up ({}); its log is {}", ended?, log.display()));
                return Ok(ExitCode::FAILURE);
            }
            () = signals.recv() => {
                if let Some(id) = child.id().and_then(ProcessId::of) {
                    id.signal(nix::sys::signal::Signal::SIGTERM)?;
                }
                child.wait().await?;
                return Ok(ExitCode::FAILURE);
            }
            () = tokio::time::sleep(POLL) => {}
        }
        if is_ready(&dir, &child)? {
            forward(&mut shown)?;
            show_ready(&state::status(&dir)?);
            say("\nThe lab runs in the background; `causeway lab down` stops it.");
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn start(args: &UpArgs, dir: &Path, log: &Path) -> anyhow::Result<Child> {
    let output = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["lab", "up", "--background", "--dir"]).arg(dir);
    if args.acl {
        command.arg("--acl");
    }
    command.args(["--servers", &args.servers.to_string()]);
    if let Some(slot) = args.slot {
        command.args(["--slot", &slot.to_string()]);
    }
    command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    Ok(command.spawn()?)
}

/// Shows what the background lab has said since the last time.
fn forward(log: &mut File) -> std::io::Result<()> {
    let mut text = String::new();
    log.read_to_string(&mut text)?;
    if !text.trim_end().is_empty() {
        say(text.trim_end());
    }
    Ok(())
}

fn is_ready(dir: &Path, child: &Child) -> anyhow::Result<bool> {
    let file = LabFile::read(dir)?;
    let is_its = |file: &LabFile| file.supervisor.map(|supervisor| supervisor.pid) == child.id();
    Ok(file.is_some_and(|file| file.state == LabState::Ready && is_its(&file)))
}
