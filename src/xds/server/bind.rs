//! Binding the xDS sockets. They hand out private keys, so who can reach them is decided here.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use tokio::net::{TcpListener, UnixListener};

/// `sockaddr_un.sun_path` holds 108 bytes with the final zero.
const UNIX_PATH_LIMIT: usize = 108;

/// Why an xDS socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel takes no longer paths.
    #[error("{} is too long for a Unix socket ({length} bytes, at most 107): choose a shorter path", path.display())]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Somebody answers on it.
    #[error("another agent serves {}: stop it, or give this one another socket", path.display())]
    Live {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is not a socket: remove it, or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The group that Envoy runs in is not known on this host.
    #[error("there is no group {group}: create it with `groupadd --system {group}`, or name another")]
    NoSuchGroup {
        /// The group's name.
        group: String,
    },
    /// The socket could not be made or given away.
    #[error("{act} {}: {source}; check that the directory exists and that this user may write there and is in the \
             socket's group", path.display())]
    Unix {
        /// What was tried.
        act: &'static str,
        /// The socket's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Private keys do not leave the host unprotected.
    #[error(
        "refuse to serve xDS on {address}: it hands out private keys and is not protected by mutual TLS yet; \
             use a Unix socket or a loopback address"
    )]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address could not be had.
    #[error("listen on {address}: {source}; free it (`ss -ltnp`) or configure another xDS address")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Binds the Unix socket, owned by `group` if given, with these permission bits. A socket left behind by an agent
/// that is gone is replaced; one on which somebody answers is not. Must run inside the runtime.
pub fn bind_unix(path: &Path, group: Option<&str>, mode: u32) -> Result<UnixListener, BindError> {
    let length = path.as_os_str().len();
    if length >= UNIX_PATH_LIMIT {
        return Err(BindError::PathTooLong { path: path.to_owned(), length });
    }
    let gid = group.map(|name| group_id(name, path)).transpose()?;
    clear(path)?;
    let failed = |act| move |source| BindError::Unix { act, path: path.to_owned(), source };
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    if gid.is_some() {
        chown(path, None, gid).map_err(failed("give to its group"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("set permissions of"))?;
    Ok(listener)
}

fn group_id(name: &str, path: &Path) -> Result<u32, BindError> {
    let looked_up = Group::from_name(name).map_err(|errno| BindError::Unix {
        act: "look up the group of",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let group = looked_up.ok_or_else(|| BindError::NoSuchGroup { group: name.to_owned() })?;
    Ok(group.gid.as_raw())
}

/// Removes a socket that nobody answers on.
fn clear(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| BindError::Unix {
                act: "remove the stale socket",
                path: path.to_owned(),
                source,
            })
        }
        // Also when it may not be connected to, or its queue is full: it is somebody's.
        _ => Err(BindError::Live { path: path.to_owned() }),
    }
}

/// Binds a TCP address for xDS; a loopback one, until mutual TLS is there. Must run inside the runtime.
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    if !address.ip().is_loopback() {
        return Err(BindError::NotLoopback { address });
    }
    let failed = |source| BindError::Tcp { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(listener).map_err(failed)
}
