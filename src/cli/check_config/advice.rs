//! What a good file may still lack on the machine it is for. Pure: the machine is asked through [`Machine`].
//!
//! All of it are warnings, never errors: the file may be checked on another machine, as another user, or before what
//! it names is made.

use std::{io, net::IpAddr, path::Path};

use crate::config::{
    Config,
    consul::{ConsulAddress, ConsulSettings},
    http::HttpSettings,
    xds::XdsSettings,
};

/// Others may read.
const OTHERS_READ: u32 = 0o004;
/// Whoever connects to a socket must be able to write to it.
const GROUP_WRITE: u32 = 0o020;

/// What the unit makes when it starts: not there is as it should be until then.
const MADE_AT_START: [&str; 2] = ["/run/credentials", "/run/causeway"];

/// What can be seen of a machine.
pub(super) trait Machine {
    /// What is at this path, if it can be read by this user.
    fn look(&self, path: &Path) -> io::Result<Found>;
    /// Whether there is such a group.
    fn has_group(&self, name: &str) -> bool;
    /// Whether an interface has this address.
    fn has_address(&self, ip: IpAddr) -> bool;
    /// The user as whom it was looked.
    fn user(&self) -> String;
}

/// Something at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file; whether nothing but white space is in it.
    File {
        /// It holds nothing.
        is_blank: bool,
    },
    Folder,
    Socket,
    Other,
}

/// A warning about a key, by its name as `section.key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) remedy: String,
}

/// Everything that is worth a warning, in the order of the documentation. `inline_secret` is the key of a secret that
/// stands in the file itself.
pub(super) fn on(
    config: &Config,
    file: &Path,
    inline_secret: Option<&'static str>,
    machine: &dyn Machine,
) -> Vec<Advice> {
    let mut list = List { machine, found: Vec::new() };
    list.of_the_file(file, inline_secret);
    list.of_consul(&config.consul);
    list.of_xds(&config.xds);
    list.of_http(&config.http);
    list.found
}

/// Whether something that is named for Consul is made by the unit and cannot be looked at from here.
pub(super) fn is_hidden(consul: &ConsulSettings, machine: &dyn Machine) -> bool {
    let socket = match &consul.address {
        ConsulAddress::Unix { path } => Some(path),
        ConsulAddress::Http { .. } | ConsulAddress::Https { .. } => None,
    };
    let tls = &consul.tls;
    [socket, consul.token_file.as_ref(), tls.ca_file.as_ref(), tls.ca_path.as_ref()]
        .into_iter()
        .chain([tls.cert_file.as_ref(), tls.key_file.as_ref()])
        .flatten()
        .any(|path| is_made_at_start(path) && machine.look(path).is_err())
}

fn is_made_at_start(path: &Path) -> bool {
    MADE_AT_START.iter().any(|folder| path.starts_with(folder))
}

struct List<'m> {
    machine: &'m dyn Machine,
    found: Vec<Advice>,
}

