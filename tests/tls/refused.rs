//! Sets that Consul refuses: `verify` says why beforehand, in the words of codes, and Consul says it at work.

use std::fs;

use causeway::tls::{
    authority::{Authority, Issued, NewAuthority},
    x509::{
        certificate::Usage,
        lifetime::DAY,
        pem::Contents,
        profile::{self, Names, Place, Profile},
    },
};

use super::{Set, findings, host, is_turned_away, now};
use crate::rig::parts::{Consul, http};

const STEM: &str = "dc1-server-consul-0";

fn authority(set: &Set) -> Authority {
    let read = |name: &str| Contents::read(&fs::read(set.path(name)).unwrap());
    let certificate = read("consul-agent-ca.pem").certificates.remove(0);
    Authority::new(certificate, read("consul-agent-ca-key.pem").keys.remove(0)).unwrap()
}

fn server_names(datacenter: &str) -> Names {
    let place = Place { datacenter: datacenter.into(), domain: "consul".into(), node: Some("s1".into()) };
    profile::named("server").unwrap().issued(&place)
}

/// A profile with other purposes.
fn with_usages(name: &str, usages: &[Usage]) -> Profile {
    let mut profile = profile::named(name).unwrap().clone();
    profile.usages = usages.iter().copied().collect();
    profile
}

/// Puts a pair in place of the server's and has Consul read it.
fn install(set: &Set, consul: &Consul, issued: &Issued) -> u16 {
    fs::write(set.path(&format!("{STEM}.pem")), issued.pem()).unwrap();
    fs::write(set.path(&format!("{STEM}-key.pem")), issued.key.expose()).unwrap();
    http(consul.http, "PUT", "/v1/agent/reload", "").unwrap().status
}

#[test]
fn consul_refuses_what_verify_predicts() {
    let set = Set::whole();
    let (ca, other) = (authority(&set), authority(&Set::ca()));
    let both = with_usages("server", &[Usage::Server, Usage::Client]);
    let year = DAY * 365;
    // What has ended was issued by a CA that is older; the set trusts both.
    let then = now().minus(DAY * 10);
    let request = NewAuthority { lifetime: year, ..NewAuthority::default() };
    let (old, made) = Authority::create(&request, then).unwrap();
    let ca_file = set.path("consul-agent-ca.pem");
    let bundle = fs::read_to_string(&ca_file).unwrap() + &made.pem();
    fs::write(&ca_file, bundle).unwrap();
    let consul = Consul::start(host(5), set.settings(STEM));
    let cases: Vec<(&str, Issued, &str, &str)> = vec![
        (
            "another CA",
            other.issue(&both, &server_names("dc1"), year, now()).unwrap(),
            "untrusted",
            "unknown authority",
        ),
        (
            "another datacenter",
            ca.issue(&both, &server_names("dc2"), year, now()).unwrap(),
            "name",
            "not server.dc1.consul",
        ),
        (
            "no server",
            ca.issue(&with_usages("server", &[Usage::Client]), &server_names("dc1"), year, now()).unwrap(),
            "usage",
            "incompatible key usage",
        ),
        ("ended", old.issue(&both, &server_names("dc1"), DAY, then).unwrap(), "expired", "expired"),
    ];
    for (what, issued, code, words) in cases {
        assert_eq!(install(&set, &consul, &issued), 200, "{what}");
        let predicted = findings(set.folder.path(), &[]);
        assert!(predicted.contains(&("problem".into(), code.into())), "{what}: {predicted:?}");
        let said = set.consul_says(consul.https, "dc1-cli-consul-0").unwrap_err();
        assert!(said.contains(words), "{what}: {said}");
    }
    let good = ca.issue(&both, &server_names("dc1"), year, now()).unwrap();
    assert_eq!(install(&set, &consul, &good), 200);
    assert_eq!(findings(set.folder.path(), &[]), []);
    assert_eq!(set.consul_says(consul.https, "dc1-cli-consul-0"), Ok(()));
}

/// With verify_incoming a caller needs the purpose of a client, and a certificate of a CA that the server knows.
#[test]
fn consul_refuses_callers_that_verify_predicts() {
    let set = Set::whole();
    let consul = Consul::start(host(6), set.settings(STEM));
    let (ca, other) = (authority(&set), authority(&Set::ca()));
    let names = profile::named("cli").unwrap().issued(&Place {
        datacenter: "dc1".into(),
        domain: "consul".into(),
        node: None,
    });
    let cases = [
        (ca.issue(&with_usages("cli", &[Usage::Server]), &names, DAY, now()).unwrap(), "usage"),
        (other.issue(&with_usages("cli", &[Usage::Client]), &names, DAY, now()).unwrap(), "untrusted"),
    ];
    for (issued, code) in cases {
        fs::write(set.path("dc1-cli-consul-0.pem"), issued.pem()).unwrap();
        fs::write(set.path("dc1-cli-consul-0-key.pem"), issued.key.expose()).unwrap();
        let predicted = findings(set.folder.path(), &[]);
        assert!(predicted.contains(&("problem".into(), code.into())), "{code}: {predicted:?}");
        let said = set.consul_says(consul.https, "dc1-cli-consul-0").unwrap_err();
        assert!(is_turned_away(&said), "{code}: {said}");
        assert!(set.served(consul.https, "dc1-cli-consul-0").is_err(), "{code}");
    }
}

/// With another certificate's key Consul refuses to reload and keeps what it has.
#[test]
fn a_key_that_does_not_fit_is_refused_on_reload() {
    let set = Set::whole();
    let consul = Consul::start(host(7), set.settings(STEM));
    let before = set.served(consul.https, "dc1-cli-consul-0").unwrap();
    fs::copy(set.path("dc1-cli-consul-0-key.pem"), set.path(&format!("{STEM}-key.pem"))).unwrap();
    let predicted = findings(set.folder.path(), &[]);
    assert!(predicted.contains(&("problem".into(), "key-mismatch".into())), "{predicted:?}");
    let reply = http(consul.http, "PUT", "/v1/agent/reload", "").unwrap();
    assert_eq!(reply.status, 500, "{reply:?}");
    assert!(reply.body.contains("does not match"), "{reply:?}");
    assert_eq!(set.served(consul.https, "dc1-cli-consul-0"), Ok(before));
    // Nothing is renewed over it either: whose key it is cannot be known.
    let ended = super::tls(3, &["renew", set.dir(), "--all"]);
    assert!(ended.out.contains("another certificate's"), "{ended:?}");
}
