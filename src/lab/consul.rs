//! Owns the text of Consul's configuration files for the lab's servers and clients. Pure. It must not know how
//! Consul is started nor what reads its catalog.

use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

use crate::lab::{
    acl::{self, Holder, Tokens},
    plan::{Node, PRIMARY, Role, SECONDARY, port},
};

/// Which service a client registers from its own configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientServices {
    /// None: a server, or a gateway, which `causeway envoy --register` registers.
    None,
    /// The dashboard and its sidecar.
    Dashboard,
    /// The counter and its sidecar.
    Counting,
}

/// Everything one agent's configuration is made of.
#[derive(Debug)]
pub struct ConsulConfig<'a> {
    /// The node it is for.
    pub node: &'a Node,
    /// The servers of its datacenter.
    pub servers: Vec<Ipv4Addr>,
    /// The primary gateway's WAN address, where a secondary server makes first contact. Its own gateway will not
    /// do: that is configured from this very server, and would wait for the federation it is to carry.
    pub primary_gateway: Ipv4Addr,
    /// Where the certificates are.
    pub tls_dir: &'a Path,
    /// The gossip key, base64.
    pub gossip_key: &'a str,
    /// What it registers.
    pub services: ClientServices,
    /// With which tokens, where there are ACLs.
    pub tokens: Option<&'a Tokens>,
}

impl ConsulConfig<'_> {
    /// The configuration file's text. It holds the gossip key and the agent's tokens.
    pub fn render(&self) -> String {
        let mut config = self.common();
        let own = if self.node.role == Role::Server { self.server() } else { self.client() };
        if let (Value::Object(all), Value::Object(own)) = (&mut config, own) {
            all.extend(own);
            all.extend(self.tokens.map(|tokens| ("acl".to_owned(), tokens.consul_section(self.node))));
        }
        format!("{config:#}\n")
    }

    fn common(&self) -> Value {
        let address = self.node.address.to_string();
        let datacenter = self.node.datacenter.as_str();
        let certificate = self.node.certificate();
        json!({
            "datacenter": datacenter,
            "primary_datacenter": PRIMARY,
            "node_name": self.node.name,
            "data_dir": self.node.dir.join("consul-data"),
            "bind_addr": address,
            "advertise_addr": address,
            "client_addr": address,
            "disable_update_check": true,
            "enable_central_service_config": true,
            "encrypt": self.gossip_key,
            "log_level": "INFO",
            "ca_file": self.tls_dir.join("ca.pem"),
            "cert_file": self.tls_dir.join(format!("{certificate}.pem")),
            "key_file": self.tls_dir.join(format!("{certificate}.key")),
            "verify_incoming": true,
            "verify_outgoing": true,
            "verify_server_hostname": true,
            "ports": {
                "http": port::CONSUL_HTTP, "https": -1, "grpc": -1, "dns": -1,
                "serf_lan": port::SERF_LAN, "serf_wan": port::SERF_WAN, "server": port::SERVER_RPC,
            },
        })
    }

    fn server(&self) -> Value {
        let mut config = json!({
            "server": true,
            "bootstrap_expect": self.servers.len(),
            "retry_join": self.others(),
            "retry_interval": "1s",
            "performance": { "raft_multiplier": 1 },
            "connect": { "enabled": true, "enable_mesh_gateway_wan_federation": true },
        });
        if self.node.datacenter.as_str() != PRIMARY {
            config["primary_gateways"] = json!([format!("{}:{}", self.primary_gateway, port::MESH_GATEWAY)]);
            config["primary_gateways_interval"] = "2s".into();
            config["retry_interval_wan"] = "2s".into();
        }
        config
    }

    fn client(&self) -> Value {
        let mut config = json!({
            "server": false,
            "leave_on_terminate": true,
            "retry_join": self.others(),
            "retry_interval": "1s",
        });
        let services = self.services();
        if !services.is_empty() {
            config["services"] = services.into();
        }
        config
    }

    /// The servers to join.
    fn others(&self) -> Vec<String> {
        let others = self.servers.iter().filter(|server| **server != self.node.address);
        others.map(Ipv4Addr::to_string).collect()
    }

    fn services(&self) -> Vec<Value> {
        match self.services {
            ClientServices::None => Vec::new(),
            ClientServices::Counting => vec![self.service("counting", port::COUNTING, json!({}))],
            ClientServices::Dashboard => {
                let proxy = json!({ "upstreams": [{
                    "destination_name": "counting",
                    "datacenter": SECONDARY,
                    "local_bind_address": self.node.address.to_string(),
                    "local_bind_port": port::DASHBOARD_UPSTREAM,
                    "mesh_gateway": { "mode": "local" },
                }]});
                vec![self.service("dashboard", port::DASHBOARD, proxy)]
            }
        }
    }

    /// A service and its sidecar. The sidecar's checks are given in full: Consul's own would dial 127.0.0.1. So is
    /// the address at which the sidecar finds the service, for the same reason.
    fn service(&self, name: &str, service_port: u16, mut proxy: Value) -> Value {
        let address = self.node.address.to_string();
        proxy["local_service_address"] = address.clone().into();
        let mut service = json!({
            "id": name,
            "name": name,
            "address": address,
            "port": service_port,
            "checks": [{
                "name": "answers", "http": format!("http://{address}:{service_port}/health"),
                "interval": "1s", "timeout": "1s",
            }],
            "connect": { "sidecar_service": {
                "address": address,
                "port": port::SIDECAR,
                "checks": [
                    {
                        "name": "sidecar listens", "tcp": format!("{address}:{}", port::SIDECAR),
                        "interval": "1s", "timeout": "1s",
                    },
                    { "name": "service answers", "alias_service": name },
                ],
                "proxy": proxy,
            }},
        });
        let token = self.tokens.and_then(|all| all.get(&acl::token_name(&self.node.name, Holder::Service)));
        if let Some(token) = token {
            // A sidecar takes over its service's token.
            service["token"] = token.expose().into();
        }
        service
    }
}