impl List<'_> {
    fn add(&mut self, key: &'static str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.found.push(Advice { key, problem: problem.into(), remedy: remedy.into() });
    }

    fn of_the_file(&mut self, file: &Path, inline_secret: Option<&'static str>) {
        let Some(key) = inline_secret else { return };
        if self.machine.look(file).is_ok_and(|found| found.mode & OTHERS_READ != 0) {
            self.add(
                key,
                "is a secret in a file that every local user can read",
                format!("`chmod o= {}`, or keep it in a file of its own", file.display()),
            );
        }
    }

    fn of_consul(&mut self, consul: &ConsulSettings) {
        if let ConsulAddress::Unix { path } = &consul.address
            && self.found_at("consul.address", "names", path).is_some_and(|found| found.kind != Kind::Socket)
        {
            self.add(
                "consul.address",
                format!("names {}, which is not a socket", path.display()),
                "correct the path",
            );
        }
        let tls = &consul.tls;
        for (key, path, is_secret) in [
            ("consul.token_file", &consul.token_file, true),
            ("consul.ca_file", &tls.ca_file, false),
            ("consul.cert_file", &tls.cert_file, false),
            ("consul.key_file", &tls.key_file, true),
        ] {
            if let Some(path) = path {
                self.of_file(key, path, is_secret);
            }
        }
        if let Some(path) = &tls.ca_path
            && self.found_at("consul.ca_path", "names", path).is_some_and(|found| found.kind != Kind::Folder)
        {
            self.add(
                "consul.ca_path",
                format!("names {}, which is not a folder", path.display()),
                "name a folder here, or the file as ca_file",
            );
        }
        if !tls.verify {
            self.add(
                "consul.tls_verify",
                "is false: whoever stands between can read the token and answer in Consul's place",
                "name Consul's CA as ca_file and remove tls_verify",
            );
        }
    }

    fn of_file(&mut self, key: &'static str, path: &Path, is_secret: bool) {
        let Some(found) = self.found_at(key, "names", path) else { return };
        let shown = path.display();
        match found.kind {
            Kind::File { is_blank: false } => {}
            Kind::File { is_blank: true } => {
                self.add(key, format!("names {shown}, which is empty"), "fill it")
            }
            Kind::Folder | Kind::Socket | Kind::Other => {
                self.add(key, format!("names {shown}, which is not a file"), "name a file");
            }
        }
        if is_secret && found.mode & OTHERS_READ != 0 {
            self.add(
                key,
                format!("names {shown}, which every local user can read"),
                format!("`chmod 0600 {shown}`"),
            );
        }
    }

    /// What is at a path; a warning when it is not there or cannot be read.
    fn found_at(&mut self, key: &'static str, verb: &str, path: &Path) -> Option<Found> {
        let error = match self.machine.look(path) {
            Ok(found) => return Some(found),
            Err(error) => error,
        };
        if is_made_at_start(path) {
            return None;
        }
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => {
                self.add(
                    key,
                    format!("{verb} {shown}, which does not exist on this machine"),
                    "make it, or correct the path",
                );
            }
            io::ErrorKind::PermissionDenied => {
                let user = self.machine.user();
                let remedy = "let the agent's user read it; `sudo -u causeway causeway check-config FILE` looks as that";
                self.add(key, format!("{verb} {shown}, which user {user} cannot read"), remedy);
            }
            _ => self.add(key, format!("{verb} {shown}, which cannot be read: {error}"), "correct the path"),
        }
        None
    }

    fn of_xds(&mut self, xds: &XdsSettings) {
        let Some(socket) = &xds.socket else { return };
        if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty())
            && self.found_at("xds.socket", "is in", folder).is_some_and(|found| found.kind != Kind::Folder)
        {
            let problem = format!("is in {}, which is not a folder", folder.display());
            self.add("xds.socket", problem, "choose another path");
        }
        if self.machine.look(socket).is_ok_and(|found| found.kind != Kind::Socket) {
            let problem = format!("is {}, which exists and is not a socket", socket.display());
            self.add("xds.socket", problem, "remove it, or choose another path");
        }
        let Some(group) = &xds.socket_group else { return };
        if !self.machine.has_group(group) {
            let remedy = format!("create it with `groupadd --system {group}`, or name another");
            self.add("xds.socket_group", format!("is {group}, and this machine has no such group"), remedy);
        }
        if xds.socket_mode & GROUP_WRITE == 0 {
            let problem = format!("is {:04o}, with which no member of {group} can connect", xds.socket_mode);
            self.add("xds.socket_mode", problem, "write socket_mode = \"0660\"");
        }
    }

    fn of_http(&mut self, http: &HttpSettings) {
        let ip = http.listen.ip();
        if !self.machine.has_address(ip) {
            self.add(
                "http.listen",
                format!("is {ip}, which no interface of this machine has"),
                "correct the address",
            );
        }
        if !ip.is_loopback() {
            self.add(
                "http.listen",
                "is not loopback: whoever reaches it can read the status",
                "listen = \"127.0.0.1:18500\" keeps it local",
            );
        }
    }
}

#[cfg(test)]
mod tests;
