//! What can go wrong with a lab, each with what to do about it.

use std::{io, net::Ipv4Addr, path::PathBuf};

/// Why a lab could not be brought up, changed or taken down.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Another supervisor holds this folder.
    #[error("a lab is already running in {}; see `causeway lab status`, stop it with `causeway lab down`", dir.display())]
    AlreadyRunning {
        /// The lab's folder.
        dir: PathBuf,
    },
    /// The folder holds something else; the lab would overwrite it.
    #[error("{} is not empty and not a lab's folder; name another with --dir", dir.display())]
    NotALab {
        /// The folder.
        dir: PathBuf,
    },
    /// The path cannot stand in the configuration files.
    #[error("{} is not valid UTF-8, which Consul's configuration needs; name another folder with --dir", dir.display())]
    PathText {
        /// The folder.
        dir: PathBuf,
    },
    /// Consul or Envoy is nowhere.
    #[error("no {tool} found (looked at ${variable}, {} and PATH); `make tools` installs it, or set {variable}", looked_at.display())]
    NoTool {
        /// `consul` or `envoy`.
        tool: &'static str,
        /// The variable that names one.
        variable: &'static str,
        /// The path looked at.
        looked_at: PathBuf,
    },
    /// The variable names no program.
    #[error("{variable} is {}, which is not an executable file; correct or unset it", path.display())]
    BadTool {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// No block of addresses is free.
    #[error(
        "{address}:{port} cannot be listened on: {reason}; stop what listens there (`ss -ltnp`), then try again"
    )]
    Busy {
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
        /// What the system says.
        reason: io::Error,
    },
    /// All blocks of addresses belong to other labs.
    #[error("other labs hold all address blocks asked for; stop one with `causeway lab down --dir DIR`")]
    NoSlot,
    /// A file or folder of the lab.
    #[error("{act} {}: {reason}", path.display())]
    File {
        /// What was to be done: `write`, `create`.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The state file is damaged.
    #[error("{} is unreadable: {reason}; if no lab runs there, delete the folder", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificates or keys could not be made.
    #[error("make the lab's certificates and keys: {0}")]
    Certificates(String),
    /// A program did not start.
    #[error("{node}: start {process} ({}): {reason}", program.display())]
    Spawn {
        /// The node.
        node: String,
        /// The process.
        process: String,
        /// The program.
        program: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A step of the bring-up did not come about.
    #[error(transparent)]
    Step(Box<StepFailed>),
    /// No such node or process in this lab.
    #[error("the lab has no {what}; it has {known}")]
    Unknown {
        /// What was asked for.
        what: String,
        /// What there is.
        known: String,
    },
    /// No server of a datacenter names a leader.
    #[error("no server of {datacenter} names a leader: {last}")]
    NoLeader {
        /// The datacenter.
        datacenter: String,
        /// What the last of them said.
        last: String,
    },
    /// The supervisor or a process does not end.
    #[error("{what} (pid {pid}) does not end; look at it with `ps -fp {pid}`")]
    WillNotStop {
        /// Which.
        what: String,
        /// Its pid.
        pid: u32,
    },
}

/// A step that did not come about, with the evidence.
#[derive(Debug, thiserror::Error)]
#[error("{node}: {ending} while waiting for: {awaited}{last}\nthe end of {}:\n{tail}", log.display())]
pub struct StepFailed {
    /// The node.
    pub node: String,
    /// What was waited for.
    pub awaited: String,
    /// How the wait ended: the deadline, or the death of the process.
    pub ending: String,
    /// The last answer, in its own words; empty when there is none.
    pub last: String,
    /// The log of the process that was waited on.
    pub log: PathBuf,
    /// Its last lines.
    pub tail: String,
}

/// For `map_err` on a file operation.
pub(crate) fn file(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LabError {
    move |reason| LabError::File { act, path: path.into(), reason }
}
