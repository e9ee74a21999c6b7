//! `[xds]`: where Envoys connect. What is served there includes private keys, so the door is narrow by default.

use std::{net::SocketAddr, path::PathBuf};

use crate::config::reader::{Document, Key, Refusal};

/// The kernel's limit for the path of a Unix socket: 108 bytes with the closing zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Between two checks of an open stream's token. Consul's own agents take five minutes; with less than a second the
/// checks would be most of what Consul is asked.
const TOKEN_RECHECK_MS: std::ops::RangeInclusive<u64> = 1000..=3_600_000;

/// Where the xDS server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsSettings {
    /// The Unix socket, if any.
    pub socket: Option<PathBuf>,
    /// The group that owns the socket; none leaves the group of the agent's process.
    pub socket_group: Option<String>,
    /// Permission bits of the socket; never any for others.
    pub socket_mode: u32,
    /// The TCP address, if any; always loopback.
    pub tcp: Option<SocketAddr>,
    /// How often the ACL token of an open stream is checked again, in milliseconds.
    pub token_recheck_ms: u64,
}

impl Default for XdsSettings {
    fn default() -> Self {
        Self {
            socket: Some("/run/causeway/xds.sock".into()),
            socket_group: Some("causeway-envoy".into()),
            socket_mode: 0o660,
            tcp: None,
            token_recheck_ms: 300_000,
        }
    }
}

const SOCKET: Key = Key { name: "socket", example: r#""/run/causeway/xds.sock""# };
const SOCKET_GROUP: Key = Key { name: "socket_group", example: r#""causeway-envoy""# };
const SOCKET_MODE: Key = Key { name: "socket_mode", example: r#""0660""# };
pub(crate) const TCP: Key = Key { name: "tcp", example: r#""127.0.0.1:18502""# };

const TOKEN_RECHECK: Key = Key { name: "token_recheck_ms", example: "300000" };

pub(crate) fn read(document: &mut Document<'_>) -> XdsSettings {
    let default = XdsSettings::default();
    let mut section = document.section("xds");
    let socket = section.parsed(&SOCKET, socket_path).unwrap_or(default.socket);
    let socket_group = section.text(&SOCKET_GROUP).map_or(default.socket_group, non_empty);
    let socket_mode = section.parsed(&SOCKET_MODE, permission_bits).unwrap_or(default.socket_mode);
    let tcp = section.parsed(&TCP, loopback_address);
    let recheck = section.number(&TOKEN_RECHECK, TOKEN_RECHECK_MS);
    let token_recheck_ms = recheck.unwrap_or(default.token_recheck_ms);
    if socket.is_none() {
        if !section.has(&TCP) {
            let remedy = "give socket a path, or tcp a loopback address";
            section.refuse(&SOCKET, "is \"\" and tcp is not set, so that no Envoy could connect", remedy);
        }
        for key in [&SOCKET_GROUP, &SOCKET_MODE] {
            section.refuse(key, "is set and socket is \"\"", "remove it, or give socket a path");
        }
    }
    XdsSettings { socket, socket_group, socket_mode, tcp, token_recheck_ms }
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn socket_path(text: &str) -> Result<Option<PathBuf>, Refusal> {
    if text.len() > MAX_SOCKET_PATH_BYTES {
        return Err(Refusal {
            problem: format!("has {} bytes, and the kernel takes {MAX_SOCKET_PATH_BYTES}", text.len()),
            remedy: Some("choose a shorter path".into()),
        });
    }
    if text.starts_with("unix:") {
        return Err(Refusal {
            problem: "is an address, and must be a path".into(),
            remedy: Some("leave out unix:".into()),
        });
    }
    Ok(non_empty(text.to_owned()).map(PathBuf::from))
}

fn permission_bits(text: &str) -> Result<u32, Refusal> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("is `{text}`, and must be three octal digits of permissions"))?;
    if mode & 0o007 == 0 {
        return Ok(mode);
    }
    Err(Refusal {
        problem: format!("is `{text}`, which lets every local user read private keys"),
        remedy: Some("end it in 0, and put the users that run Envoy into socket_group".into()),
    })
}

fn loopback_address(text: &str) -> Result<SocketAddr, Refusal> {
    let address = address(text)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(Refusal {
        problem: format!(
            "is {address}, which is not loopback: private keys are served there, and off loopback that needs mTLS, \
             which is not built yet"
        ),
        remedy: Some("use socket, or an address such as 127.0.0.1:18502".into()),
    })
}

/// An IP address and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| Refusal::from(format!("is `{text}`, and must be an IP address and a port")))
}
