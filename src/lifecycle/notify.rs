//! Tells systemd how it goes (`sd_notify(3)`). Without `NOTIFY_SOCKET` it tells nobody and costs nothing.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use sd_notify::NotifyState;

use crate::lifecycle::Stop;

/// The way to the service manager.
#[derive(Clone, Debug)]
pub struct Notify {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. The variables stay set: what the agent starts
    /// must not inherit them, which is up to who starts it.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let address = env("NOTIFY_SOCKET").and_then(|path| address(&path).ok());
        let watchdog = watchdog(env, std::process::id()).filter(|_| address.is_some());
        Self { address, watchdog }
    }

    /// The agent serves. Also ends a reload.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The agent reads its configuration again; [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        // systemd 253 and newer fails a reload that does not carry the time.
        match NotifyState::monotonic_usec_now() {
            Ok(time) => self.send(&[NotifyState::Reloading, time]),
            Err(error) => tracing::debug!(%error, "no monotonic clock: the reload is not announced"),
        }
    }

    /// The agent drains and ends, within this time.
    pub fn stopping(&self, within: Duration) {
        let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        let states = [
            NotifyState::Stopping,
            NotifyState::Status("draining"),
            // Whatever the unit's own limit is.
            NotifyState::ExtendTimeoutUsec(micros),
        ];
        self.send(&states);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(&one_line(text))]);
    }

    /// Pings the watchdog at half its interval until the stop. The runtime that carries every task sends the ping, so
    /// one that schedules no longer pings no longer. Without a watchdog it only waits for the stop.
    pub async fn watch(self, stop: Stop) {
        let Some(interval) = self.watchdog else { return stop.wait().await };
        let mut ticks = tokio::time::interval(interval / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => return,
                _ = ticks.tick() => self.send(&[NotifyState::Watchdog]),
            }
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(address) = &self.address else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = send_to(address, &message) {
            tracing::debug!(%error, "tell systemd");
        }
    }
}

fn send_to(address: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the agent up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), address).map(|_| ())
}

fn address(path: &str) -> io::Result<SocketAddr> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

fn watchdog(env: &dyn Fn(&str) -> Option<String>, own_pid: u32) -> Option<Duration> {
    let is_for_us = env("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(own_pid));
    let interval: u64 = env("WATCHDOG_USEC")?.parse().ok()?;
    // Below two microseconds there is no half to ping at.
    (is_for_us && interval > 1).then(|| Duration::from_micros(interval))
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
