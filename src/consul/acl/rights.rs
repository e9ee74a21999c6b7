//! Asks Consul whether a token has `service:write` on a service. Consul checks the token itself: what its policies say
//! is not read here.
//!
//! A Consul client agent answers from a cache of tokens (`acl.token_ttl` and `acl.policy_ttl`, 30 s each by default), so
//! a deleted token is seen that much later there.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::{
    consul::client::{Client, Reply},
    model::{name::ServiceName, secret::SecretText},
};

/// The token that Consul takes for none at all. Without any, the local Consul agent would put its own default token
/// in its place.
pub const ANONYMOUS: &str = "anonymous";

/// The local agent answers this itself, or asks its own datacenter's servers.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a token may do to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// It has `service:write`.
    Write,
    /// Consul knows the token, and it has not.
    Lacking,
    /// Consul knows no such token: it was deleted, it expired, or it belongs to another datacenter alone.
    NoSuchToken,
    /// Consul has no ACLs: every token, and none, may do everything.
    NoAcls,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireAnswer {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    segment: String,
    #[serde(default)]
    allow: bool,
}

/// What `token` may do to `service`. An error is the reason why that is not known.
pub async fn right(client: &Client, token: &SecretText, service: &ServiceName) -> Result<Right, String> {
    let question = json!([{ "Resource": "service", "Segment": service.as_str(), "Access": "write" }]);
    const PATH: &str = "/v1/internal/acl/authorize";
    let asked = client.ask_as(Some(token), Method::POST, PATH, &[], Some(question), DEADLINE);
    let reply = asked.await.map_err(|error| error.to_string())?;
    let right = read(&reply, service)?;
    if matches!(right, Right::Lacking | Right::NoSuchToken) {
        has_leader(client).await?;
    }
    Ok(right)
}

fn read(reply: &Reply, service: &ServiceName) -> Result<Right, String> {
    let says = |text: &str| reply.excerpt().contains(text);
    match reply.status {
        StatusCode::UNAUTHORIZED if says("ACL support disabled") => Ok(Right::NoAcls),
        StatusCode::FORBIDDEN if says("ACL not found") => Ok(Right::NoSuchToken),
        status if status.is_success() => {
            let answers: Vec<WireAnswer> = reply.json().map_err(|error| error.to_string())?;
            let about = |it: &&WireAnswer| it.resource == "service" && it.segment == service.as_str();
            let answer = answers.iter().find(about).ok_or("Consul's answer is about another service")?;
            Ok(if answer.allow { Right::Write } else { Right::Lacking })
        }
        _ => Err(reply.refusal().to_string()),
    }
}

/// A Consul agent that reaches no server denies what it has not cached (`acl.down_policy`), and a server that has just
/// started knows no token before it has read its log: such a no is none.
pub(crate) async fn has_leader(client: &Client) -> Result<(), String> {
    let reply = client.get("/v1/status/leader", &[], DEADLINE).await.map_err(|error| error.to_string())?;
    let leader: String =
        reply.ok().and_then(|reply| reply.json()).map_err(|error| format!("no Consul leader: {error}"))?;
    if leader.is_empty() { Err("Consul has no leader, so its refusal says nothing".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn told(status: u16, body: &'static str) -> Result<Right, String> {
        let status = StatusCode::from_u16(status).unwrap();
        let reply =
            Reply::recorded("POST".into(), status, &HeaderMap::new(), Bytes::from_static(body.as_bytes()));
        read(&reply, &"web".into())
    }

    #[test]
    fn every_answer_of_consul_has_one_meaning() {
        let allow = r#"[{"Resource":"service","Segment":"web","Access":"write","Allow":true}]"#;
        let deny = r#"[{"Resource":"service","Segment":"web","Access":"write","Allow":false}]"#;
        assert_eq!(told(200, allow), Ok(Right::Write));
        assert_eq!(told(200, deny), Ok(Right::Lacking));
        assert_eq!(told(403, "ACL not found"), Ok(Right::NoSuchToken));
        assert_eq!(told(401, "ACL support disabled"), Ok(Right::NoAcls));
    }

    #[test]
    fn what_is_no_answer_is_unknown() {
        let other = r#"[{"Resource":"service","Segment":"db","Access":"write","Allow":true}]"#;
        for (status, body) in
            [(200, other), (200, "[]"), (200, "<html>"), (401, "who"), (403, "no"), (500, "")]
        {
            assert!(told(status, body).is_err(), "{status} {body}");
        }
    }
}
