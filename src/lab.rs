//! A federated lab of real Consul, Envoy and Causeway processes in two datacenters, used by people
//! (`causeway lab`) and by the integration tests alike.
//!
//! Each "VM" is a loopback address of its own with the ports a VM would use. [`plan`] decides what there is, [`Lab`]
//! brings it up, holds it and stops it. It knows the programs only by their command lines and HTTP interfaces.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use crate::{
    lab::{
        acl::{Acls, Tokens},
        plan::{LinkPlan, Node, Plan, ProcessPlan, Role},
        process::Death,
        relay::Link,
        runner::Runner,
        state::{LabState, create_private_dir, write_private},
        up::Up,
        wait::Progress,
    },
    lifecycle::{self, clock::STEP_FILE},
    model::name::Datacenter,
    tls::{
        authority::{self, Authority, AuthorityError, NewAuthority},
        gossip,
        x509::profile::{self, Place},
    },
};

pub mod acl;
pub mod consul;
pub mod demo;
pub mod down;
mod error;
pub mod plan;
pub mod process;
pub mod relay;
mod runner;
pub mod slot;
pub mod state;
pub mod tools;
mod up;
mod wait;

pub use error::{LabError, StepFailed};

/// A lab lives for hours; its certificates outlive it, and are of no use for long after.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Deaths not yet told. One process dies once per start, so this holds a whole lab's twice over.
const DEATHS: usize = 32;
/// How long one step of the bring-up may take. A step takes a second or two; a busy machine gets time.
const STEP_DEADLINE: Duration = Duration::from_secs(90);

/// More servers than three teach nothing more, and a machine carries only so many.
pub const MAX_SERVERS: u8 = 3;

/// What a lab is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// The lab's folder, absolute. It is created; everything the lab writes is in it.
    pub dir: PathBuf,
    /// The blocks of addresses it may take; the first free one is taken. Slot k has 127.(1+2k) and 127.(2+2k).
    pub slots: RangeInclusive<u8>,
    /// Consul.
    pub consul: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// `causeway` itself.
    pub causeway: PathBuf,
    /// Consul servers of each datacenter, 1 to [`MAX_SERVERS`]. Three go on when one of them is lost.
    pub servers: u8,
    /// Whether the ways between the datacenters can be cut and slowed: [`Lab::link`].
    pub links: bool,
    /// Whether the wall clock of each agent can be stepped: [`Lab::step_clock`].
    pub clocks: bool,
    /// Whether there are nodes with the demo services, or only servers and gateways.
    pub start_services: bool,
    /// Whether Consul has ACLs that deny by default, with a token of few rights for each process.
    pub has_acls: bool,
    /// Worker threads of each Envoy.
    pub envoy_concurrency: u16,
    /// Where sockets go when the lab's path is too long for them: the user's runtime folder.
    pub socket_root: PathBuf,
    /// How long one step of the bring-up may take.
    pub step_deadline: Duration,
}

impl LabOptions {
    /// The usual lab in this folder. Tools are looked for as [`tools::Tool::find`] says, under `tools_root`;
    /// `environment` looks a variable up.
    ///
    /// Errors: Consul or Envoy is not found, or the folder's path is not text.
    pub fn new(
        dir: &Path,
        causeway: PathBuf,
        tools_root: &Path,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, LabError> {
        let dir = std::path::absolute(dir).map_err(error::file("find", dir))?;
        if dir.to_str().is_none() {
            return Err(LabError::PathText { dir });
        }
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(error::file("find", path));
        let runtime = environment("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
        Ok(Self {
            dir,
            slots: 0..=plan::LAST_SLOT,
            consul: absolute(tools::CONSUL.find(tools_root, environment)?)?,
            envoy: absolute(tools::ENVOY.find(tools_root, environment)?)?,
            causeway,
            servers: 1,
            links: false,
            clocks: false,
            start_services: true,
            has_acls: false,
            envoy_concurrency: 1,
            socket_root: runtime.map_or_else(std::env::temp_dir, PathBuf::from),
            step_deadline: STEP_DEADLINE,
        })
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            dir: "/labs/one".into(),
            slots: 0..=plan::LAST_SLOT,
            consul: "/opt/consul".into(),
            envoy: "/opt/envoy".into(),
            causeway: "/opt/causeway".into(),
            servers: 1,
            links: false,
            clocks: false,
            start_services: true,
            has_acls: false,
            envoy_concurrency: 1,
            socket_root: "/run/user/1000".into(),
            step_deadline: STEP_DEADLINE,
        }
    }
}

/// A lab that is up. Dropping it kills its processes; [`Lab::stop`] stops them in order.
#[derive(Debug)]
pub struct Lab {
    runner: Runner,
    links: BTreeMap<Datacenter, Link>,
    deaths: mpsc::Receiver<Death>,
    _claim: slot::Claim,
    _lock: File,
}

impl Lab {
    /// Brings a lab up and waits until all of it works: the servers federated through the gateways, every check
    /// passing, the dashboard counting. `progress` is given one line for each step. Dropping the future kills what
    /// was started.
    ///
    /// Errors: see [`LabError`]; nothing is left running.
    pub async fn start(options: LabOptions, progress: impl FnMut(&str)) -> Result<Self, LabError> {
        let progress = Progress::new(progress);
        let lock = state::lock(&options.dir)?;
        let left = down::clean_leftovers(&options.dir).await?;
        if left > 0 {
            progress.done("lab", &format!("{left} processes of a killed lab ended"));
        }
        let claim = slot::claim(&options)?;
        let acls = claim.plan.has_acls.then(|| Acls::new(&claim.plan)).transpose()?;
        write_files(&claim.plan, acls.as_ref())?;
        let links = start_links(&claim.plan).await?;
        let (sender, mut deaths) = mpsc::channel(DEATHS);
        let runner = Runner::new(claim.plan.clone(), sender)?;
        let deadline = options.step_deadline;
        let up = Up { runner: &runner, progress: &progress, deadline, acls: acls.as_ref() };
        let came_up = tokio::select! {
            // The step that waits for a process tells more of its death, so it goes first.
            biased;
            came_up = Box::pin(up.run()) => came_up,
            Some(death) = deaths.recv() => Err(died_early(&claim.plan, death)),
        };
        if let Err(error) = came_up.and_then(|()| runner.set_state(LabState::Ready)) {
            // The reason it did not come up is the one to tell; what did not stop is killed by the drop.
            let _ = runner.stop().await;
            return Err(error);
        }
        Ok(Self { runner, links, deaths, _claim: claim, _lock: lock })
    }

