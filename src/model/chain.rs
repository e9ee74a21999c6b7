//! Discovery chains: how Consul says a request to a service finds its targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{
    filter::WrittenFilter,
    name::{Datacenter, ServiceName},
};

/// What is asked of Consul's compiler. The overrides of a proxy are part of the question, because the answer to a
/// plain GET is wrong for a proxy with a gateway mode or protocol of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainRequest {
    /// The service whose chain is wanted.
    pub service: ServiceName,
    /// The datacenter in which the chain is evaluated (`compile-dc`).
    pub datacenter: Datacenter,
    /// The proxy's and upstream's own gateway mode, if they set one.
    pub gateway_mode: Option<GatewayMode>,
    /// The upstream's own protocol, if it sets one.
    pub protocol: Option<Protocol>,
    /// The upstream's own connect timeout, if it sets one.
    pub connect_timeout_ms: Option<u64>,
}

/// A compiled discovery chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The service.
    pub service: ServiceName,
    /// The datacenter it was evaluated in.
    pub datacenter: Datacenter,
    /// The protocol spoken along it.
    pub protocol: Protocol,
    /// Set by Consul when an override changed something; part of the cluster names then.
    pub customization_hash: Option<String>,
    /// The key of the first node in `nodes`.
    pub start: String,
    /// Its nodes by key.
    pub nodes: BTreeMap<String, ChainNode>,
    /// Its targets by id. Ids are opaque: their form changed in Consul 1.11 and 1.13.
    pub targets: BTreeMap<String, Target>,
}

impl Chain {
    /// The resolver and target of a chain that is only one resolver: no router, no splitter.
    pub fn single(&self) -> Option<(&Resolver, &Target)> {
        match self.nodes.get(&self.start)? {
            ChainNode::Resolver(resolver) => Some((resolver, self.targets.get(&resolver.target)?)),
            ChainNode::Router | ChainNode::Splitter => None,
        }
    }
}

/// A node of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainNode {
    /// Chooses among routes by path, header or method.
    Router,
    /// Splits by weight.
    Splitter,
    /// Ends at a target.
    Resolver(Resolver),
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolver {
    /// Id of the target.
    pub target: String,
    /// How long a connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Consul made this resolver up because no `service-resolver` entry exists.
    pub is_default: bool,
    /// How long a whole response may take, in milliseconds; `None` leaves that to the protocol.
    pub request_timeout_ms: Option<u64>,
    /// How requests spread over the endpoints of a target; `None` is Envoy's default.
    pub balance: Option<Balance>,
    /// Ids of the targets that take over, in order.
    pub failover: Vec<String>,
}

/// How requests spread over endpoints, as far as a cluster says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Balance {
    /// One after the other, by weight.
    RoundRobin,
    /// By chance.
    Random,
    /// The one with the fewest requests under way, of so many taken by chance.
    LeastRequest {
        /// At least 2.
        choices: Option<u32>,
    },
    /// By a hash of the request, on a ring.
    RingHash {
        /// Entries of the ring, at least.
        minimum: Option<u64>,
        /// Entries of the ring, at most.
        maximum: Option<u64>,
    },
    /// By a hash of the request, through a table.
    Maglev,
}

/// What a resolver resolves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The subset of its instances, if any.
    pub subset: Option<Subset>,
    /// The datacenter.
    pub datacenter: Datacenter,
    /// Consul's name for it; the cluster's name unless the chain is customized.
    pub name: String,
    /// The TLS server name that reaches it.
    pub sni: String,
    /// `service-defaults` gave the SNI: gateways are bypassed.
    pub is_external: bool,
    /// How another datacenter is reached, after Consul's precedence.
    pub gateway_mode: GatewayMode,
}

/// A named subset of a service's instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Its name in the `service-resolver` entry.
    pub name: String,
    /// Which instances belong, in Consul's filter language; empty means all.
    pub filter: WrittenFilter,
    /// Only instances whose checks all pass.
    pub only_passing: bool,
}

/// How a proxy reaches another datacenter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayMode {
    /// It dials the instances' WAN addresses itself.
    #[default]
    None,
    /// Through the mesh gateways of its own datacenter.
    Local,
    /// Through the mesh gateways of the target's datacenter.
    Remote,
}

/// What is spoken with a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Protocol {
    /// The protocol of that name in Consul's configuration.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "http" => Some(Self::Http),
            "http2" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            _ => None,
        }
    }

    /// Its name in Consul's configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// Whether requests can be told apart.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}
