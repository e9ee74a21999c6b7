//! Over the gateways, in default deny: a client can do through any agent exactly what its token could do at home.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    lab_sync::{
        ask::ask,
        world::{AGENTS, World, with_token},
    },
    sync_endpoint::rights::{REQUESTS, rules, seen},
};

pub(super) const NOBODYS: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8affe";

/// Consul's own, which replicates nothing, and the prefix below which agents do.
const PLAIN: &str = "plain/rights/";
const MANAGED: &str = "config/rights/";

pub(super) fn a_token_can_do_through_every_agent_what_it_could_do_at_home(world: &World) {
    let made = |name, access: &str| {
        let sessions = format!(r#"session_prefix "" {{ policy = "{access}" }}"#);
        world.make_token(name, &(rules(MANAGED, access) + &rules(PLAIN, access) + &sessions))
    };
    let (reader, writer) = (made("reader", "read"), made("writer", "write"));
    let mut wrong = String::new();
    for (who, secret) in [
        ("nobody", None),
        ("an unknown token", Some(NOBODYS)),
        ("a reader", Some(reader.as_str())),
        ("a writer", Some(writer.as_str())),
    ] {
        for request in REQUESTS {
            let consuls = outcome(world, &world.consul("primary-gateway"), PLAIN, secret, request);
            for node in AGENTS.iter().flat_map(|(_, nodes)| nodes) {
                let ours = outcome(world, &world.agent(node), MANAGED, secret, request);
                if ours != consuls {
                    let _ =
                        writeln!(wrong, "{who} at {node}: {request:?}\n  ours: {ours}\n  Consul: {consuls}");
                }
            }
        }
    }
    world.ask("DELETE", &format!("{}/v1/kv/{MANAGED}?recurse", world.agent("primary-gateway")), b"");
    assert!(wrong.is_empty(), "{wrong}");
}

/// What a token is answered there, after the same beginning each time. What is prepared and tidied up is done with the
/// tester's own token.
fn outcome(
    world: &World,
    address: &str,
    prefix: &str,
    secret: Option<&str>,
    (method, target, body): &(&str, &str, &str),
) -> String {
    let order = |method: &str, path: &str, body: &[u8]| {
        let reply = world.ask(method, &format!("{address}{path}"), body);
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        reply
    };
    for key in ["a", "d/x", "secret/a"] {
        order("PUT", &format!("/v1/kv/{prefix}{key}"), b"v");
    }
    let has_session = target.contains("@s;") || body.contains("@s;");
    let session = if has_session {
        let body = br#"{"TTL": "60s", "LockDelay": "0s", "NodeChecks": []}"#;
        let made: Value =
            serde_json::from_slice(&order("PUT", "/v1/session/create?dc=primary", body).body).unwrap();
        made["ID"].as_str().unwrap().to_owned()
    } else {
        String::new()
    };
    let place = |text: &str| text.replace("P/", prefix).replace("@s;", &session).replace("DC", "primary");
    let url = format!("{}{}", with_token(address, secret), place(target));
    let reply = ask(method, &url, &[], place(body).as_bytes());
    let reply = reply.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    // Consul says so when another agent than the asked one carried the request out.
    let text = reply.text().replace("rpc error making call: ", "");
    let shown = seen(target, reply.status, &text, prefix);
    if !has_session {
        return shown;
    }
    order("PUT", &format!("/v1/session/destroy/{session}?dc=primary"), b"");
    for key in ["l", "secret/l"] {
        order("DELETE", &format!("/v1/kv/{prefix}{key}"), b"");
    }
    shown.replace(&session, "@s;")
}
