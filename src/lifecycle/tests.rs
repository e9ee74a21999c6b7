use std::{future::pending, os::unix::net::UnixDatagram, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Stop,
    notify::Notify,
    now,
    signals::Signals,
    supervise::{Supervisor, SupervisorEnd},
};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_task_that_ends_is_named_with_its_reason() {
    let (_source, asked) = Stop::pair();
    let mut supervisor = Supervisor::new();
    supervisor.start("quiet", pending::<()>());
    supervisor.start("loud", async { Err::<(), _>("the socket is gone") });
    let end = supervisor.run(&asked).await;
    assert_eq!(end.to_string(), "task loud ended unexpectedly: the socket is gone");
    assert_eq!(supervisor.drain(Duration::ZERO, &asked).await, ["quiet"]);
}

#[tokio::test]
async fn a_task_that_panics_is_named() {
    let (_source, asked) = Stop::pair();
    let mut supervisor = Supervisor::new();
    supervisor.start("panics", async { assert!(now() < now() - LONG, "boom") });
    let SupervisorEnd::TaskEnded { name, reason } = supervisor.run(&asked).await else { panic!("asked") };
    assert_eq!(name, "panics");
    assert!(reason.contains("boom"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_all_and_names_the_late() {
    let (source, asked) = Stop::pair();
    let (_no_hurry, hurry) = Stop::pair();
    let mut supervisor = Supervisor::new();
    let stop = supervisor.stop();
    supervisor.start("good", async move {
        stop.wait().await;
        tokio::time::sleep(Duration::from_millis(900)).await;
    });
    supervisor.start("stuck", pending::<()>());
    source.stop();
    assert_eq!(supervisor.run(&asked).await, SupervisorEnd::Asked);
    let began = now();
    assert_eq!(supervisor.drain(Duration::from_secs(1), &hurry).await, ["stuck"]);
    assert_eq!(now() - began, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_drain() {
    let (hurry_source, hurry) = Stop::pair();
    let mut supervisor = Supervisor::new();
    supervisor.start("stuck", pending::<()>());
    hurry_source.stop();
    let began = now();
    assert_eq!(supervisor.drain(LONG, &hurry).await, ["stuck"]);
    assert_eq!(now(), began);
}

#[tokio::test]
async fn signals_stop_hurry_and_reload() {
    let signals = Signals::listen().expect("handlers");
    let raise = |signal| kill(Pid::this(), signal).expect("a signal to ourselves");
    let mut reloads = signals.reloads();
    raise(Signal::SIGHUP);
    reloads.changed().await.expect("a reload");
    assert!(!signals.stop().is_set());
    raise(Signal::SIGTERM);
    signals.stop().wait().await;
    assert!(!signals.hurry().is_set());
    raise(Signal::SIGINT);
    signals.hurry().wait().await;
}

fn manager() -> (tempfile::TempDir, UnixDatagram, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify").display().to_string();
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    (folder, socket, path)
}

fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("a message");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn systemd_hears_each_state() {
    let (_folder, socket, path) = manager();
    let notify = Notify::from_env(&|name| (name == "NOTIFY_SOCKET").then(|| path.clone()));
    notify.ready("2 proxies\nconnected");
    assert_eq!(heard(&socket), "READY=1\nSTATUS=2 proxies connected\n");
    notify.reloading();
    assert!(heard(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    notify.status("fine");
    assert_eq!(heard(&socket), "STATUS=fine\n");
    notify.stopping(Duration::from_secs(7));
    assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=7000000\n");
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_is_fed_at_half_its_time() {
    let (_folder, socket, path) = manager();
    let notify = Notify::from_env(&|name| match name {
        "NOTIFY_SOCKET" => Some(path.clone()),
        "WATCHDOG_USEC" => Some("4000000".into()),
        _ => None,
    });
    let (source, stop) = Stop::pair();
    let mut task = super::spawn("watchdog", notify.watch(stop));
    tokio::time::sleep(Duration::from_secs(5)).await;
    source.stop();
    task.join().await.expect("ends");
    socket.set_nonblocking(true).expect("no waiting");
    let mut pings = 0;
    let mut buffer = [0; 64];
    while let Ok(length) = socket.recv(&mut buffer) {
        assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
        pings += 1;
    }
    assert_eq!(pings, 3, "at 0, 2 and 4 seconds");
}

#[tokio::test]
async fn without_systemd_nothing_is_told_and_another_process_watchdog_is_not_ours() {
    let notify = Notify::from_env(&|_| None);
    notify.ready("fine");
    let (_folder, socket, path) = manager();
    let notify = Notify::from_env(&|name| match name {
        "NOTIFY_SOCKET" => Some(path.clone()),
        "WATCHDOG_USEC" => Some("2000".into()),
        "WATCHDOG_PID" => Some("1".into()),
        _ => None,
    });
    let (source, stop) = Stop::pair();
    source.stop();
    notify.watch(stop).await;
    socket.set_nonblocking(true).expect("no waiting");
    assert!(socket.recv(&mut [0; 8]).is_err());
}
