//! Renewal of what a running Consul uses: seen on the wire, without a restart.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path};

use causeway::{
    config::consul::{ConsulAddress, ConsulSettings, ConsulTls},
    consul::client::Client,
};
use serde_json::{Value, json};

use super::{SERVER, Set, findings, host, is_turned_away, tls};
use crate::rig::parts::{Consul, http};

const STEM: &str = "dc1-server-consul-0";
const CALLER: &str = "dc1-cli-consul-0";

fn standing(path: &Path) -> (u32, u32, u32) {
    let about = fs::metadata(path).unwrap();
    (about.mode() & 0o777, about.uid(), about.gid())
}

#[test]
fn a_running_consul_serves_the_renewed_certificate() {
    let set = Set::whole();
    let consul = Consul::start(host(8), set.settings(STEM));
    let pid = consul.pid();
    let old = set.served(consul.https, CALLER).unwrap();
    let key = set.path(&format!("{STEM}-key.pem"));
    let before = (standing(&key), standing(&set.path(&format!("{STEM}.pem"))));

    // Nothing is due: nothing is written, Consul is not asked.
    let idle = tls(0, &["renew", set.dir(), "--reload", "--http-addr", "http://127.62.0.8:9"]);
    assert!(idle.out.contains("kept ") && !idle.out.contains("reloaded"), "{idle:?}");
    let dry = tls(0, &["renew", set.dir(), "--before", "366d", "--dry-run"]);
    assert!(dry.out.contains("due ") && set.certificate(&format!("{STEM}.pem")) == old, "{dry:?}");

    let done =
        tls(0, &["renew", set.dir(), "--before", "366d", "--reload", "--http-addr", &consul.address()]);
    assert!(done.out.contains("renewed ") && done.out.contains("reloaded the Consul agent"), "{done:?}");
    assert!(done.out.contains("then the certificate") && done.out.contains("(mode 0600, owner "), "{done:?}");
    let new = set.served(consul.https, CALLER).unwrap();
    assert_eq!(new, set.certificate(&format!("{STEM}.pem")));
    assert!(new.serial != old.serial && new.public_key != old.public_key && new.not_after >= old.not_after);
    let kept = |one: &causeway::tls::x509::certificate::Certificate| {
        (one.subject.clone(), one.names(), one.usages.clone(), one.issuer.clone())
    };
    assert_eq!(kept(&new), kept(&old));
    assert_eq!((standing(&key), standing(&set.path(&format!("{STEM}.pem")))), before);
    assert_eq!(set.consul_says(consul.https, CALLER), Ok(()));
    assert_eq!(consul.pid(), pid);
    assert_eq!(findings(set.folder.path(), &[]), []);
    assert!(!set.path(".consul-reload-due").exists());
}

