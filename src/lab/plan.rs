//! Owns the lab's shape: which "VMs" there are, at which addresses, and what runs on each with which arguments.
//! Pure: the same options and slot give the same plan. It must not know how processes are started or watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    lab::{
        LabOptions,
        acl::{self, Holder, Tokens},
        consul::ConsulConfig,
    },
    model::name::Datacenter,
};

pub use crate::lab::consul::ClientServices;

mod sketch;

/// The ports of a VM, the same on each.
pub mod port {
    /// Consul's HTTP API.
    pub const CONSUL_HTTP: u16 = 8500;
    /// Consul's gossip inside the datacenter, TCP and UDP.
    pub const SERF_LAN: u16 = 8301;
    /// Consul's gossip between servers of all datacenters.
    pub const SERF_WAN: u16 = 8302;
    /// Consul's server RPC.
    pub const SERVER_RPC: u16 = 8300;
    /// The Causeway agent's HTTP interface.
    pub const CAUSEWAY_HTTP: u16 = 18500;
    /// Where a Causeway agent serves other sync agents.
    pub const SYNC: u16 = 18443;
    /// Envoy's admin interface.
    pub const ENVOY_ADMIN: u16 = 19000;
    /// The mesh gateway, on its LAN and on its WAN address.
    pub const MESH_GATEWAY: u16 = 8443;
    /// A sidecar's public listener.
    pub const SIDECAR: u16 = 21000;
    /// The counting service.
    pub const COUNTING: u16 = 9001;
    /// The dashboard.
    pub const DASHBOARD: u16 = 9002;
    /// Where the dashboard reaches counting: its sidecar's upstream listener.
    pub const DASHBOARD_UPSTREAM: u16 = 5000;
    /// Held by a lab for its whole life: who holds it owns the slot.
    pub const GUARD: u16 = 8499;
}

/// The datacenter whose servers own the CA; the dashboard lives here.
pub const PRIMARY: &str = "primary";
/// The other datacenter; the counting service lives here.
pub const SECONDARY: &str = "secondary";

/// The lab's replicated prefixes and their homes.
pub const PREFIXES: [(&str, &str); 2] = [("config/", PRIMARY), ("locks/", SECONDARY)];

/// Linux allows 108 bytes with the closing zero. Envoy and tonic add nothing, the rest is reserve.
const SOCKET_PATH_BYTES: usize = 100;

/// The last slot whose two datacenters fit under 127.255: bases are odd, 1 to 253.
pub const LAST_SLOT: u8 = 126;

/// What a VM is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A Consul server.
    Server,
    /// A mesh gateway.
    Gateway,
    /// The services and their sidecars.
    Services,
}

impl Role {
    /// As in node names and in `lab status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Services => "services",
        }
    }
}

/// The order in which kinds of processes start; they stop in the reverse order, so that a leaving Consul client
/// still has its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A Consul server.
    Server,
    /// A Consul client agent.
    Client,
    /// A Causeway agent.
    Agent,
    /// A demo service, or what a test adds.
    Service,
    /// An Envoy.
    Envoy,
}

/// One process and how it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Unique on its node: `consul`, `causeway`, `envoy`, `counting`, `dashboard`.
    pub name: String,
    /// When it starts and stops, relative to others.
    pub stage: Stage,
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Added to the environment, which is otherwise the caller's without any `CONSUL_*`.
    pub env: BTreeMap<String, String>,
    /// Where its standard output and error go.
    pub log: PathBuf,
}

/// One "VM": a loopback address of its own, with the ports a VM would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `<datacenter>-<role>`, also the name in Consul.
    pub name: String,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: Ipv4Addr,
    /// A gateway's address towards the other datacenter, as it is registered: with links, that of its link.
    pub wan_address: Option<Ipv4Addr>,
    /// Where a gateway's Envoy itself listens for the other datacenter.
    pub wan_listen: Option<Ipv4Addr>,
    /// Consul's HTTP API, `http://…`.
    pub consul_http: String,
    /// The Causeway agent's HTTP interface, `http://…`.
    pub causeway_http: Option<String>,
    /// Where Causeway serves xDS, `unix:…`.
    pub xds: Option<String>,
    /// Where Causeway serves other sync agents, `address:port`.
    pub sync: Option<String>,
    /// Envoy's admin interface, `http://…`.
    pub envoy_admin: Option<String>,
    /// Its folder: configuration, data, logs.
    pub dir: PathBuf,
    /// What runs on it, in starting order.
    pub processes: Vec<ProcessPlan>,
}

impl Node {
    /// The name of its Consul's certificate, under the lab's `tls`. A server's names the server, and is its own; clients
    /// share one.
    pub fn certificate(&self) -> String {
        match self.role {
            Role::Server => self.name.clone(),
            Role::Gateway | Role::Services => format!("{}-client", self.datacenter),
        }
    }

