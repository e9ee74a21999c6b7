//! Signals, the service manager, and the log level while the agent runs.

use std::{net::TcpListener, os::unix::net::UnixDatagram, time::Duration};

use causeway::lifecycle;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{assert_says, host, web};
use crate::rig::{
    parts::{Agent, Consul, Home, PATIENCE, http, until},
    stream::Stream,
};

const NO_CONSUL: &str = "http://127.58.0.50:9";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_drains_and_the_manager_is_told() {
    let consul = Consul::start(host(51), json!({}));
    consul.register(&web());
    let home = Home::new(host(51));
    let notify = home.path("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || loop {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).unwrap();
        let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // Told whenever it changes.
        if !heard.starts_with("STATUS=") {
            break heard;
        }
    };
    let mut agent = Agent::with(home, &consul.address(), "", &[("NOTIFY_SOCKET", notify.to_str().unwrap())]);
    assert_says(&hear(), &["READY=1\n", "STATUS=serving\n"]);
    let mut stream = Stream::over_unix(&agent.home.socket(), "web-sidecar-proxy").await.unwrap();
    assert!(!stream.names().await.unwrap().is_empty());

    agent.process.signal(Signal::SIGHUP);
    assert_says(&hear(), &["RELOADING=1\n", "MONOTONIC_USEC="]);
    assert_says(&hear(), &["READY=1\n"]);

    agent.process.signal(Signal::SIGTERM);
    assert_says(&hear(), &["STOPPING=1\n", "EXTEND_TIMEOUT_USEC="]);
    let ended = loop {
        if let Err(status) = stream.names().await {
            break status;
        }
    };
    assert_eq!(ended.code(), tonic::Code::Aborted, "the stream ends in order: {ended}");
    drop(stream);
    assert_eq!(agent.process.ended().code(), Some(0));
    assert_says(&agent.log().text(), &["agent stopped"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let mut agent = Agent::with(Home::new(host(52)), NO_CONSUL, "shutdown.drain_ms = 600000", &[]);
    // A client that does not close its connection holds the drain up.
    let _held = Stream::over_unix(&agent.home.socket(), "web-sidecar-proxy").await.unwrap();
    agent.process.signal(Signal::SIGTERM);
    agent.log().line(&["stopping; a second signal stops at once"]);
    let since = lifecycle::now();
    agent.process.signal(Signal::SIGTERM);
    assert_eq!(agent.process.ended().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}

#[test]
fn a_reload_takes_a_good_file_and_keeps_out_a_bad_one() {
    let mut agent = Agent::with(Home::new(host(53)), NO_CONSUL, "", &[]);
    assert_eq!(agent.get("/log-level").body, "info\n");
    agent.home.write(NO_CONSUL, "log.level = \"debug\"\nxds.max_streams = 1");
    agent.process.signal(Signal::SIGHUP);
    agent.log().line(&["configuration reloaded", "log.level"]);
    agent.log().line(&["need a restart", "xds.max_streams"]);
    assert_eq!(agent.get("/log-level").body, "debug\n");
    assert_says(
        &agent.get("/metrics").body,
        &["config_last_reload_successful 1\n", "config_keys_waiting 1\n"],
    );

    agent.home.write(NO_CONSUL, "log.level = \"warn\"\nlog.lvel = \"x\"");
    agent.process.signal(Signal::SIGHUP);
    let line = agent.log().line(&["not reloaded"]);
    assert_says(&line, &["ERROR", "agent.toml:6:", "lvel", "the running one stays"]);
    assert_eq!(agent.get("/log-level").body, "debug\n");

    assert_says(&agent.get("/metrics").body, &["config_last_reload_successful 0\n"]);

    std::fs::remove_file(agent.home.path("agent.toml")).unwrap();
    agent.process.signal(Signal::SIGHUP);
    agent.log().line(&["not reloaded", "check the path"]);
    assert!(agent.process.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_how_long_the_drain_takes() {
    let mut agent = Agent::with(Home::new(host(55)), NO_CONSUL, "shutdown.drain_ms = 600000", &[]);
    // A client that does not close its connection holds the drain up.
    let _held = Stream::over_unix(&agent.home.socket(), "web-sidecar-proxy").await.unwrap();
    agent.home.write(NO_CONSUL, "shutdown.drain_ms = 0");
    agent.process.signal(Signal::SIGHUP);
    agent.log().line(&["configuration reloaded", "shutdown.drain_ms"]);
    agent.process.signal(Signal::SIGTERM);
    assert_eq!(agent.process.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_what_happens_without_an_intention() {
    let consul = Consul::start(host(56), json!({}));
    consul.register(&web());
    let agent = Agent::start(host(56), &consul);
    let _stream = Stream::over_unix(&agent.home.socket(), "web-sidecar-proxy").await.unwrap();
    let listener = || {
        let config = agent.get("/status/proxies/web-sidecar-proxy/config");
        let resources = (config.status == 200).then(|| config.json())?["resources"].clone();
        let is_inbound =
            |it: &&Value| it["name"].as_str().is_some_and(|name| name.starts_with("public_listener"));
        let inbound = resources.as_array()?.iter().find(is_inbound)?;
        Some(inbound["version"].as_str()?.to_owned())
    };
    let open = until("the listener is built", listener);
    let reload = |policy: &str| {
        agent.home.write(&consul.address(), policy);
        agent.process.signal(Signal::SIGHUP);
        agent.log().line(&["configuration reloaded", "mesh.default_intention_policy"]);
        agent.log().clear();
    };
    reload("mesh.default_intention_policy = \"deny\"");
    until("it denies", || listener().filter(|version| *version != open));
    reload("");
    until("it allows again", || listener().filter(|version| *version == open));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_where_traces_go() {
    let mut agent = Agent::with(Home::new(host(57)), NO_CONSUL, "", &[]);
    let collectors = [(); 2].map(|()| TcpListener::bind((host(57), 0)).unwrap());
    for (collector, name) in collectors.iter().zip(["one", "two"]) {
        let address = collector.local_addr().unwrap();
        let settings = format!("endpoint = \"http://{address}\"\ntelemetry.service_name = \"{name}\"");
        agent.home.write(NO_CONSUL, &format!("telemetry.otlp_{settings}"));
        agent.process.signal(Signal::SIGHUP);
        let line = agent.log().line(&["configuration reloaded"]);
        assert_says(&line, &["telemetry.otlp_endpoint", "telemetry.service_name"]);
        drop(Stream::over_unix(&agent.home.socket(), "web-sidecar-proxy").await.unwrap());
        // A stream is a span, which is sent some time after it ended, at the latest when its collector is given up.
        let has_ended = || agent.get("/metrics").body.contains("causeway_xds_streams 0\n").then_some(());
        until("the stream ends", has_ended);
        agent.log().clear();
    }
    agent.process.signal(Signal::SIGTERM);
    for collector in collectors {
        collector.set_nonblocking(true).unwrap();
        until("spans come", || collector.accept().ok());
    }
    assert_eq!(agent.process.ended().code(), Some(0));
}

#[test]
fn the_log_level_changes_at_run_time() {
    let agent = Agent::with(Home::new(host(54)), NO_CONSUL, "", &[]);
    let put = |level: &str| http(agent.home.http, "PUT", "/log-level", level).unwrap();
    let bad = put("lowd");
    assert_eq!(bad.status, 400);
    assert_says(&bad.body, &["`lowd` is not a level", "write one of error, warn, info, debug, trace"]);
    assert_eq!(agent.get("/log-level").body, "info\n");
    let good = put("warn,causeway::consul=trace");
    assert_eq!((good.status, good.body.as_str()), (200, "warn,causeway::consul=trace\n"));
    assert_eq!(agent.get("/log-level").body, "warn,causeway::consul=trace\n");
}