/// Without the right to reload Consul the renewal stands, and the next run tells Consul although nothing is due.
#[test]
fn a_reload_that_was_refused_is_made_up_for() {
    let set = Set::whole();
    let root = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a001";
    let mut settings = set.settings(STEM);
    settings["acl"] =
        json!({"enabled": true, "default_policy": "allow", "tokens": {"master": root, "agent": root}});
    let consul = Consul::start(host(9), settings);
    let old = set.served(consul.https, CALLER).unwrap();
    let (address, file) = (consul.address(), set.path("token"));
    fs::write(&file, token(&consul, root, "few", r#"agent "s1" { policy = "read" }"#)).unwrap();
    let reload = |code: i32, more: &[&str]| {
        let file = file.to_str().unwrap();
        let args = ["renew", set.dir(), "--reload", "--http-addr", &address, "--token-file", file];
        tls(code, &args.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let refused = reload(4, &["--all"]);
    assert!(refused.err.contains("agent:write") && refused.err.contains("403"), "{refused:?}");
    assert_eq!(set.served(consul.https, CALLER), Ok(old.clone()));
    assert!(set.certificate(&format!("{STEM}.pem")) != old);
    reload(4, &[]);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/tls-renew.hcl");
    let rules = fs::read_to_string(shipped).unwrap().replace("{{node}}", "s1");
    fs::write(&file, token(&consul, root, "renew", &rules)).unwrap();
    let done = reload(0, &[]);
    assert!(done.out.contains("kept ") && done.out.contains("reloaded"), "{done:?}");
    assert_eq!(set.served(consul.https, CALLER), Ok(set.certificate(&format!("{STEM}.pem"))));
}

/// A token with these rules.
fn token(consul: &Consul, root: &str, name: &str, rules: &str) -> String {
    let ask = |kind: &str, body: Value| -> Value {
        let path = format!("/v1/acl/{kind}?token={root}");
        let reply = http(consul.http, "PUT", &path, &body.to_string()).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    ask("policy", json!({"Name": name, "Rules": rules}));
    let made = ask("token", json!({"Policies": [{"Name": name}]}));
    made["SecretID"].as_str().unwrap().to_owned()
}

/// What a Causeway agent speaks with Consul through; it is never told that its files changed.
fn agent_client(set: &Set, https: SocketAddr) -> Client {
    let tls = ConsulTls {
        ca_file: Some(set.path("consul-agent-ca.pem")),
        cert_file: Some(set.path(&format!("{CALLER}.pem"))),
        key_file: Some(set.path(&format!("{CALLER}-key.pem"))),
        server_name: Some(SERVER.into()),
        ..ConsulSettings::default().tls
    };
    let address = ConsulAddress::Https { authority: https.to_string() };
    Client::new(ConsulSettings { address, tls, ..ConsulSettings::default() }).unwrap()
}

/// The way of `tls/README.md`: both CAs trusted, everything renewed by the new one, the old one dropped. At no moment
/// is a caller refused that follows it.
#[test]
fn a_new_ca_takes_over_without_a_gap() {
    let (set, new) = (Set::whole(), Set::ca());
    let consul = Consul::start(host(10), set.settings(STEM));
    let address = consul.address();
    let ca = set.path("consul-agent-ca.pem");
    let (old_ca, new_ca) =
        (fs::read_to_string(&ca).unwrap(), fs::read_to_string(new.path("consul-agent-ca.pem")).unwrap());
    let reload = || assert_eq!(http(consul.http, "PUT", "/v1/agent/reload", "").unwrap().status, 200);
    let agent = agent_client(&set, consul.https);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let works = || {
        assert_eq!(set.consul_says(consul.https, CALLER), Ok(()));
        runtime.block_on(agent.agent_self()).unwrap();
    };
    // A caller that is late keeps its certificate of the old CA.
    let late = Set { folder: tempfile::tempdir().unwrap() };
    for ending in [".pem", "-key.pem"] {
        fs::copy(set.path(&format!("{CALLER}{ending}")), late.path(&format!("late{ending}"))).unwrap();
    }
    let bring_late = || {
        for ending in [".pem", "-key.pem"] {
            fs::copy(late.path(&format!("late{ending}")), set.path(&format!("late{ending}"))).unwrap();
        }
    };

    let (new_file, new_key) = (new.path("consul-agent-ca.pem"), new.path("consul-agent-ca-key.pem"));
    let (new_file, new_key) = (new_file.to_str().unwrap(), new_key.to_str().unwrap());
    let early = tls(1, &["renew", set.dir(), "--all", "--ca", new_file, "--key", new_key]);
    assert!(early.err.contains("is not among the CAs"), "{early:?}");

    fs::write(&ca, format!("{new_ca}{old_ca}")).unwrap();
    reload();
    works();
    tls(
        0,
        &[
            "renew",
            set.dir(),
            "--all",
            "--ca",
            new_file,
            "--key",
            new_key,
            "--reload",
            "--http-addr",
            &address,
        ],
    );
    works();
    let served = set.served(consul.https, CALLER).unwrap();
    assert_eq!(served.issuer_raw, new.certificate("consul-agent-ca.pem").subject_raw);
    bring_late();
    assert_eq!(set.consul_says(consul.https, "late"), Ok(()));

    fs::write(&ca, &new_ca).unwrap();
    reload();
    works();
    let said = set.consul_says(consul.https, "late").unwrap_err();
    assert!(is_turned_away(&said), "{said}");
    // The key of the old CA lies there still.
    let codes = findings(set.folder.path(), &[]);
    assert_eq!(
        codes,
        [("problem", "untrusted"), ("warning", "no-certificate")].map(|(a, b)| (a.into(), b.into()))
    );
}
