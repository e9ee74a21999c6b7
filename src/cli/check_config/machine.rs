//! What check-config looks at on this machine, as this user.

use std::{
    fs, io,
    net::{IpAddr, TcpListener},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use nix::unistd::{Group, geteuid};

use crate::cli::check_config::advice::{Found, Kind, Machine};

/// This machine.
pub(super) struct ThisMachine;

impl Machine for ThisMachine {
    fn look(&self, path: &Path) -> io::Result<Found> {
        let metadata = fs::metadata(path)?;
        let kind = match metadata.file_type() {
            kind if kind.is_file() => Kind::File { is_blank: fs::read(path)?.trim_ascii().is_empty() },
            kind if kind.is_dir() => {
                fs::read_dir(path)?;
                Kind::Folder
            }
            kind if kind.is_socket() => Kind::Socket,
            _ => Kind::Other,
        };
        Ok(Found { kind, mode: metadata.permissions().mode() & 0o777 })
    }

    fn has_group(&self, name: &str) -> bool {
        // Where the groups cannot be looked up, nothing is said of them.
        !matches!(Group::from_name(name), Ok(None))
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        let bound = TcpListener::bind((ip, 0));
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    }

    fn user(&self) -> String {
        let uid = geteuid();
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
    }
}