    /// The file that steps the wall clock of its agent.
    pub(crate) fn clock(&self) -> PathBuf {
        self.dir.join("clock")
    }

    /// The process of that name.
    pub fn process(&self, name: &str) -> Option<&ProcessPlan> {
        self.processes.iter().find(|process| process.name == name)
    }
}

/// A file the lab writes before it starts anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The whole lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which block of loopback addresses: slot k has 127.(1+2k) and 127.(2+2k).
    pub slot: u8,
    /// The lab's folder, absolute.
    pub dir: PathBuf,
    /// The nodes: the primary's server, gateway and services, then the secondary's.
    pub nodes: Vec<Node>,
    /// Whether Consul denies what no token allows.
    pub has_acls: bool,
    /// The dashboard's address, `http://…`; none when the lab runs without services.
    pub dashboard: Option<String>,
    /// A folder for sockets outside the lab's, when the lab's path is too long for a socket's.
    pub socket_dir: Option<PathBuf>,
}

/// The second number of a datacenter's addresses.
fn octet(slot: u8, datacenter: &str) -> u8 {
    1 + 2 * slot.min(LAST_SLOT) + u8::from(datacenter == SECONDARY)
}

/// The address whose guard port claims the slot.
pub fn guard_address(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, octet(slot, PRIMARY), 0, 1)
}

/// `number` counts from 1. Only servers are several.
fn node_address(slot: u8, datacenter: &str, role: Role, number: u8) -> Ipv4Addr {
    let host = match role {
        Role::Server => 9 + number,
        Role::Gateway => 2,
        Role::Services => 20,
    };
    Ipv4Addr::new(127, octet(slot, datacenter), 0, host)
}

/// The first server has the name that it would have alone.
fn node_name(datacenter: &str, role: Role, number: u8) -> String {
    match number {
        1 => format!("{datacenter}-{}", role.as_str()),
        _ => format!("{datacenter}-{}-{number}", role.as_str()),
    }
}

fn wan_address(slot: u8, datacenter: &str) -> Ipv4Addr {
    Ipv4Addr::new(127, octet(slot, datacenter), 255, 1)
}

/// Where a gateway listens that has a link before it.
fn linked_address(slot: u8, datacenter: &str) -> Ipv4Addr {
    Ipv4Addr::new(127, octet(slot, datacenter), 254, 1)
}

/// One way between the datacenters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// The datacenter that it leads to.
    pub datacenter: Datacenter,
    /// Where the other datacenter finds that one's gateway.
    pub listen: SocketAddrV4,
    /// Where the gateway is.
    pub gateway: SocketAddrV4,
}

impl Plan {
    /// The plan of a lab in this slot. `options.dir` is absolute.
    pub fn new(options: &LabOptions, slot: u8) -> Self {
        let socket_dir = socket_dir(options);
        let nodes: Vec<Node> = [PRIMARY, SECONDARY]
            .into_iter()
            .flat_map(|datacenter| roles(options).map(move |(role, number)| (datacenter, role, number)))
            .map(|(datacenter, role, number)| {
                let socket_dir = socket_dir.as_deref();
                sketch::Sketch { options, slot, datacenter, role, number, socket_dir }.node()
            })
            .collect();
        let dashboard = options.start_services.then(|| {
            format!("http://{}:{}", node_address(slot, PRIMARY, Role::Services, 1), port::DASHBOARD)
        });
        Self { slot, dir: options.dir.clone(), nodes, has_acls: options.has_acls, dashboard, socket_dir }
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The servers of a datacenter, in the order of their numbers.
    pub fn servers<'a>(&'a self, datacenter: &str) -> impl Iterator<Item = &'a Node> + use<'a> {
        let datacenter = Datacenter::from(datacenter);
        self.nodes.iter().filter(move |node| node.role == Role::Server && node.datacenter == datacenter)
    }

    /// The ways between the datacenters that can be cut: one for each gateway, or none.
    pub fn links(&self) -> Vec<LinkPlan> {
        let of_node = |node: &Node| {
            let (wan, listen) = (node.wan_address?, node.wan_listen?);
            let at = |address| SocketAddrV4::new(address, port::MESH_GATEWAY);
            let datacenter = node.datacenter.clone();
            (wan != listen).then(|| LinkPlan { datacenter, listen: at(wan), gateway: at(listen) })
        };
        self.nodes.iter().filter_map(of_node).collect()
    }

    /// Every configuration file, with the gossip key (base64) that both datacenters share, and the tokens where there
    /// are ACLs.
    pub fn config_files(&self, gossip_key: &str, tokens: Option<&Tokens>) -> Vec<ConfigFile> {
        self.nodes.iter().flat_map(|node| self.node_files(node, gossip_key, tokens)).collect()
    }

