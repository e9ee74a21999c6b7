//! Certificates at work: servers and clients of a real Consul that verify everything.

use serde_json::{Value, json};

use super::{Set, findings, host, tls};
use crate::rig::parts::{Consul, tool};

fn merged(parts: &[Value]) -> Value {
    let mut all = serde_json::Map::new();
    for part in parts {
        all.extend(part.as_object().unwrap().clone());
    }
    Value::Object(all)
}

/// A client agent of the server, whose RPC goes over mutual TLS; it has answered a question that only the server can.
fn join(server: &Consul, set: &Set, stem: &str, more: &Value, last: u8) -> Consul {
    let serf = server.get("/v1/agent/self")["Member"]["Port"].as_u64().unwrap();
    let own = json!({
        "server": false, "bootstrap_expect": 0, "node_name": "c1", "connect": {"enabled": false},
        "retry_join": [format!("{}:{serf}", server.http.ip())], "retry_interval": "1s",
    });
    Consul::start(host(last), merged(&[set.settings(stem), own, more.clone()]))
}

#[test]
fn consul_takes_what_causeway_makes() {
    let set = Set::whole();
    tls(0, &["cert", "create", "--client", "--dir", set.dir()]);
    tls(0, &["cert", "create", "--agent", "--node", "s1", "--dir", set.dir()]);
    assert_eq!(findings(set.folder.path(), &["--federated", "--dc", "dc1"]), []);
    let key = tls(0, &["gossip"]).out.trim().to_owned();
    let encrypt = json!({"encrypt": key});

    let server = Consul::start(host(1), merged(&[set.settings("dc1-server-consul-0"), encrypt.clone()]));
    assert_eq!(server.get("/v1/agent/self")["Stats"]["serf_lan"]["encrypted"], "true");
    for caller in ["dc1-cli-consul-0", "dc1-agent-consul-0", "dc1-client-consul-0"] {
        assert_eq!(
            set.served(server.https, caller),
            Ok(set.certificate("dc1-server-consul-0.pem")),
            "{caller}"
        );
        assert_eq!(set.consul_says(server.https, caller), Ok(()), "{caller}");
    }
    let client = join(&server, &set, "dc1-client-consul-0", &encrypt, 2);
    let nodes = client.get("/v1/catalog/nodes");
    let mut names: Vec<&str> =
        nodes.as_array().unwrap().iter().map(|n| n["Node"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["c1", "s1"]);
}

/// A CA and a certificate by Consul's own tool, another certificate of the same CA by `causeway`, and the other way
/// round.
#[test]
fn consuls_tool_and_causeway_extend_each_others_cas() {
    let set = Set { folder: tempfile::tempdir().unwrap() };
    let consul = |args: &[&str]| {
        let output = std::process::Command::new(tool("consul", "CONSUL_BIN"))
            .env_clear()
            .current_dir(set.folder.path())
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    consul(&["tls", "ca", "create"]);
    consul(&["tls", "cert", "create", "-client"]);
    tls(0, &["cert", "create", "--server", "--node", "s1", "--dir", set.dir()]);
    // Consul's tool leaves private keys open to all.
    let open = ("problem".to_owned(), "key-open".to_owned());
    assert_eq!(findings(set.folder.path(), &[]), [open.clone(), open]);
    let server = Consul::start(host(3), set.settings("dc1-server-consul-0"));
    let _client = join(&server, &set, "dc1-client-consul-0", &json!({}), 4);
    assert_eq!(set.consul_says(server.https, "dc1-client-consul-0"), Ok(()));

    let ours = Set::ca();
    let (ca, key) = (ours.path("consul-agent-ca.pem"), ours.path("consul-agent-ca-key.pem"));
    let (ca, key) = (format!("-ca={}", ca.display()), format!("-key={}", key.display()));
    consul(&["tls", "cert", "create", "-cli", "-dc=dc9", &ca, &key]);
    let trusted = ours.path("consul-agent-ca.pem");
    let shown = tls(0, &["inspect", set.path("dc9-cli-consul-0.pem").to_str().unwrap()]).out;
    assert!(
        shown.contains("(cli): datacenter dc9") && shown.contains("anything, since it does not say"),
        "{shown}"
    );
    let report = findings(set.folder.path(), &["--ca", trusted.to_str().unwrap()]);
    let untrusted = report.iter().filter(|(_, code)| code == "untrusted").count();
    assert_eq!(untrusted, 0, "{report:?}");
}
