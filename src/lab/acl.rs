//! Owns the lab's ACLs: which tokens there are, with which of the shipped policies, and making them known to Consul.
//! The secrets are made before anything starts, so that every configuration file can name its own; only Consul's
//! first token comes from Consul.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use http::StatusCode;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
    lab::{
        LabError,
        plan::{ClientServices, Node, PREFIXES, PRIMARY, Plan, Role, SECONDARY, services_of},
        state::write_private,
    },
    model::secret::SecretText,
};

/// The token that may do everything.
pub const MANAGEMENT: &str = "management";
/// The token of the secondary's servers in the primary.
const REPLICATION: &str = "consul-replication";

/// One request of the bring-up.
const ASK: Duration = Duration::from_secs(5);

/// A token and what it is allowed: one of the files under `policies/`, with its places filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The token's file in the lab's folder, and its policy in Consul.
    pub(crate) name: String,
    /// The policy's rules.
    pub(crate) rules: String,
}

/// The lab's tokens by name. Their `Debug` shows none.
#[derive(Clone, Debug)]
pub struct Tokens(BTreeMap<String, SecretText>);

/// Whose token on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Consul,
    Causeway,
    Service,
    Envoy,
}

/// The name of a node's token.
pub(crate) fn token_name(node: &str, holder: Holder) -> String {
    let holder = match holder {
        Holder::Consul => "consul",
        Holder::Causeway => "causeway",
        Holder::Service => "service",
        Holder::Envoy => "envoy",
    };
    format!("{node}-{holder}")
}

/// Where a token is kept.
pub fn token_file(lab: &Path, name: &str) -> PathBuf {
    lab.join("tokens").join(name)
}

/// Every token but the first, with its rules.
pub(crate) fn grants(plan: &Plan) -> Vec<Grant> {
    let replication = Grant {
        name: REPLICATION.into(),
        rules: include_str!("../../policies/consul-replication.hcl").into(),
    };
    std::iter::once(replication).chain(plan.nodes.iter().flat_map(node_grants)).collect()
}

fn node_grants(node: &Node) -> Vec<Grant> {
    const CONSUL: &str = include_str!("../../policies/consul-agent.hcl");
    const CAUSEWAY: &str = include_str!("../../policies/causeway-agent.hcl");
    const SERVICE: &str = include_str!("../../policies/service.hcl");
    const SIDECAR: &str = include_str!("../../policies/sidecar.hcl");
    const GATEWAY: &str = include_str!("../../policies/mesh-gateway.hcl");
    let service = match services_of(node) {
        ClientServices::Dashboard => "dashboard",
        ClientServices::Counting => "counting",
        ClientServices::None => "mesh-gateway",
    };
    let policies: &[(Holder, &str)] = match node.role {
        Role::Server => &[(Holder::Consul, CONSUL)],
        Role::Gateway => &[(Holder::Consul, CONSUL), (Holder::Causeway, CAUSEWAY), (Holder::Envoy, GATEWAY)],
        Role::Services => &[
            (Holder::Consul, CONSUL),
            (Holder::Causeway, CAUSEWAY),
            (Holder::Service, SERVICE),
            (Holder::Envoy, SIDECAR),
        ],
    };
    let fill = |text: &str| text.replace("{{node}}", &node.name).replace("{{service}}", service);
    let grant = |(holder, text): &(Holder, &str)| {
        let rules = match holder {
            Holder::Causeway if node.sync.is_some() => format!("{}\n{}", fill(text), fill(&sync_rules())),
            _ => fill(text),
        };
        Grant { name: token_name(&node.name, *holder), rules }
    };
    policies.iter().map(grant).collect()
}

