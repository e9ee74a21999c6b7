//! The flags of `causeway envoy`, named as in `consul connect envoy`.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::cli::{consul_flags::ConsulFlags, duration};

const EXAMPLES: &str = "\
Examples:
  causeway envoy --sidecar-for web-1
  causeway envoy --sidecar-for web-1 --bootstrap > envoy.json
  causeway envoy --gateway mesh --register --expose-servers \\
      --address 10.0.1.5:8443 --wan-address 203.0.113.5:8443 -- --log-level warn

In a systemd unit that loads a credential `consul-token`, that is the ACL token where none is given.

Exit codes: 2 for a wrong command line; 66 when Envoy, or a file that was named, cannot be read; 69
when Consul cannot be asked, or does not know the proxy; 1 for all else that goes wrong. Otherwise
this process becomes Envoy.";

/// Start Envoy for a sidecar or a gateway, configured live by the causeway agent
///
/// Finds the proxy's registration on the local Consul agent, writes a bootstrap that only this user can read, and
/// becomes Envoy. Flags are those of `consul connect envoy`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EnvoyArgs {
    /// Start the sidecar of the service with this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["proxy_id", "gateway"])]
    pub(super) sidecar_for: Option<String>,
    /// Start the proxy or gateway with this service id
    #[arg(long, value_name = "ID")]
    pub(super) proxy_id: Option<String>,
    /// The same, as the name of a systemd instance: \xNN stands for a byte
    #[arg(long, value_name = "NAME", conflicts_with_all = ["proxy_id", "sidecar_for"])]
    pub(super) instance: Option<String>,
    /// Start a gateway of this kind
    #[arg(long, value_enum, value_name = "KIND")]
    pub(super) gateway: Option<Gateway>,

    /// Register the gateway before starting it
    #[arg(long, help_heading = "Gateway")]
    pub(super) register: bool,
    /// Service name of the gateway [default with --register: mesh-gateway]
    #[arg(long, value_name = "NAME", help_heading = "Gateway")]
    pub(super) service: Option<String>,
    /// Its address inside the datacenter; host or port may be left out [default: the Consul agent's own, port 8443]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Gateway")]
    pub(super) address: Option<String>,
    /// Its address for other datacenters; Envoy listens here too where it is this machine's own
    /// [default: the Consul node's own]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Gateway")]
    pub(super) wan_address: Option<String>,
    /// Listen here instead of on --address and --wan-address; can be repeated
    #[arg(long, value_name = "NAME=HOST:PORT", help_heading = "Gateway")]
    pub(super) bind_address: Vec<String>,
    /// Carry the WAN federation of Consul's servers
    #[arg(long, help_heading = "Gateway")]
    pub(super) expose_servers: bool,
    /// Let Consul deregister the gateway when its check was critical for this long
    #[arg(long, value_name = "DURATION", default_value = "6h", help_heading = "Gateway")]
    pub(super) deregister_after_critical: String,
    /// How often Consul checks that the gateway listens
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = "Gateway")]
    pub(super) check_interval: String,

    /// Where Envoy's admin interface listens: HOST:PORT, or unix:/path for its own user alone. Whoever reaches it controls
    /// Envoy and can read its token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:19000", help_heading = "Envoy")]
    pub(super) admin_bind: String,
    /// Access log of the admin interface
    #[arg(long, value_name = "FILE", default_value = "/dev/null", help_heading = "Envoy")]
    pub(super) admin_access_log_path: String,
    /// The path on which metrics are served where `envoy_prometheus_bind_addr` is set
    #[arg(long, value_name = "PATH", default_value = "/metrics", help_heading = "Envoy")]
    pub(super) prometheus_scrape_path: String,
    /// The port of this machine that serves those metrics, instead of Envoy itself
    #[arg(long, value_name = "PORT", help_heading = "Envoy")]
    pub(super) prometheus_backend_port: Option<u16>,
    /// Serve /ready of the admin interface, and nothing else of it, on this address
    #[arg(long, value_name = "IP", requires = "envoy_ready_bind_port", help_heading = "Envoy")]
    pub(super) envoy_ready_bind_address: Option<IpAddr>,
    /// The port for --envoy-ready-bind-address
    #[arg(long, value_name = "PORT", requires = "envoy_ready_bind_address", help_heading = "Envoy")]
    pub(super) envoy_ready_bind_port: Option<u16>,
    /// Print the bootstrap, with its token if there is one, and start nothing
    #[arg(long, help_heading = "Envoy")]
    pub(super) bootstrap: bool,
    /// The Envoy to start [default: ENVOY_BIN, then `envoy` on PATH]
    #[arg(long, value_name = "FILE", help_heading = "Envoy")]
    pub(super) envoy_binary: Option<PathBuf>,
    /// Where the causeway agent serves xDS: unix:/path, or HOST:PORT on the loopback
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CAUSEWAY_XDS",
        default_value = "unix:/run/causeway/xds.sock",
        help_heading = "Envoy"
    )]
    pub(super) xds: String,
    /// Folder for the bootstrap [default: $XDG_RUNTIME_DIR/causeway, else /run/causeway, else a private one in the
    /// folder for temporary files]
    #[arg(long, value_name = "DIR", help_heading = "Envoy")]
    pub(super) bootstrap_dir: Option<PathBuf>,
    /// How long to go on asking, while Consul does not answer or does not know the proxy; with --instance at least 10s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse, help_heading = "Envoy")]
    pub(super) retry_for: Duration,
    /// Arguments for Envoy
    #[arg(last = true, value_name = "ENVOY ARGUMENTS")]
    pub(super) envoy_args: Vec<OsString>,

    /// How to reach Consul.
    #[command(flatten)]
    pub(super) consul: ConsulFlags,
}

/// The kinds of gateway that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Gateway {
    Mesh,
}
