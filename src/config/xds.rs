//! `[xds]`: where Envoys connect. What is served there includes private keys, so the door is narrow by default.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::config::{
    key::{Effect, Key, Kind, Section, Value},
    reader::{Document, Refusal},
};

/// The kernel's limit for the path of a Unix socket: 108 bytes with the closing zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// None would serve nobody; more than a million do not fit into one process.
const STREAMS_LIMITS: RangeInclusive<u64> = 1..=1_000_000;

/// None would serve nobody; beyond that nothing is held back.
const NEW_STREAMS_LIMITS: RangeInclusive<u64> = 1..=100_000;

/// A week: beyond it a limit of age is none.
const MAX_AGE_LIMIT_S: u64 = 7 * 24 * 60 * 60;

/// Between two checks of an open stream's token. Consul's own agents take five minutes; with less than a second the
/// checks would be most of what Consul is asked.
const TOKEN_RECHECK_LIMITS: RangeInclusive<u64> = 1000..=3_600_000;

/// Where the xDS server listens, and how much it takes.
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
    /// How old a TCP connection grows before its client is sent to connect anew; none for ever.
    pub tcp_max_age: Option<Duration>,
    /// Discovery streams at once.
    pub max_streams: usize,
    /// Streams let in each second while more of them come.
    pub new_streams_per_second: u32,
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
            tcp_max_age: Some(Duration::from_secs(1_800)),
            max_streams: 10_000,
            new_streams_per_second: 1_000,
            token_recheck_ms: 300_000,
        }
    }
}

pub(crate) const SECTION: Section = Section {
    name: "xds",
    about: "Where Envoys connect: private keys are served here",
    keys: &[
        SOCKET,
        SOCKET_GROUP,
        SOCKET_MODE,
        TCP,
        TCP_MAX_AGE_S,
        MAX_STREAMS,
        NEW_STREAMS_PER_SECOND,
        TOKEN_RECHECK_MS,
    ],
};

const SOCKET: Key = Key {
    name: "socket",
    kind: Kind::Text("path, at most 107 bytes"),
    example: r#""/run/causeway/xds.sock""#,
    meaning: "the Unix socket; `\"\"` for none",
    value: |config| Value::path(config.xds.socket.as_ref()),
    ..Key::TEXT
};
const SOCKET_GROUP: Key = Key {
    name: "socket_group",
    kind: Kind::Text("name of a group"),
    example: r#""causeway-envoy""#,
    meaning: "group of the socket: put the user that runs Envoy into it",
    more: "`\"\"` leaves the group of the agent's process",
    value: |config| Value::optional(config.xds.socket_group.as_ref()),
    ..Key::TEXT
};
const SOCKET_MODE: Key = Key {
    name: "socket_mode",
    kind: Kind::Text("octal digits, 0 to 0770"),
    example: r#""0660""#,
    meaning: "permissions of the socket; nothing for others",
    value: |config| Value::text(format_args!("{:04o}", config.xds.socket_mode)),
    ..Key::TEXT
};
pub(crate) const TCP: Key = Key {
    name: "tcp",
    kind: Kind::Text("loopback IP address and port"),
    example: r#""127.0.0.1:18502""#,
    meaning: "an address to listen on as well, by custom `127.0.0.1:18502`",
    more: "Any local user can connect to it. Other addresses are refused: they need mTLS, which is not built yet",
    value: |config| Value::optional(config.xds.tcp.as_ref()),
    ..Key::TEXT
};
const TCP_MAX_AGE_S: Key = Key {
    name: "tcp_max_age_s",
    kind: Kind::Number("seconds", 0..=MAX_AGE_LIMIT_S),
    example: "1800",
    meaning: "the age at which a client over TCP is sent to connect anew, give or take a tenth; `0` for never",
    more: "It loses nothing by it: an Envoy that comes back over delta is sent only what changed. Connections over the socket \
           have no such limit",
    value: |config| Value::Number(config.xds.tcp_max_age.map_or(0, |age| age.as_secs())),
    ..Key::TEXT
};
const MAX_STREAMS: Key = Key {
    name: "max_streams",
    kind: Kind::Number("streams", STREAMS_LIMITS),
    example: "10000",
    meaning: "discovery streams at once; whoever comes beyond is told so (`RESOURCE_EXHAUSTED`)",
    more: "An Envoy has one over ADS. Without ADS it has one for clusters, one for listeners and one for each \
           cluster's endpoints, each route and each secret. Client status and health checks do not count",
    value: |config| Value::count(config.xds.max_streams),
    ..Key::TEXT
};
const NEW_STREAMS_PER_SECOND: Key = Key {
    name: "new_streams_per_second",
    kind: Kind::Number("streams", NEW_STREAMS_LIMITS),
    example: "1000",
    meaning: "how many new streams are let in each second when very many come at once; the others wait their turn",
    more: "The first second's worth is let in at once. It keeps those that are connected from waiting behind a rush",
    value: |config| Value::Number(config.xds.new_streams_per_second.into()),
    ..Key::TEXT
};
const TOKEN_RECHECK_MS: Key = Key {
    name: "token_recheck_ms",
    kind: Kind::Number("milliseconds", TOKEN_RECHECK_LIMITS),
    example: "300000",
    meaning: "how often the ACL token of a connected Envoy is checked again",
    more: "One that was deleted or lost its right is disconnected then",
    effect: Effect::Reload(|running, new| running.xds.token_recheck_ms = new.xds.token_recheck_ms),
    value: |config| Value::Number(config.xds.token_recheck_ms),
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>) -> XdsSettings {
    let default = XdsSettings::default();
    let mut section = document.section("xds");
    let socket = section.parsed(&SOCKET, socket_path).unwrap_or(default.socket);
    let socket_group = section.text(&SOCKET_GROUP).map_or(default.socket_group, non_empty);
    let socket_mode = section.parsed(&SOCKET_MODE, permission_bits).unwrap_or(default.socket_mode);
    let tcp = section.parsed(&TCP, loopback_address);
    let tcp_max_age = section
        .number(&TCP_MAX_AGE_S)
        .map_or(default.tcp_max_age, |seconds| (seconds > 0).then(|| Duration::from_secs(seconds)));
    let max_streams = section
        .number(&MAX_STREAMS)
        .and_then(|streams| usize::try_from(streams).ok())
        .unwrap_or(default.max_streams);
    let new_streams_per_second = section
        .number(&NEW_STREAMS_PER_SECOND)
        .and_then(|streams| u32::try_from(streams).ok())
        .unwrap_or(default.new_streams_per_second);
    let recheck = section.number(&TOKEN_RECHECK_MS);
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
    XdsSettings {
        socket,
        socket_group,
        socket_mode,
        tcp,
        tcp_max_age,
        max_streams,
        new_streams_per_second,
        token_recheck_ms,
    }
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
