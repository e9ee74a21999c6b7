//! `[consul]`: the file's keys, laid over what `CONSUL_*` gave.

use crate::{
    config::{
        Env,
        consul::{ConsulAddress, ConsulSettings},
        reader::{Document, Key, Section},
    },
    model::secret::SecretText,
};

/// More connections than this from one machine is no setting but a slip.
const MAX_CONNECTIONS_LIMIT: u64 = 10_000;

const ADDRESS: Key = Key { name: "address", example: r#""http://127.0.0.1:8500""# };
const TOKEN: Key = Key { name: "token", example: r#""…""# };
const TOKEN_FILE: Key = Key { name: "token_file", example: r#""/etc/causeway/consul.token""# };
const HTTP_AUTH: Key = Key { name: "http_auth", example: r#""user:password""# };
const CA_FILE: Key = Key { name: "ca_file", example: r#""/etc/causeway/consul-ca.pem""# };
const CA_PATH: Key = Key { name: "ca_path", example: r#""/etc/causeway/consul-ca""# };
const CERT_FILE: Key = Key { name: "cert_file", example: r#""/etc/causeway/client.pem""# };
const KEY_FILE: Key = Key { name: "key_file", example: r#""/etc/causeway/client-key.pem""# };
const TLS_SERVER_NAME: Key = Key { name: "tls_server_name", example: r#""server.dc1.consul""# };
const TLS_VERIFY: Key = Key { name: "tls_verify", example: "true" };
const MAX_CONNECTIONS: Key = Key { name: "max_connections", example: "128" };

pub(crate) fn read(document: &mut Document<'_>, env: Env<'_>) -> ConsulSettings {
    let mut settings = ConsulSettings::from_env(env).unwrap_or_else(|problems| {
        for problem in problems {
            document.environment("CONSUL_*", problem, "");
        }
        ConsulSettings::default()
    });
    let mut section = document.section("consul");
    if let Some(address) = section.parsed(&ADDRESS, |text| {
        Ok(ConsulAddress::parse(text).map_err(|why| format!("cannot be used: {why}"))?)
    }) {
        settings.address = address;
    }
    read_token(&mut section, &mut settings);
    if let Some(http_auth) = section.text(&HTTP_AUTH) {
        settings.http_auth = Some(http_auth).filter(|text| !text.is_empty()).map(SecretText::from);
    }
    if let Some(number) = section.number(&MAX_CONNECTIONS, 1..=MAX_CONNECTIONS_LIMIT) {
        settings.max_connections = usize::try_from(number).unwrap_or(usize::MAX);
    }
    read_tls(&mut section, &mut settings);
    settings
}

/// One of the file's two ways to give a token replaces both of the environment's.
fn read_token(section: &mut Section<'_, '_>, settings: &mut ConsulSettings) {
    let token = section.text(&TOKEN);
    let token_file = section.text(&TOKEN_FILE);
    if token.is_some() && token_file.is_some() {
        section.refuse(
            &TOKEN_FILE,
            "is given beside token",
            "keep token_file, which can be rotated, and remove token",
        );
    }
    if token.is_some() || token_file.is_some() {
        settings.token = token.filter(|text| !text.is_empty()).map(SecretText::from);
        settings.token_file = token_file.filter(|text| !text.is_empty()).map(Into::into);
    }
}

fn read_tls(section: &mut Section<'_, '_>, settings: &mut ConsulSettings) {
    let tls = &mut settings.tls;
    for (key, place) in [
        (&CA_FILE, &mut tls.ca_file),
        (&CA_PATH, &mut tls.ca_path),
        (&CERT_FILE, &mut tls.cert_file),
        (&KEY_FILE, &mut tls.key_file),
    ] {
        if let Some(path) = section.text(key) {
            *place = Some(path).filter(|text| !text.is_empty()).map(Into::into);
        }
    }
    if let Some(name) = section.text(&TLS_SERVER_NAME) {
        tls.server_name = Some(name).filter(|text| !text.is_empty());
    }
    tls.verify = section.flag(&TLS_VERIFY).unwrap_or(tls.verify);
    if tls.cert_file.is_some() && tls.key_file.is_none() {
        section.refuse(
            &CERT_FILE,
            "is given without key_file",
            "name the key of that certificate as key_file",
        );
    }
    if tls.key_file.is_some() && tls.cert_file.is_none() {
        section.refuse(
            &KEY_FILE,
            "is given without cert_file",
            "name the certificate of that key as cert_file",
        );
    }
    if !matches!(settings.address, ConsulAddress::Https { .. }) {
        for key in [&CA_FILE, &CA_PATH, &CERT_FILE, &KEY_FILE, &TLS_SERVER_NAME, &TLS_VERIFY] {
            let remedy = format!("write address = \"https://…\", or remove {}", key.name);
            section.refuse(key, "is given, and the address is not https", &remedy);
        }
    }
}
