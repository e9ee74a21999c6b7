//! The bootstrap: the little that Envoy must know before it can ask the agent for everything else.
//!
//! Pure: who the proxy is comes in, JSON comes out. Where it is written and who reads it is not known here.

pub mod extras;
mod stats;

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde_json::{Value, json};

use self::extras::Extras;
use crate::{model::secret::SecretText, xds::resource::XDS_CLUSTER};

/// The agent's xDS socket when nothing else is said.
pub const DEFAULT_XDS_SOCKET: &str = "/run/causeway/xds.sock";

/// What the kernel takes as the path of a Unix socket (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The header in which Envoy presents its Consul token.
const TOKEN_HEADER: &str = "x-consul-token";

const FILE_ACCESS_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Everything a bootstrap is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapParams {
    /// The proxy's service id; becomes `node.id`, by which the agent knows it.
    pub proxy_id: String,
    /// The service the metrics are counted for: what a sidecar stands for, a gateway's own name. Becomes
    /// `node.cluster`.
    pub service: String,
    /// The datacenter it runs in.
    pub datacenter: String,
    /// The Consul node it runs on.
    pub node_name: String,
    /// Where Envoy's admin interface listens.
    pub admin: AdminAddress,
    /// The file that gets the admin interface's access log.
    pub admin_access_log: String,
    /// Where the agent serves xDS.
    pub xds: XdsAddress,
    /// The Consul token that the agent checks the stream with.
    pub token: Option<SecretText>,
    /// Metrics, tracing and static resources that the proxy's settings ask for.
    pub extras: Extras,
}

/// A host (an IP address or a DNS name) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address or DNS name; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Where an Envoy's admin interface listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An IP address. On the loopback every user of the machine can connect to it.
    Tcp(SocketAddr),
    /// A Unix socket that only Envoy's own user can open, written `unix:/path`.
    Unix(PathBuf),
}

/// Where the agent serves xDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdsAddress {
    /// A Unix socket, written `unix:/path`.
    Unix(PathBuf),
    /// A TCP address of this machine only, written `HOST:PORT`.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// The host as an IP address, `localhost` being 127.0.0.1; `None` for other host names.
    pub fn ip(&self) -> Option<IpAddr> {
        if self.host.eq_ignore_ascii_case("localhost") {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        self.host.parse().ok()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not HOST:PORT; write for example 127.0.0.1:19000 or [::1]:19000");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        // An IPv6 address without brackets cannot be told from its port.
        let is_valid = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '/', ' ']),
        };
        if is_valid { Ok(Self { host: bare.unwrap_or(host).to_owned(), port }) } else { Err(wrong()) }
    }
}

/// The path in an address that is written `unix:/path`; none in one that is written otherwise.
pub fn socket_path(text: &str) -> Option<Result<PathBuf, String>> {
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"))?;
    let is_usable = path.starts_with('/') && path.len() <= MAX_SOCKET_PATH_BYTES;
    Some(if is_usable {
        Ok(PathBuf::from(path))
    } else {
        Err(format!(
            "`{text}` is not an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes; write for example \
             unix:/run/envoy/admin.sock"
        ))
    })
}

impl FromStr for XdsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
        match path {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => {
                Err(format!("`{text}` is not an absolute path; write for example unix:{DEFAULT_XDS_SOCKET}"))
            }
            None => {
                let at: Endpoint = text.parse().map_err(|_| {
                    format!("`{text}` is neither unix:/path nor HOST:PORT; write for example unix:{DEFAULT_XDS_SOCKET}")
                })?;
                // Over TCP the token and the private keys go in plain text.
                at.ip().filter(IpAddr::is_loopback).map(|ip| Self::Tcp(SocketAddr::new(ip, at.port))).ok_or_else(|| {
                    format!(
                        "`{text}` is not on this machine's loopback, and the token and private keys would cross the \
                         network in plain text; start Envoy beside its agent, with unix:{DEFAULT_XDS_SOCKET}"
                    )
                })
            }
        }
    }
}

/// The bootstrap as JSON that Envoy reads. It holds the token in plain text, since Envoy must send it.
pub fn bootstrap(params: &BootstrapParams) -> Value {
    let mut bootstrap = json!({
        "admin": admin(params),
        "node": {
            "id": params.proxy_id,
            "cluster": params.service,
            "metadata": {
                "datacenter": params.datacenter,
                "namespace": stats::NAMESPACE,
                "node_name": params.node_name,
            },
        },
        "dynamic_resources": dynamic_resources(params),
        "static_resources": {"clusters": [xds_cluster(&params.xds)]},
        "stats_config": stats::config(&params.service, &params.datacenter),
        "layered_runtime": {"layers": [{
            "name": "causeway",
            // Consul's limit: a longer regular expression in a route or an intention is refused, not run.
            "static_layer": {"re2.max_program_size.error_level": 1_048_576},
        }]},
    });
    params.extras.add_to(&mut bootstrap, &params.admin);
    bootstrap
}

/// The token in a bootstrap that was made here; none if it has none.
pub fn token(bootstrap: &Value) -> Option<SecretText> {
    let metadata = &bootstrap["dynamic_resources"]["ads_config"]["grpc_services"][0]["initial_metadata"];
    let header = metadata.as_array()?.iter().find(|header| header["key"] == TOKEN_HEADER)?;
    header["value"].as_str().map(SecretText::from)
}

fn admin(params: &BootstrapParams) -> Value {
    json!({
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {"@type": FILE_ACCESS_LOG, "path": params.admin_access_log},
        }],
        "address": match &params.admin {
            AdminAddress::Tcp(at) => socket_address(*at),
            // The interface shows the token: nobody but Envoy's own user and root.
            AdminAddress::Unix(path) => json!({"pipe": {"path": path.to_string_lossy(), "mode": 0o600}}),
        },
    })
}

fn dynamic_resources(params: &BootstrapParams) -> Value {
    let mut service = json!({"envoy_grpc": {
        "cluster_name": XDS_CLUSTER,
        // The agent is on this machine: asking often costs nothing, and Envoy's own limit of 30 s would keep an old
        // configuration that long after the agent is back.
        "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"}},
    }});
    if let Some(token) = params.token.as_ref().filter(|token| !token.is_empty()) {
        service["initial_metadata"] = json!([{"key": TOKEN_HEADER, "value": token.expose()}]);
    }
    // No time limit: Envoy must not start with half a configuration because Consul answers late. The agent answers
    // every name that is asked for, so that nothing waits for ever.
    let source = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "lds_config": source,
        "cds_config": source,
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [service],
        },
    })
}

fn xds_cluster(xds: &XdsAddress) -> Value {
    let mut cluster = json!({
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {HTTP_PROTOCOL_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_PROTOCOL_OPTIONS}"),
            "explicit_http_config": {"http2_protocol_options": {
                // An agent that hangs or vanished without a word is noticed, and the stream opened anew.
                "connection_keepalive": {"interval": "30s", "timeout": "10s"},
            }},
        }},
    });
    let address = match xds {
        XdsAddress::Unix(path) => json!({"pipe": {"path": path.to_string_lossy()}}),
        XdsAddress::Tcp(at) => {
            cluster["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}});
            socket_address(*at)
        }
    };
    cluster["load_assignment"] = json!({
        "cluster_name": XDS_CLUSTER,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    });
    cluster
}

fn socket_address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip(), "port_value": at.port()}})
}
