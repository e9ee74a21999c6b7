//! Owns the order in which a lab comes up, and what counts as working. It must not know how processes are kept.
//!
//! The primary's server and gateway come first: a secondary server that finds no gateway on its first attempt
//! waits for its next. All else runs beside that as soon as what it needs is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use crate::{
    fetch,
    lab::{
        LabError,
        acl::{self, Acls},
        plan::{Node, PRIMARY, Role, SECONDARY, Stage, port},
        runner::Runner,
        wait::{self, Progress},
    },
    model::secret::SecretText,
};

/// One question. Consul answers in milliseconds; one that hangs is asked again.
const ASK: Duration = Duration::from_secs(3);

/// One bring-up.
pub(crate) struct Up<'a, F> {
    pub(crate) runner: &'a Runner,
    pub(crate) progress: &'a Progress<F>,
    pub(crate) deadline: Duration,
    pub(crate) acls: Option<&'a Acls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Roots {
    #[serde(default)]
    trust_domain: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    status: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    node: String,
    name: String,
    status: String,
    service_name: String,
}

#[derive(Deserialize)]
struct DashboardState {
    count: Option<u64>,
    link: DashboardLink,
}

#[derive(Deserialize)]
struct DashboardLink {
    up: bool,
    error: Option<String>,
}

/// A member of Consul's gossip pool that is alive.
const MEMBER_ALIVE: u8 = 1;