/// What an agent needs in addition that takes part in replication. The rule of a prefix stands there once for each.
fn sync_rules() -> String {
    const SYNC: &str = include_str!("../../policies/causeway-sync.hcl");
    const PLACE: &str = "{{prefix}}";
    let blocks = SYNC.split("\n\n").map(|block| {
        let of_prefix = |(prefix, _): &(&str, &str)| block.replace(PLACE, prefix);
        if block.contains(PLACE) {
            PREFIXES.iter().map(of_prefix).collect::<Vec<_>>().join("\n\n")
        } else {
            block.to_owned()
        }
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

impl Tokens {
    /// New secrets for all grants.
    ///
    /// Errors: the system gave no randomness.
    pub(crate) fn new(grants: &[Grant]) -> Result<Self, ring::error::Unspecified> {
        grants.iter().map(|grant| Ok((grant.name.clone(), secret()?))).collect::<Result<_, _>>().map(Self)
    }

    /// The secret of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&SecretText> {
        self.0.get(name)
    }

    /// All, with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &SecretText)> {
        self.0.iter().map(|(name, secret)| (name.as_str(), secret))
    }

    /// `acl` of a node's Consul configuration.
    pub(crate) fn consul_section(&self, node: &Node) -> Value {
        let secret = |name: &str| self.get(name).map(SecretText::expose);
        let mut section = json!({
            "enabled": true,
            "default_policy": "deny",
            "tokens": { "agent": secret(&token_name(&node.name, Holder::Consul)) },
        });
        if node.role == Role::Server {
            section["enable_token_replication"] = true.into();
            if node.datacenter.as_str() == SECONDARY {
                section["tokens"]["replication"] = secret(REPLICATION).into();
            }
        }
        section
    }
}

/// The ACLs of one bring-up.
#[derive(Debug)]
pub(crate) struct Acls {
    grants: Vec<Grant>,
    tokens: Tokens,
    management: OnceLock<SecretText>,
}

impl Acls {
    /// What the lab of this plan is to have.
    pub(crate) fn new(plan: &Plan) -> Result<Self, LabError> {
        let grants = grants(plan);
        let tokens = Tokens::new(&grants).map_err(|error| LabError::Certificates(error.to_string()))?;
        Ok(Self { grants, tokens, management: OnceLock::new() })
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The token that may do everything, once Consul gave it out.
    pub(crate) fn management(&self) -> Option<&SecretText> {
        self.management.get()
    }

    /// Takes Consul's first token and keeps it in the lab's folder, then makes the others. Done again after a failure,
    /// it goes on where it was.
    pub(crate) async fn set_up(&self, lab: &Path, server: &Node) -> Result<(), String> {
        let management = match self.management.get() {
            Some(management) => management,
            None => {
                let token = bootstrap(server).await?;
                write_private(&token_file(lab, MANAGEMENT), token.expose().as_bytes())
                    .map_err(|error| error.to_string())?;
                self.management.get_or_init(|| token)
            }
        };
        for grant in &self.grants {
            let secret = self.tokens.get(&grant.name).expect("every grant has a token");
            make(server, management, grant, secret).await?;
        }
        for (source, destination) in [("dashboard", "counting"), ("causeway-sync", "causeway-sync")] {
            allow(server, management, source, destination).await?;
        }
        Ok(())
    }
}

/// A random UUID, as Consul wants its secrets.
fn secret() -> Result<SecretText, ring::error::Unspecified> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range: std::ops::Range<usize>| hex[range].concat();
    let text = [part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)].join("-");
    Ok(SecretText::from(text))
}

/// A client of a node's Consul with that token.
fn client(node: &Node, token: Option<&SecretText>) -> Result<Client, String> {
    let address = ConsulAddress::parse(&node.consul_http).map_err(|problem| problem.clone())?;
    let settings = ConsulSettings { address, token: token.cloned(), ..ConsulSettings::default() };
    Client::new(settings).map_err(|error| error.to_string())
}

/// Takes Consul's first token, once the primary's server gives it out.
async fn bootstrap(server: &Node) -> Result<SecretText, String> {
    let reply = client(server, None)?.put("/v1/acl/bootstrap", &[], None, ASK).await;
    let token: Value = reply.and_then(|it| it.ok()?.json()).map_err(|error| error.to_string())?;
    token["SecretID"].as_str().map(SecretText::from).ok_or_else(|| "Consul gave no token".to_owned())
}