    fn node_files(&self, node: &Node, gossip_key: &str, tokens: Option<&Tokens>) -> Vec<ConfigFile> {
        let consul = ConfigFile {
            path: node.dir.join("consul.json"),
            text: ConsulConfig {
                node,
                servers: self.servers(node.datacenter.as_str()).map(|server| server.address).collect(),
                primary_gateway: wan_address(self.slot, PRIMARY),
                tls_dir: &self.dir.join("tls"),
                gossip_key,
                services: services_of(node),
                tokens,
            }
            .render(),
        };
        let token_file =
            tokens.map(|_| acl::token_file(&self.dir, &acl::token_name(&node.name, Holder::Causeway)));
        let agent = node.xds.as_deref().and_then(|xds| xds.strip_prefix("unix:")).map(|socket| ConfigFile {
            path: node.dir.join("causeway.toml"),
            text: agent_config(node, socket, token_file.as_deref()),
        });
        [Some(consul), agent].into_iter().flatten().collect()
    }

    /// Every address and port the lab will listen on, to find out beforehand which are taken.
    pub fn listeners(&self) -> Vec<(Ipv4Addr, u16)> {
        self.nodes.iter().flat_map(node_listeners).collect()
    }
}

/// The nodes of a datacenter: each role, and its number.
fn roles(options: &LabOptions) -> impl Iterator<Item = (Role, u8)> + use<> {
    let servers = (1..=options.servers).map(|number| (Role::Server, number));
    let services = options.start_services.then_some((Role::Services, 1));
    servers.chain([(Role::Gateway, 1)]).chain(services)
}

pub(crate) fn services_of(node: &Node) -> ClientServices {
    match (node.role, node.datacenter.as_str()) {
        (Role::Services, PRIMARY) => ClientServices::Dashboard,
        (Role::Services, _) => ClientServices::Counting,
        _ => ClientServices::None,
    }
}

fn node_listeners(node: &Node) -> Vec<(Ipv4Addr, u16)> {
    let role: &[u16] = match node.role {
        Role::Server => &[port::SERVER_RPC, port::SERF_WAN],
        Role::Gateway => &[port::CAUSEWAY_HTTP, port::SYNC, port::ENVOY_ADMIN, port::MESH_GATEWAY],
        Role::Services if node.datacenter.as_str() == PRIMARY => &[
            port::CAUSEWAY_HTTP,
            port::SYNC,
            port::ENVOY_ADMIN,
            port::SIDECAR,
            port::DASHBOARD,
            port::DASHBOARD_UPSTREAM,
        ],
        Role::Services => {
            &[port::CAUSEWAY_HTTP, port::SYNC, port::ENVOY_ADMIN, port::SIDECAR, port::COUNTING]
        }
    };
    let own = [port::CONSUL_HTTP, port::SERF_LAN].iter().chain(role).map(|port| (node.address, *port));
    let wan: BTreeSet<Ipv4Addr> = node.wan_address.into_iter().chain(node.wan_listen).collect();
    own.chain(wan.into_iter().map(|wan| (wan, port::MESH_GATEWAY))).collect()
}

/// A folder for the sockets under the runtime folder, if the lab's own path is too long.
fn socket_dir(options: &LabOptions) -> Option<PathBuf> {
    let longest = options.dir.join(format!("{SECONDARY}-{}", Role::Services.as_str())).join("xds.sock");
    let path = options.dir.as_os_str().as_encoded_bytes();
    (longest.as_os_str().len() > SOCKET_PATH_BYTES).then(|| {
        options.socket_root.join(format!("causeway-lab-{}", &blake3::hash(path).to_hex().as_str()[..12]))
    })
}

fn agent_config(node: &Node, socket: &str, token_file: Option<&Path>) -> String {
    // Quoting as JSON does is valid TOML for every path and address.
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let token_file = token_file.map(|file| format!("token_file = {}\n", quote(&file.display().to_string())));
    let base = format!(
        "[consul]\naddress = {}\n{}\n[http]\nlisten = {}\n\n[xds]\nsocket = {}\nsocket_group = \"\"\n\n[state]\ndir = {}\n\n[log]\nlevel = \"info\"\nformat = \"text\"\n",
        quote(&node.consul_http),
        token_file.unwrap_or_default(),
        quote(&format!("{}:{}", node.address, port::CAUSEWAY_HTTP)),
        quote(socket),
        quote(&node.dir.join("state").display().to_string()),
    );
    base + &node.sync.as_deref().map(sync_config).unwrap_or_default()
}

/// Sessions live where the locks do.
fn sync_config(listen: &str) -> String {
    let head = format!(
        "\n[sync]\nenabled = true\ndatacenters = [\"{PRIMARY}\", \"{SECONDARY}\"]\nsessions_home = \"{SECONDARY}\"\nlisten = \"{listen}\"\n"
    );
    PREFIXES.iter().fold(head, |text, (prefix, home)| {
        text + &format!("\n[[sync.prefix]]\nprefix = \"{prefix}\"\nhome = \"{home}\"\n")
    })
}

#[cfg(test)]
mod tests;