impl<F: FnMut(&str)> Up<'_, F> {
    /// Starts everything and waits until all of it works.
    pub(crate) async fn run(&self) -> Result<(), LabError> {
        self.start_server(PRIMARY)?;
        self.server(PRIMARY).await?;
        self.start_clients(PRIMARY)?;
        tokio::try_join!(self.services_node(PRIMARY), self.gateway_then_secondary())?;
        tokio::try_join!(
            self.federation(PRIMARY, SECONDARY),
            self.federation(SECONDARY, PRIMARY),
            self.checks(PRIMARY),
            self.checks(SECONDARY),
            self.dashboard(),
        )?;
        Ok(())
    }

    async fn gateway_then_secondary(&self) -> Result<(), LabError> {
        let gateway = self.node(PRIMARY, Role::Gateway);
        if let Some(gateway) = gateway {
            self.envoy_node(gateway).await?;
            self.gateway_listens(gateway).await?;
        }
        self.start_server(SECONDARY)?;
        self.server(SECONDARY).await?;
        self.start_clients(SECONDARY)?;
        let gateway = async {
            match self.node(SECONDARY, Role::Gateway) {
                Some(gateway) => {
                    self.envoy_node(gateway).await?;
                    self.gateway_listens(gateway).await
                }
                None => Ok(()),
            }
        };
        tokio::try_join!(gateway, self.services_node(SECONDARY)).map(|_| ())
    }

    fn node(&self, datacenter: &str, role: Role) -> Option<&Node> {
        let nodes = &self.runner.plan().nodes;
        nodes.iter().find(|node| node.datacenter.as_str() == datacenter && node.role == role)
    }

    /// What needs nothing to be there: Consul's agents find each other, the demo services wait for no one. With ACLs a
    /// client waits for its token: one that Consul does not know makes it pause for longer than all of the bring-up.
    fn start_server(&self, datacenter: &str) -> Result<(), LabError> {
        let early: &[Stage] = match self.acls {
            None => &[Stage::Server, Stage::Client, Stage::Service],
            Some(_) => &[Stage::Server, Stage::Service],
        };
        self.start_stages(datacenter, early)
    }

    fn start_clients(&self, datacenter: &str) -> Result<(), LabError> {
        if self.acls.is_some() { self.start_stages(datacenter, &[Stage::Client]) } else { Ok(()) }
    }

    fn start_stages(&self, datacenter: &str, stages: &[Stage]) -> Result<(), LabError> {
        let nodes = self.runner.plan().nodes.iter().filter(|node| node.datacenter.as_str() == datacenter);
        for (node, process) in nodes.flat_map(|node| node.processes.iter().map(move |it| (node, it))) {
            if stages.contains(&process.stage) {
                self.runner.start(&node.name, &process.name)?;
            }
        }
        Ok(())
    }

    /// A question to a node's Consul, with all rights where there are ACLs.
    async fn consul<T: DeserializeOwned>(&self, node: &Node, path: &str) -> Result<T, String> {
        let token = self.acls.and_then(Acls::management).map(SecretText::expose);
        let headers: Vec<_> = token.into_iter().map(|token| ("x-consul-token", token)).collect();
        fetch::get_json_with(&format!("{}{path}", node.consul_http), &headers, ASK).await
    }

    async fn until<T, Fut>(
        &self,
        node: &Node,
        process: &str,
        awaited: &str,
        probe: impl FnMut() -> Fut,
    ) -> Result<T, LabError>
    where
        Fut: Future<Output = Result<T, String>>,
    {
        let answer = wait::until(self.runner, (&node.name, process), awaited, self.deadline, probe).await?;
        self.progress.done(&node.name, awaited);
        Ok(answer)
    }

    async fn server(&self, datacenter: &str) -> Result<(), LabError> {
        let Some(node) = self.node(datacenter, Role::Server) else { return Ok(()) };
        self.until(node, "consul", "Consul leader elected", || leader(node)).await?;
        if datacenter == PRIMARY {
            // The secondary's CA is signed by the primary's, once the federation stands.
            self.until(node, "consul", "certificate authority ready", || trust_domain(node)).await?;
        }
        match self.acls {
            Some(acls) => self.tokens(acls, node).await,
            None => Ok(()),
        }
    }

    /// The primary's server is told all tokens; the secondary's learns them from it.
    async fn tokens(&self, acls: &Acls, server: &Node) -> Result<(), LabError> {
        if server.datacenter.as_str() == PRIMARY {
            let dir = &self.runner.plan().dir;
            return self.until(server, "consul", "ACL tokens made", || acls.set_up(dir, server)).await;
        }
        let nodes = self.runner.plan().nodes.iter();
        let nodes: Vec<&Node> = nodes.filter(|node| node.datacenter == server.datacenter).collect();
        let probe = || acl::is_replicated(server, acls.tokens(), &nodes);
        self.until(server, "consul", "ACL tokens replicated", probe).await
    }

    async fn services_node(&self, datacenter: &str) -> Result<(), LabError> {
        match self.node(datacenter, Role::Services) {
            Some(node) => self.envoy_node(node).await,
            None => Ok(()),
        }
    }

    /// Consul's client, the Causeway agent, then Envoy.
    async fn envoy_node(&self, node: &Node) -> Result<(), LabError> {
        self.until(node, "consul", "Consul client joined", || self.joined(node)).await?;
        self.runner.start(&node.name, "causeway")?;
        let http = node.causeway_http.clone().unwrap_or_default();
        self.until(node, "causeway", "Causeway agent ready", || asks(format!("{http}/readyz"))).await?;
        self.runner.start(&node.name, "envoy")?;
        let admin = node.envoy_admin.clone().unwrap_or_default();
        self.until(node, "envoy", "Envoy configured", || asks(format!("{admin}/ready"))).await
    }

    async fn gateway_listens(&self, node: &Node) -> Result<(), LabError> {
        // Not through its link, which accepts by itself.
        let wan = node.wan_listen.unwrap_or(node.address);
        self.until(node, "envoy", "mesh gateway accepts connections", || async move {
            let connected = tokio::time::timeout(ASK, TcpStream::connect((wan, port::MESH_GATEWAY))).await;
            let reason = |why: &dyn std::fmt::Display| format!("{wan}:{}: {why}", port::MESH_GATEWAY);
            connected.map_err(|_| reason(&"no answer"))?.map(drop).map_err(|error| reason(&error))
        })
        .await
    }

    /// The servers see each other alive, and one's catalog is read from the other.
    async fn federation(&self, here: &str, there: &str) -> Result<(), LabError> {
        let Some(node) = self.node(here, Role::Server) else { return Ok(()) };
        let plan = self.runner.plan();
        let servers = [here, there].into_iter().flat_map(|datacenter| plan.servers(datacenter));
        let names: Vec<String> = servers.map(|node| format!("{}.{}", node.name, node.datacenter)).collect();
        self.until(node, "consul", "all servers alive in the WAN pool", || self.wan_alive(node, &names))
            .await?;
        let nodes = self.runner.plan().nodes.iter().filter(|node| node.datacenter.as_str() == there);
        let expected: BTreeSet<String> = nodes.map(|node| node.name.clone()).collect();
        let what = format!("catalog of {there} answers");
        self.until(node, "consul", &what, || self.catalog(node, there, &expected)).await
    }

    /// Every check in the datacenter passes, and none of the checked services is missing.
    async fn checks(&self, datacenter: &str) -> Result<(), LabError> {
        let Some(node) = self.node(datacenter, Role::Server) else { return Ok(()) };
        let mut expected = BTreeSet::from(["mesh-gateway".to_owned()]);
        if self.node(datacenter, Role::Services).is_some() {
            let service = if datacenter == PRIMARY { "dashboard" } else { "counting" };
            expected.extend([service.to_owned(), format!("{service}-sidecar-proxy")]);
        }
        self.until(node, "consul", "all checks pass", || self.passing(node, &expected)).await
    }

    async fn dashboard(&self) -> Result<(), LabError> {
        let (Some(url), Some(node)) =
            (self.runner.plan().dashboard.clone(), self.node(PRIMARY, Role::Services))
        else {
            return Ok(());
        };
        self.until(node, "dashboard", "dashboard counts in the other datacenter", || counts(url.clone()))
            .await
    }

    async fn joined(&self, node: &Node) -> Result<(), String> {
        leader(node).await?;
        let path = format!("/v1/catalog/node/{}", node.name);
        let entry: Option<serde_json::Value> = self.consul(node, &path).await?;
        entry.map(drop).ok_or_else(|| "not in the catalog yet".to_owned())?;
        match self.acls {
            // Consul 1.8 begins with the ACLs of long ago, until it has seen that its servers know the present ones.
            Some(_) => self.consul::<serde_json::Value>(node, "/v1/agent/self").await.map(drop),
            None => Ok(()),
        }
    }

    async fn wan_alive(&self, node: &Node, names: &[String]) -> Result<(), String> {
        let path = "/v1/agent/members?wan=1";
        let members: Vec<Member> = self.consul(node, path).await?;
        let members: BTreeMap<_, _> =
            members.into_iter().map(|member| (member.name, member.status)).collect();
        let missing = names.iter().find(|name| members.get(*name) != Some(&MEMBER_ALIVE));
        missing.map_or(Ok(()), |name| Err(format!("{name} is not alive in the WAN pool: {members:?}")))
    }

    async fn catalog(
        &self,
        node: &Node,
        datacenter: &str,
        expected: &BTreeSet<String>,
    ) -> Result<(), String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            node: String,
        }
        let path = format!("/v1/catalog/nodes?dc={datacenter}");
        let entries: Vec<Entry> = self.consul(node, &path).await?;
        let found: BTreeSet<String> = entries.into_iter().map(|entry| entry.node).collect();
        let missing = expected.difference(&found).next();
        missing.map_or(Ok(()), |name| Err(format!("{name} is not in the catalog of {datacenter}")))
    }

    async fn passing(&self, node: &Node, expected: &BTreeSet<String>) -> Result<(), String> {
        let path = "/v1/health/state/any";
        let checks: Vec<Check> = self.consul(node, path).await?;
        if let Some(bad) = checks.iter().find(|check| check.status != "passing") {
            return Err(format!("{}: check \"{}\" is {}", bad.node, bad.name, bad.status));
        }
        let checked: BTreeSet<String> = checks.into_iter().map(|check| check.service_name).collect();
        let missing = expected.difference(&checked).next();
        missing.map_or(Ok(()), |name| Err(format!("{name} has no check yet")))
    }
}

