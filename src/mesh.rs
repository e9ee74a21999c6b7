//! The heart: which topics a proxy needs, and which resources they make. Pure functions of the catalog.
//!
//! [`build`] reads the catalog through a [`reader::Reader`], which writes down every topic asked for. What was asked
//! is what the proxy needs ([`needs`]), so the two can never drift apart; what was asked and is not known holds back
//! the unit that asked, and nothing else. Knows no sockets, no clocks and none of Consul's JSON.

pub mod built;
pub mod cluster;
pub mod endpoints;
pub mod gateway;
pub mod intention;
pub mod listener;
pub mod name;
pub mod reader;
pub mod sidecar;
pub mod subset;
pub mod world;

use std::collections::BTreeSet;

use crate::{
    mesh::{built::Built, reader::Reader},
    model::{
        agent::DefaultPolicy,
        catalog::{Catalog, Topic},
        instance::ServiceKind,
        name::ProxyId,
        note::Note,
        registration::Registration,
    },
};

/// What the operator decides, whatever the catalog says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Used instead of Consul's default intention policy.
    pub default_policy: Option<DefaultPolicy>,
}

/// The topics that `proxy` needs, given what is known so far. Grows as answers come in; once it adds nothing, all is
/// known that [`build`] can use.
pub fn needs(catalog: &Catalog, proxy: &ProxyId, options: Options) -> BTreeSet<Topic> {
    match build(catalog, proxy, options) {
        Proxy::Unknown { needs } | Proxy::Absent { needs } | Proxy::Unsupported { needs, .. } => needs,
        Proxy::Built(built) => built.needs,
    }
}

/// What can be said of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Whether it exists is not known yet.
    Unknown {
        /// What it needs.
        needs: BTreeSet<Topic>,
    },
    /// The local agent knows no such service.
    Absent {
        /// What it needs.
        needs: BTreeSet<Topic>,
    },
    /// It exists and cannot be served.
    Unsupported {
        /// What it needs.
        needs: BTreeSet<Topic>,
        /// Why not.
        note: Note,
    },
    /// It exists.
    Built(Built),
}

/// Makes the resources of `proxy` from what is known.
pub fn build(catalog: &Catalog, proxy: &ProxyId, options: Options) -> Proxy {
    let mut reader = Reader::new(catalog);
    let agent = reader.agent();
    let registration = reader.registration(proxy);
    let (Some(agent), Some(registration)) = (agent, registration) else {
        return Proxy::Unknown { needs: reader.into_needs() };
    };
    let Some(registration) = registration else {
        return Proxy::Absent { needs: reader.into_needs() };
    };
    let mut built = match registration.kind {
        ServiceKind::ConnectProxy => match &registration.destination {
            Some(destination) => sidecar::build(catalog, agent, registration, destination, options),
            None => {
                return unsupported(
                    reader,
                    registration,
                    "names no destination service",
                    "set Proxy.DestinationServiceName",
                );
            }
        },
        ServiceKind::MeshGateway => gateway::build(catalog, agent, registration),
        kind => {
            let problem = format!("is of kind {kind}, which cannot be served");
            return unsupported(
                reader,
                registration,
                &problem,
                "register a connect-proxy or a mesh-gateway under this id",
            );
        }
    };
    built.needs.extend(reader.into_needs());
    Proxy::Built(built)
}

fn unsupported(reader: Reader<'_>, registration: &Registration, problem: &str, remedy: &str) -> Proxy {
    let note = Note::new(format!("proxy {}", registration.id), problem, remedy);
    Proxy::Unsupported { needs: reader.into_needs(), note }
}
