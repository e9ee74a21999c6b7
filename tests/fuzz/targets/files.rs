//! What stands in files.

use std::collections::BTreeMap;

use causeway::{
    config,
    model::catalog::{Answer, Topics},
    state::{
        format::{self, Kind},
        keep::Keep,
        record,
    },
    sync::positions,
    tls::x509::{certificate::Certificate, key::PrivateKey, moment::Moment, pem, trust},
};
use rustls::pki_types::PrivateKeyDer;

use super::kind_and_rest;

/// The file, and behind a zero byte the environment: lines of `NAME=value`.
pub(super) fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, environment) = text.split_once('\0').unwrap_or((&text, ""));
    let variables: BTreeMap<&str, &str> =
        environment.lines().filter_map(|line| line.split_once('=')).collect();
    let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    match config::parse(file, &env) {
        Ok(config) => assert_eq!(config.reloaded(&config), config),
        Err(problems) => assert!(!problems.is_empty()),
    }
    let _ = config::origin(file, &env, "consul.address");
}

/// A whole file by the door, and its records without the checksum that keeps what is damaged out.
pub(super) fn state(bytes: &[u8]) {
    for kind in Kind::ALL {
        if let Ok(opened) = format::open(kind, bytes) {
            assert_eq!(format::seal(kind, opened.written_at_s, opened.body), bytes);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let body = text.split_once('\n').filter(|(first, _)| first.starts_with("causeway-state"));
    let body = body.map_or(&*text, |(_, body)| body);
    let (topics, _) = record::read_topics(body);
    let written = record::write_topics(&Keep { topics: topics.iter().collect(), leaves: Vec::new() });
    assert_eq!(record::read_topics(&written), (topics, record::Skipped::default()));
    let (leaves, _) = record::read_leaves(body, 0);
    let written = record::write_leaves(&Keep { topics: BTreeMap::new(), leaves: of_leaves(&leaves) });
    assert!(record::read_leaves(&written, 0) == (leaves, record::Skipped::default()));
    if let (Some(tokens), _) = record::read_tokens(body) {
        let written = record::write_tokens(&tokens);
        assert!(record::read_tokens(&written) == (Some(tokens), record::Skipped::default()));
    }
    let positions = positions::rewritten(body);
    assert_eq!(positions::rewritten(&positions), positions);
}

fn of_leaves(topics: &Topics) -> Vec<&causeway::model::ca::Leaf> {
    let leaves = topics.values().filter_map(|heard| match &*heard.answer {
        Answer::Leaf(leaf) => Some(leaf),
        _ => None,
    });
    leaves.collect()
}

/// By the first byte: `D` one certificate as DER, `K` a key, else a PEM file.
pub(super) fn certificates(bytes: &[u8]) {
    let Some((kind, rest)) = kind_and_rest(bytes) else { return };
    match kind {
        b'D' => drop(Certificate::from_der(rest).map(|certificate| judged(&certificate))),
        b'K' => {
            for key in [
                PrivateKeyDer::Pkcs1(rest.to_vec().into()),
                PrivateKeyDer::Pkcs8(rest.to_vec().into()),
                PrivateKeyDer::Sec1(rest.to_vec().into()),
            ] {
                drop(PrivateKey::read(&key));
            }
        }
        _ => {
            let contents = pem::Contents::read(bytes);
            contents.certificates.iter().for_each(judged);
        }
    }
}

fn judged(certificate: &Certificate) {
    use causeway::tls::x509::certificate::Usage;
    let written = pem::certificate(certificate.der());
    let again = pem::Contents::read(written.as_bytes());
    assert_eq!(again.certificates.iter().map(Certificate::der).collect::<Vec<_>>(), [certificate.der()]);
    let _ = (certificate.fingerprint(), certificate.names(), certificate.bears("web"));
    let at = Moment::from_unix(1_700_000_000);
    for usage in [Usage::Server, Usage::Client] {
        let _ = trust::judge(certificate, &[], &[certificate], usage, at);
    }
}
