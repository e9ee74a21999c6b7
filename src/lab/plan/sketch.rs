//! Draws one node of the plan: its addresses, and the processes on it with their arguments. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    lab::{
        LabOptions,
        acl::{self, Holder},
        plan::{
            ClientServices, Node, ProcessPlan, Role, Stage, linked_address, node_address, node_name, port,
            services_of, wan_address,
        },
    },
    lifecycle::clock::STEP_FILE,
};

/// What a node is drawn from.
pub(crate) struct Sketch<'a> {
    pub(crate) options: &'a LabOptions,
    pub(crate) slot: u8,
    pub(crate) datacenter: &'a str,
    pub(crate) role: Role,
    pub(crate) number: u8,
    pub(crate) socket_dir: Option<&'a Path>,
}

impl Sketch<'_> {
    /// The node with its processes.
    pub(crate) fn node(&self) -> Node {
        let name = node_name(self.datacenter, self.role, self.number);
        let address = node_address(self.slot, self.datacenter, self.role, self.number);
        let (beside_envoy, is_gateway) = (self.role != Role::Server, self.role == Role::Gateway);
        let wan_listen = if self.options.links { linked_address } else { wan_address };
        let url = |port: u16| format!("http://{address}:{port}");
        let mut node = Node {
            datacenter: self.datacenter.into(),
            role: self.role,
            address,
            wan_address: is_gateway.then(|| wan_address(self.slot, self.datacenter)),
            wan_listen: is_gateway.then(|| wan_listen(self.slot, self.datacenter)),
            consul_http: url(port::CONSUL_HTTP),
            causeway_http: beside_envoy.then(|| url(port::CAUSEWAY_HTTP)),
            xds: beside_envoy.then(|| format!("unix:{}", self.socket(&name).display())),
            sync: beside_envoy.then(|| format!("{address}:{}", port::SYNC)),
            envoy_admin: beside_envoy.then(|| url(port::ENVOY_ADMIN)),
            dir: self.options.dir.join(&name),
            processes: Vec::new(),
            name,
        };
        node.processes = self.processes(&node);
        node
    }

    fn socket(&self, node: &str) -> PathBuf {
        match self.socket_dir {
            Some(dir) => dir.join(format!("{node}.sock")),
            None => self.options.dir.join(node).join("xds.sock"),
        }
    }

    fn processes(&self, node: &Node) -> Vec<ProcessPlan> {
        let consul = self.process(
            node,
            "consul",
            self.consul_stage(),
            &self.options.consul,
            ["agent".into(), format!("-config-file={}", node.dir.join("consul.json").display())],
        );
        if self.role == Role::Server {
            return vec![consul];
        }
        let mut agent = self.process(
            node,
            "causeway",
            Stage::Agent,
            &self.options.causeway,
            ["agent".into(), "--config".into(), node.dir.join("causeway.toml").display().to_string()],
        );
        if self.options.clocks {
            agent.env.insert(STEP_FILE.into(), node.clock().display().to_string());
        }
        let mut envoy =
            self.process(node, "envoy", Stage::Envoy, &self.options.causeway, self.envoy_args(node));
        envoy.env.insert("CONSUL_HTTP_ADDR".into(), node.consul_http.clone());
        if self.options.has_acls {
            let file = acl::token_file(&self.options.dir, &acl::token_name(&node.name, Holder::Envoy));
            envoy.env.insert("CONSUL_HTTP_TOKEN_FILE".into(), file.display().to_string());
        }
        [Some(consul), Some(agent), self.service(node), Some(envoy)].into_iter().flatten().collect()
    }

    fn consul_stage(&self) -> Stage {
        if self.role == Role::Server { Stage::Server } else { Stage::Client }
    }

    fn process(
        &self,
        node: &Node,
        name: &str,
        stage: Stage,
        program: &Path,
        args: impl IntoIterator<Item = String>,
    ) -> ProcessPlan {
        ProcessPlan {
            name: name.into(),
            stage,
            program: program.to_owned(),
            args: args.into_iter().collect(),
            env: BTreeMap::new(),
            log: node.dir.join(format!("{name}.log")),
        }
    }

    fn service(&self, node: &Node) -> Option<ProcessPlan> {
        let listen = |port: u16| format!("{}:{port}", node.address);
        let (name, args) = match services_of(node) {
            ClientServices::None => return None,
            ClientServices::Counting => {
                ("counting", flags(&[("--listen", &listen(port::COUNTING)), ("--name", &node.name)]))
            }
            ClientServices::Dashboard => {
                let counting = format!("http://{}", listen(port::DASHBOARD_UPSTREAM));
                let admin = format!("http://{}", listen(port::ENVOY_ADMIN));
                let listen = listen(port::DASHBOARD);
                let named = [("--listen", &*listen), ("--counting", &counting), ("--envoy-admin", &admin)];
                ("dashboard", flags(&named))
            }
        };
        let datacenter = flags(&[("--datacenter", node.datacenter.as_str())]);
        let args = ["demo".into(), name.into()].into_iter().chain(args).chain(datacenter);
        Some(self.process(node, name, Stage::Service, &self.options.causeway, args))
    }

    fn envoy_args(&self, node: &Node) -> Vec<String> {
        let lan = format!("{}:{}", node.address, port::MESH_GATEWAY);
        let kind = match services_of(node) {
            ClientServices::Dashboard => flags(&[("--sidecar-for", "dashboard")]),
            ClientServices::Counting => flags(&[("--sidecar-for", "counting")]),
            ClientServices::None => {
                let wan = |address: Option<_>| {
                    format!("{}:{}", address.unwrap_or(node.address), port::MESH_GATEWAY)
                };
                let (bind_lan, bind_wan) = (format!("lan={lan}"), format!("wan={}", wan(node.wan_listen)));
                let wan = wan(node.wan_address);
                let mut args = flags(&[("--gateway", "mesh"), ("--service", "mesh-gateway")]);
                args.extend(["--register".into(), "--expose-servers".into()]);
                args.extend(flags(&[("--address", &lan), ("--wan-address", &wan)]));
                args.extend(flags(&[("--bind-address", &bind_lan), ("--bind-address", &bind_wan)]));
                // A gateway is used once its check passes: the usual 10 s would be most of the bring-up.
                args.extend(flags(&[("--check-interval", "1s")]));
                args
            }
        };
        let admin = format!("{}:{}", node.address, port::ENVOY_ADMIN);
        let (envoy, dir) = (self.options.envoy.display().to_string(), node.dir.display().to_string());
        let common = flags(&[
            ("--xds", node.xds.as_deref().unwrap_or_default()),
            ("--admin-bind", &admin),
            ("--envoy-binary", &envoy),
            ("--bootstrap-dir", &dir),
        ]);
        let concurrency = self.options.envoy_concurrency.to_string();
        let own = ["--".into(), "--concurrency".into(), concurrency, "-l".into(), "warn".into()];
        ["envoy".into()].into_iter().chain(kind).chain(common).chain(own).collect()
    }
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}
