//! `causeway lab` as people use it: in the background, beside another lab, after a kill -9.

use std::{path::Path, process::Output};

use serde_json::Value;

fn lab(dir: &Path, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.arg("lab").args(args).arg("--dir").arg(dir).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn status(dir: &Path) -> Value {
    let output = lab(dir, &["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

/// The ids of all processes that have the lab's folder in their arguments.
fn processes(dir: &Path) -> Vec<i32> {
    let wanted = dir.to_str().unwrap();
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let belongs = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(wanted) && *pid != std::process::id().cast_signed()
    };
    pids.filter(belongs).collect()
}

/// Ends the lab in the background, also when the test fails before it does.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        lab(self.0, &["down"]);
    }
}

#[test]
fn the_lab_command_starts_tells_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(status(dir)["state"], "stopped");

    let _down = Down(dir);
    let up = lab(dir, &["up", "--detach"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up));
    let told = status(dir);
    assert_eq!(told["state"], "ready");
    assert!(told["dashboard"].as_str().unwrap().starts_with("http://127."));
    let nodes = told["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "primary-server",
            "primary-gateway",
            "primary-services",
            "secondary-server",
            "secondary-gateway",
            "secondary-services"
        ]
    );
    let mut keys: Vec<_> = nodes[0].as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut wanted = [
        "name",
        "datacenter",
        "role",
        "address",
        "consul_http",
        "causeway_http",
        "xds",
        "sync",
        "envoy_admin",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert!(nodes[0]["xds"].is_null() && nodes[1]["xds"].as_str().unwrap().starts_with("unix:"));
    assert!(nodes[0]["sync"].is_null() && nodes[1]["sync"].as_str().unwrap().ends_with(":18443"));

    let again = lab(dir, &["up", "--detach"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("lab down"), "{}", text(&again));

    kill_supervisor(dir);
    let orphans = processes(dir);
    assert!(!orphans.is_empty(), "the lab's processes outlive it");
    let down = lab(dir, &["down"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down));
    assert_eq!(processes(dir), Vec::<i32>::new(), "{}", text(&down));
    assert_eq!(status(dir)["state"], "stopped");
    assert_eq!(lab(dir, &["down"]).status.code(), Some(0), "down is idempotent");
}

/// kill -9 of the process that holds the lab: the one whose arguments say `lab up`.
fn kill_supervisor(dir: &Path) {
    let is_supervisor = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains("lab\0up")
    };
    let supervisor = processes(dir).into_iter().find(is_supervisor).expect("a lab in the background");
    let pid = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}