    /// What the lab looks like.
    pub fn plan(&self) -> &Plan {
        self.runner.plan()
    }

    /// The node of that name (`primary-gateway`).
    ///
    /// Errors: there is none.
    pub fn node(&self, name: &str) -> Result<&Node, LabError> {
        let nodes = &self.plan().nodes;
        nodes.iter().find(|node| node.name == name).ok_or_else(|| LabError::Unknown {
            what: name.into(),
            known: nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The way into a datacenter: all that the other one sends to its gateway, and the answers.
    ///
    /// Errors: the lab came up without links, or has no such datacenter.
    pub fn link(&self, datacenter: &str) -> Result<&Link, LabError> {
        self.links.get(&Datacenter::from(datacenter)).ok_or_else(|| LabError::Unknown {
            what: format!("link into {datacenter}"),
            known: match self.links.keys().map(Datacenter::as_str).collect::<Vec<_>>() {
                none if none.is_empty() => "no links, which it must be started with".into(),
                known => known.join(", "),
            },
        })
    }

    /// Steps the wall clock of a node's agent so far from the true one, in seconds; 0 sets it right. The lab must be
    /// started with `clocks`, and the agent be a build with debug assertions.
    ///
    /// Errors: there is no such node, the lab came up without clocks, or the file cannot be written.
    pub fn step_clock(&self, node: &str, seconds: i64) -> Result<(), LabError> {
        let file = self.node(node)?.clock();
        let agent = self.node(node)?.process("causeway");
        if !agent.is_some_and(|agent| agent.env.contains_key(STEP_FILE)) {
            let known = "no clocks, which it must be started with".into();
            return Err(LabError::Unknown { what: format!("clock of {node}"), known });
        }
        std::fs::write(&file, seconds.to_string()).map_err(error::file("write", file))
    }

    /// The server that leads a datacenter, as its servers say. One that has just lost its leader may name it for some
    /// seconds more: ask again until it is another one.
    ///
    /// Errors: no server answers, or none knows a leader.
    pub async fn leader(&self, datacenter: &str) -> Result<&Node, LabError> {
        let servers: Vec<&Node> = self.plan().servers(datacenter).collect();
        up::leader_of(&servers)
            .await
            .map_err(|last| LabError::NoLeader { datacenter: datacenter.into(), last })
    }

    /// The file with the token that may do everything; none without ACLs.
    pub fn management_token(&self) -> Option<PathBuf> {
        self.plan().has_acls.then(|| acl::token_file(&self.plan().dir, acl::MANAGEMENT))
    }

    /// The dashboard's address, `http://…`; none without services.
    pub fn dashboard(&self) -> Option<&str> {
        self.plan().dashboard.as_deref()
    }

    /// The pid of a process that was started.
    ///
    /// Errors: it never was.
    pub fn pid(&self, node: &str, process: &str) -> Result<u32, LabError> {
        self.runner.pid(node, process)
    }

    /// Kills a process (SIGKILL) and waits for its end. It stays dead until [`Lab::restart`].
    ///
    /// Errors: no such process.
    pub async fn kill(&self, node: &str, process: &str) -> Result<(), LabError> {
        self.runner.end(node, process, Signal::SIGKILL).await
    }

    /// Stops a process in order (SIGTERM, then SIGKILL) and waits for its end.
    ///
    /// Errors: no such process.
    pub async fn terminate(&self, node: &str, process: &str) -> Result<(), LabError> {
        self.runner.end(node, process, Signal::SIGTERM).await
    }

    /// Sends any signal (SIGSTOP, SIGCONT, SIGHUP) to a process, and waits for nothing.
    ///
    /// Errors: no such process.
    pub fn signal(&self, node: &str, process: &str, signal: Signal) -> Result<(), LabError> {
        self.runner.signal(node, process, signal)
    }

    /// Starts a process again as it was started before, ending it first if it runs. Its log goes on.
    ///
    /// Errors: no such process, or it does not start.
    pub async fn restart(&self, node: &str, process: &str) -> Result<(), LabError> {
        self.runner.end(node, process, Signal::SIGTERM).await?;
        self.runner.start(node, process)
    }

    /// Starts a further process on a node; it stops with the lab.
    ///
    /// Errors: no such node, or it does not start.
    pub fn start_process(&self, node: &str, plan: &ProcessPlan) -> Result<(), LabError> {
        self.node(node)?;
        self.runner.start_plan(node, plan)
    }

    /// The next process that ended without being asked to. Cancel-safe.
    pub async fn next_death(&mut self) -> Option<Death> {
        self.deaths.recv().await
    }

    /// Stops everything, what started last first.
    ///
    /// Errors: something does not end even by SIGKILL.
    pub async fn stop(self) -> Result<(), LabError> {
        self.runner.stop().await
    }
}

/// One for each gateway, if the plan has links.
async fn start_links(plan: &Plan) -> Result<BTreeMap<Datacenter, Link>, LabError> {
    let mut links = BTreeMap::new();
    for LinkPlan { datacenter, listen, gateway } in plan.links() {
        links.insert(datacenter, Link::start(listen, gateway).await?);
    }
    Ok(links)
}

/// A process that no step was waiting for ended before the lab was up.
fn died_early(plan: &Plan, death: Death) -> LabError {
    let Death { node, process, status } = death;
    let planned = plan.node(&node).and_then(|node| node.process(&process));
    let log = planned.map(|process| process.log.clone()).unwrap_or_default();
    LabError::Step(Box::new(StepFailed {
        node,
        awaited: "the lab to come up".into(),
        ending: format!("{process} ended ({status})"),
        last: String::new(),
        tail: wait::tail(&log),
        log,
    }))
}

/// Empties the nodes' folders and writes certificates, keys and configuration.
fn write_files(plan: &Plan, acls: Option<&Acls>) -> Result<(), LabError> {
    let (tls_dir, tokens_dir) = (plan.dir.join("tls"), plan.dir.join("tokens"));
    for dir in plan.nodes.iter().map(|node| &node.dir).chain([&tls_dir, &tokens_dir]) {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error::file("empty", dir)(error));
            }
            _ => create_private_dir(dir)?,
        }
    }
    if let Some(dir) = &plan.socket_dir {
        create_socket_dir(dir)?;
    }
    write_certificates(plan, &tls_dir)?;
    let gossip_key = gossip::key().map_err(|error| LabError::Certificates(error.to_string()))?;
    let tokens = acls.map(Acls::tokens);
    for config in plan.config_files(gossip_key.expose(), tokens) {
        write_private(&config.path, config.text.as_bytes())?;
    }
    for (name, token) in tokens.into_iter().flat_map(Tokens::iter) {
        write_private(&acl::token_file(&plan.dir, name), token.expose().as_bytes())?;
    }
    Ok(())
}

/// One CA for both datacenters, whose key is not kept, and a certificate for each server and one for the clients of
/// each datacenter.
fn write_certificates(plan: &Plan, tls_dir: &Path) -> Result<(), LabError> {
    let failed = |error: AuthorityError| LabError::Certificates(error.to_string());
    let now = authority::moment(lifecycle::wall_clock());
    let request = NewAuthority { lifetime: CERTIFICATE_LIFETIME, ..NewAuthority::default() };
    let (ca, made) = Authority::create(&request, now).map_err(failed)?;
    write_private(&tls_dir.join("ca.pem"), made.pem().as_bytes())?;
    let nodes: BTreeMap<String, &Node> = plan.nodes.iter().map(|node| (node.certificate(), node)).collect();
    for (name, node) in nodes {
        let kind = if node.role == Role::Server { "server" } else { "client" };
        let profile = profile::all().iter().find(|profile| profile.name == kind).expect("a shipped profile");
        let datacenter = node.datacenter.to_string();
        let place = Place { datacenter, domain: "consul".into(), node: Some(node.name.clone()) };
        let names = profile.issued(&place);
        let issued = ca.issue(profile, &names, CERTIFICATE_LIFETIME, now).map_err(failed)?;
        write_private(&tls_dir.join(format!("{name}.pem")), issued.pem().as_bytes())?;
        write_private(&tls_dir.join(format!("{name}.key")), issued.key.expose().as_bytes())?;
    }
    Ok(())
}

/// Its name can be foretold and its parent may be open to all: it must be ours, and a folder.
fn create_socket_dir(dir: &Path) -> Result<(), LabError> {
    create_private_dir(dir)?;
    let meta = fs::symlink_metadata(dir).map_err(error::file("look at", dir))?;
    if meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    let reason = std::io::Error::other("it belongs to another user or is open to others; remove it");
    Err(error::file("use", dir)(reason))
}
