//! What a changed file changes in a running agent, and what waits for a restart.

use crate::config::Config;

/// The difference between the running settings and a file read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadDiff {
    /// Keys that take effect at once, as `section.key`.
    pub applied: Vec<&'static str>,
    /// Keys that changed and take effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

/// `log.level`: can be reloaded.
pub(crate) const LOG_LEVEL: &str = "log.level";
/// `mesh.default_intention_policy`: can be reloaded.
pub(crate) const DEFAULT_INTENTION_POLICY: &str = "mesh.default_intention_policy";

impl Config {
    /// Compares the running settings with new ones. Secrets are compared, never told.
    pub fn reload_diff(old: &Self, new: &Self) -> ReloadDiff {
        let reloadable = [
            (LOG_LEVEL, old.log.level != new.log.level),
            (
                DEFAULT_INTENTION_POLICY,
                old.mesh.default_intention_policy != new.mesh.default_intention_policy,
            ),
        ];
        let (a, b) = (&old.consul, &new.consul);
        let needs_restart = [
            ("consul.address", a.address != b.address),
            ("consul.token", a.token != b.token),
            ("consul.token_file", a.token_file != b.token_file),
            ("consul.http_auth", a.http_auth != b.http_auth),
            ("consul.ca_file", a.tls.ca_file != b.tls.ca_file),
            ("consul.ca_path", a.tls.ca_path != b.tls.ca_path),
            ("consul.cert_file", a.tls.cert_file != b.tls.cert_file),
            ("consul.key_file", a.tls.key_file != b.tls.key_file),
            ("consul.tls_server_name", a.tls.server_name != b.tls.server_name),
            ("consul.tls_verify", a.tls.verify != b.tls.verify),
            ("consul.max_connections", a.max_connections != b.max_connections),
            ("xds.socket", old.xds.socket != new.xds.socket),
            ("xds.socket_group", old.xds.socket_group != new.xds.socket_group),
            ("xds.socket_mode", old.xds.socket_mode != new.xds.socket_mode),
            ("xds.tcp", old.xds.tcp != new.xds.tcp),
            ("xds.tcp_max_age_s", old.xds.tcp_max_age != new.xds.tcp_max_age),
            ("xds.max_streams", old.xds.max_streams != new.xds.max_streams),
            ("xds.token_recheck_ms", old.xds.token_recheck_ms != new.xds.token_recheck_ms),
            ("http.listen", old.http.listen != new.http.listen),
            ("log.format", old.log.format != new.log.format),
            ("telemetry.otlp_endpoint", old.telemetry.otlp_endpoint != new.telemetry.otlp_endpoint),
            ("telemetry.service_name", old.telemetry.service_name != new.telemetry.service_name),
            ("shutdown.drain_ms", old.shutdown.drain_ms != new.shutdown.drain_ms),
            ("state.dir", old.state.dir != new.state.dir),
            ("state.persist_keys", old.state.persist_keys != new.state.persist_keys),
            ("state.token_max_age_s", old.state.token_max_age != new.state.token_max_age),
        ];
        ReloadDiff { applied: changed(&reloadable), needs_restart: changed(&needs_restart) }
    }

    /// These settings with what can be reloaded taken from `new`: what runs after a reload.
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut running = self.clone();
        running.log.level = new.log.level.clone();
        running.mesh = new.mesh.clone();
        running
    }
}

fn changed(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| *key).collect()
}
