//! The command line: help, versions, and proxies that cannot be chosen.

use std::process::Command;

use causeway::cli::Cli;
use clap::CommandFactory;
use serde_json::json;

use super::{assert_says, host, web};
use crate::rig::parts::{Consul, run};

fn walk(command: &clap::Command, path: &[String]) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        let path: Vec<String> = path.iter().cloned().chain([sub.get_name().to_owned()]).collect();
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let ended = run(&args);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let example = format!("causeway {}", path.join(" "));
        let is_group = sub.has_subcommands();
        assert!(is_group || ended.out.contains("Example"), "{path:?} has no example:\n{}", ended.out);
        assert_says(&ended.out, &[&example]);
        walk(sub, &path);
    }
}

#[test]
fn every_commands_help_has_an_example() {
    walk(&Cli::command(), &[]);
    let ended = run(&["--help"]);
    assert_says(&ended.out, &["Example", "causeway agent --config"]);
}

#[test]
fn the_version_is_that_of_the_package_and_of_the_commit() {
    let ended = run(&["--version"]);
    let commit = ended
        .out
        .strip_prefix(concat!("causeway ", env!("CARGO_PKG_VERSION"), " ("))
        .and_then(|rest| rest.strip_suffix(")\n"));
    let Some(commit) = commit else { panic!("{ended:?}") };
    let git = ["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short=12", "HEAD"];
    // A build of a source archive has no git, and is told its commit, or knows none.
    let Ok(said) = Command::new("git").args(git).output() else { return };
    if said.status.success() && option_env!("CAUSEWAY_COMMIT").is_none() {
        let head = String::from_utf8_lossy(&said.stdout);
        assert_eq!(commit.trim_end_matches("-dirty"), head.trim(), "{ended:?}");
    }
}

#[test]
fn an_unknown_command_or_flag_is_wrong_usage() {
    for args in [&["agnet"][..], &["agent", "--confg", "x"], &["proxy"]] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_says(&ended.err, &["Usage"]);
    }
}

#[test]
fn a_sidecar_that_is_not_one_is_not_guessed() {
    let consul = Consul::start(host(10), json!({}));
    consul.register(&web());
    let consul_url = consul.address();
    let bootstrap =
        |id: &str| run(&["envoy", "--sidecar-for", id, "--bootstrap", "--http-addr", &consul_url]);
    let one = bootstrap("web");
    assert_eq!(one.code, Some(0), "{one:?}");
    assert_says(&one.out, &["\"id\": \"web-sidecar-proxy\""]);

    let unknown = bootstrap("wbe");
    assert_eq!(unknown.code, Some(69), "{unknown:?}");
    assert_says(&unknown.err, &["`wbe`", "sidecar_service", "service ids that have a sidecar here: web"]);

    consul.register(&json!({"Name": "bare", "Port": 8081}));
    let none = bootstrap("bare");
    assert_eq!(none.code, Some(69), "{none:?}");
    assert_says(&none.err, &["no sidecar is registered for service id `bare`", "consul services register"]);

    consul.register(&json!({"Kind": "connect-proxy", "Name": "web-proxy", "ID": "web-second", "Port": 21009,
        "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "web"}}));
    let two = bootstrap("web");
    assert_eq!(two.code, Some(69), "{two:?}");
    assert_says(&two.err, &["web-sidecar-proxy", "web-second", "`--proxy-id ID`"]);
    let chosen = run(&["envoy", "--proxy-id", "web-second", "--bootstrap", "--http-addr", &consul_url]);
    assert_eq!(chosen.code, Some(0), "{chosen:?}");
    assert_says(&chosen.out, &["\"id\": \"web-second\""]);

    drop(consul);
    let away = bootstrap("web");
    assert_eq!(away.code, Some(69), "{away:?}");
    assert_says(&away.err, &[&consul_url, "check that the agent runs"]);
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let ended = run(&["proxy", "status", "--http-addr", "http://127.58.0.11:9"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_says(&ended.err, &["http://127.58.0.11:9/status", "is `causeway agent` running?", "--http-addr"]);
}
