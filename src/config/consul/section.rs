//! `[consul]`: the file's keys, laid over what `CONSUL_*` gave.

use crate::{
    config::{
        Env,
        consul::{ConsulAddress, ConsulSettings},
        key::{Effect, Key, Kind, Section, Value},
        reader::{Document, Reading},
    },
    model::secret::SecretText,
};

/// More connections than this from one machine is no setting but a slip.
const MAX_CONNECTIONS_LIMIT: u64 = 10_000;

pub(crate) const SECTION: Section = Section {
    name: "consul",
    about: "How to reach the local Consul agent; in place of each key its CONSUL_* variable works as well",
    keys: &[
        ADDRESS,
        TOKEN,
        TOKEN_FILE,
        HTTP_AUTH,
        CA_FILE,
        CA_PATH,
        CERT_FILE,
        KEY_FILE,
        TLS_SERVER_NAME,
        TLS_VERIFY,
        MAX_CONNECTIONS,
    ],
};

const ADDRESS: Key = Key {
    name: "address",
    kind: Kind::Text("address"),
    example: r#""http://127.0.0.1:8500""#,
    meaning: "Consul's HTTP API: `http://host:port`, `https://host:port`, `unix:///path`; a bare `host:port` is plain \
              HTTP",
    variable: Some("CONSUL_HTTP_ADDR"),
    value: |config| Value::text(&config.consul.address),
    ..Key::TEXT
};
const TOKEN: Key = Key {
    name: "token",
    example: r#""…""#,
    meaning: "the ACL token itself; prefer `token_file`, which can be rotated",
    variable: Some("CONSUL_HTTP_TOKEN"),
    value: |config| Value::secret(config.consul.token.as_ref()),
    ..Key::TEXT
};
const TOKEN_FILE: Key = Key {
    name: "token_file",
    example: r#""/etc/causeway/consul.token""#,
    meaning: "a file that holds the ACL token; not together with `token`",
    variable: Some("CONSUL_HTTP_TOKEN_FILE"),
    value: |config| Value::path(config.consul.token_file.as_ref()),
    ..FILE
};
const HTTP_AUTH: Key = Key {
    name: "http_auth",
    kind: Kind::Text("`user:password`"),
    example: r#""user:password""#,
    meaning: "HTTP basic authentication",
    variable: Some("CONSUL_HTTP_AUTH"),
    value: |config| Value::secret(config.consul.http_auth.as_ref()),
    ..Key::TEXT
};
const CA_FILE: Key = Key {
    name: "ca_file",
    example: r#""/etc/causeway/consul-ca.pem""#,
    meaning: "trusted CA certificates, PEM; with neither this nor `ca_path` the system's are trusted",
    variable: Some("CONSUL_CACERT"),
    value: |config| Value::path(config.consul.tls.ca_file.as_ref()),
    ..FILE
};
const CA_PATH: Key = Key {
    name: "ca_path",
    example: r#""/etc/causeway/consul-ca""#,
    meaning: "a folder of trusted CA certificates, PEM",
    variable: Some("CONSUL_CAPATH"),
    value: |config| Value::path(config.consul.tls.ca_path.as_ref()),
    ..FILE
};
const CERT_FILE: Key = Key {
    name: "cert_file",
    example: r#""/etc/causeway/consul-client.pem""#,
    meaning: "client certificate, PEM; needs `key_file`",
    variable: Some("CONSUL_CLIENT_CERT"),
    value: |config| Value::path(config.consul.tls.cert_file.as_ref()),
    ..FILE
};
const KEY_FILE: Key = Key {
    name: "key_file",
    example: r#""/etc/causeway/consul-client-key.pem""#,
    meaning: "the key of that certificate, PEM; needs `cert_file`",
    variable: Some("CONSUL_CLIENT_KEY"),
    value: |config| Value::path(config.consul.tls.key_file.as_ref()),
    ..FILE
};
const TLS_SERVER_NAME: Key = Key {
    name: "tls_server_name",
    kind: Kind::Text("host name"),
    example: r#""server.dc1.consul""#,
    unset: "the host of `address`",
    meaning: "the name sent to the server and looked for in its certificate",
    variable: Some("CONSUL_TLS_SERVER_NAME"),
    value: |config| Value::optional(config.consul.tls.server_name.as_ref()),
    ..Key::TEXT
};
const TLS_VERIFY: Key = Key {
    name: "tls_verify",
    kind: Kind::Flag,
    example: "true",
    meaning: "whether the server's certificate is verified",
    needs_another: true,
    variable: Some("CONSUL_HTTP_SSL_VERIFY"),
    value: |config| Value::Flag(config.consul.tls.verify),
    ..Key::TEXT
};
const MAX_CONNECTIONS: Key = Key {
    name: "max_connections",
    kind: Kind::Number("connections", 1..=MAX_CONNECTIONS_LIMIT),
    example: "128",
    meaning: "connections open at once over plain HTTP/1.1",
    more: "Consul closes those beyond `limits.http_max_conns_per_client` (200 by default), which all clients of one \
           address share",
    value: |config| Value::count(config.consul.max_connections),
    ..Key::TEXT
};

/// A path whose file is read again when it changes.
const FILE: Key = Key { kind: Kind::Text("path"), effect: Effect::RestartContentsAtOnce, ..Key::TEXT };

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
    if let Some(number) = section.number(&MAX_CONNECTIONS) {
        settings.max_connections = usize::try_from(number).unwrap_or(usize::MAX);
    }
    read_tls(&mut section, &mut settings);
    settings
}

/// One of the file's two ways to give a token replaces both of the environment's.
fn read_token(section: &mut Reading<'_, '_>, settings: &mut ConsulSettings) {
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

fn read_tls(section: &mut Reading<'_, '_>, settings: &mut ConsulSettings) {
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