async fn asks(url: String) -> Result<(), String> {
    let answer = fetch::get(&url, ASK).await?;
    if answer.status.is_success() { Ok(()) } else { Err(format!("{url}: {}", answer.status)) }
}

/// The leader's RPC address, `address:port`.
async fn leader(node: &Node) -> Result<String, String> {
    let leader: String = fetch::get_json(&format!("{}/v1/status/leader", node.consul_http), ASK).await?;
    if leader.is_empty() { Err("no leader yet".into()) } else { Ok(leader) }
}

/// Which of a datacenter's servers leads it, by the first that knows.
pub(crate) async fn leader_of<'a>(servers: &[&'a Node]) -> Result<&'a Node, String> {
    let mut last = "it has no servers".to_owned();
    for asked in servers {
        match leader(asked).await {
            Ok(address) => {
                let leads = |node: &&&Node| address == format!("{}:{}", node.address, port::SERVER_RPC);
                match servers.iter().find(leads) {
                    Some(leader) => return Ok(leader),
                    None => last = format!("{} names {address}, which is none of them", asked.name),
                }
            }
            Err(reason) => last = format!("{}: {reason}", asked.name),
        }
    }
    Err(last)
}

async fn trust_domain(node: &Node) -> Result<(), String> {
    let url = format!("{}/v1/agent/connect/ca/roots", node.consul_http);
    // Answered with 200 and an empty trust domain before the CA is there.
    let roots: Roots = fetch::get_json(&url, ASK).await?;
    if roots.trust_domain.is_empty() { Err("no trust domain yet".into()) } else { Ok(()) }
}

async fn counts(url: String) -> Result<(), String> {
    let state: DashboardState = fetch::get_json(&format!("{url}/api/state"), ASK).await?;
    match (state.link.up, state.count) {
        (true, Some(count)) if count > 0 => Ok(()),
        _ => Err(state.link.error.unwrap_or_else(|| "the dashboard has no count yet".into())),
    }
}