/// Makes the policy and the token of a grant. What is already there is left as it is.
async fn make(
    server: &Node,
    management: &SecretText,
    grant: &Grant,
    secret: &SecretText,
) -> Result<(), String> {
    let client = client(server, Some(management))?;
    let policy = json!({ "Name": grant.name, "Rules": grant.rules });
    let token = json!({
        "Description": grant.name,
        "SecretID": secret.expose(),
        "Policies": [{ "Name": grant.name }],
    });
    for (path, body) in [("/v1/acl/policy", policy), ("/v1/acl/token", token)] {
        let reply = client.put(path, &[], Some(body), ASK).await.map_err(|error| error.to_string())?;
        let is_there = reply.status == StatusCode::INTERNAL_SERVER_ERROR
            && ["already exists", "already in use"].iter().any(|text| reply.excerpt().contains(text));
        if !is_there {
            reply.ok().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Whether a secondary's server knows the token of each Consul of its datacenter and what it may do. It does once it has
/// copied all tokens; before, it asks the primary for each, and denies what it gets no answer for.
pub(crate) async fn is_replicated(server: &Node, tokens: &Tokens, nodes: &[&Node]) -> Result<(), String> {
    let reply = client(server, None)?.get("/v1/acl/replication", &[], ASK).await;
    let status: Value = reply.and_then(|it| it.ok()?.json()).map_err(|error| error.to_string())?;
    if status["ReplicatedTokenIndex"].as_u64().unwrap_or(0) == 0 {
        return Err("no tokens replicated yet".into());
    }
    for node in nodes {
        let token = tokens.get(&token_name(&node.name, Holder::Consul));
        let question = json!([{ "Resource": "node", "Segment": node.name, "Access": "write" }]);
        let client = client(server, token)?;
        let reply = client.post("/v1/internal/acl/authorize", &[], Some(question), ASK).await;
        let answer: Value = reply.and_then(|it| it.ok()?.json()).map_err(|error| error.to_string())?;
        if answer[0]["Allow"] != true {
            return Err(format!("{} may not write its node yet", node.name));
        }
    }
    Ok(())
}

/// With a default of deny one service needs to be allowed to speak to another.
async fn allow(
    server: &Node,
    management: &SecretText,
    source: &str,
    destination: &str,
) -> Result<(), String> {
    debug_assert_eq!(server.datacenter.as_str(), PRIMARY);
    let intention = json!({
        "SourceName": source, "DestinationName": destination, "SourceType": "consul", "Action": "allow",
    });
    let client = client(server, Some(management))?;
    let reply = client.post("/v1/connect/intentions", &[], Some(intention), ASK).await;
    let reply = reply.map_err(|error| error.to_string())?;
    if reply.excerpt().contains("duplicate intention") {
        return Ok(());
    }
    reply.ok().map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::LabOptions;

    #[test]
    fn every_process_has_a_token_of_its_own_and_no_place_is_left_open() {
        let plan = Plan::new(&LabOptions { has_acls: true, ..LabOptions::example() }, 0);
        let grants = grants(&plan);
        let names: Vec<&str> = grants.iter().map(|grant| grant.name.as_str()).collect();
        assert_eq!(names.len(), 1 + 2 * (1 + 3 + 4));
        assert!(names.contains(&"primary-gateway-envoy") && names.contains(&"secondary-services-service"));
        assert!(grants.iter().all(|grant| !grant.rules.contains("{{")), "{grants:?}");
        let tokens = Tokens::new(&grants).unwrap();
        let distinct: std::collections::BTreeSet<_> = tokens.iter().map(|(_, secret)| secret).collect();
        assert_eq!(distinct.len(), grants.len());
        assert!(tokens.iter().all(|(_, secret)| secret.expose().len() == 36));
        let agent = grants.iter().find(|grant| grant.name == "primary-gateway-causeway").unwrap();
        for rule in [
            "service_prefix \"\"",
            "key_prefix \"config/\"",
            "key_prefix \"locks/\"",
            "key_prefix \"_sync/\"",
        ] {
            assert!(agent.rules.contains(rule), "{rule}");
        }
        let sidecar = grants.iter().find(|grant| grant.name == "primary-services-envoy").unwrap();
        assert!(sidecar.rules.contains("service \"dashboard\"") && !sidecar.rules.contains("counting"));
    }

    #[test]
    fn only_the_secondarys_server_replicates() {
        let plan = Plan::new(&LabOptions { has_acls: true, ..LabOptions::example() }, 0);
        let tokens = Tokens::new(&grants(&plan)).unwrap();
        for node in &plan.nodes {
            let section = tokens.consul_section(node);
            assert!(section["tokens"]["agent"].is_string() && section["default_policy"] == "deny");
            assert_eq!(section["tokens"]["replication"].is_string(), node.name == "secondary-server");
        }
    }
}
