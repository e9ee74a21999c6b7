use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<ConsulSettings, Vec<String>> {
    ConsulSettings::from_env(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

#[test]
fn every_variable_is_honoured() {
    let settings = read(&[
        ("CONSUL_HTTP_ADDR", "10.0.0.1:8501"),
        ("CONSUL_HTTP_TOKEN_FILE", "/run/token"),
        ("CONSUL_HTTP_AUTH", "ann"),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_HTTP_SSL_VERIFY", "0"),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
        ("CONSUL_CACERT", "ca.pem"),
        ("CONSUL_CAPATH", "cas"),
        ("CONSUL_CLIENT_CERT", "c.pem"),
        ("CONSUL_CLIENT_KEY", "k.pem"),
        ("CONSUL_NAMESPACE", "default"),
        ("CONSUL_PARTITION", ""),
    ])
    .unwrap();
    assert_eq!(settings.address, ConsulAddress::Https { authority: "10.0.0.1:8501".into() });
    assert_eq!(settings.token_file, Some("/run/token".into()));
    assert_eq!(settings.http_auth.unwrap().expose(), "ann:");
    let tls = settings.tls;
    assert!(!tls.verify);
    assert_eq!(tls.server_name.as_deref(), Some("server.dc1.consul"));
    assert_eq!((tls.ca_file, tls.ca_path), (Some("ca.pem".into()), Some("cas".into())));
    assert_eq!((tls.cert_file, tls.key_file), (Some("c.pem".into()), Some("k.pem".into())));
}

#[test]
fn the_token_itself_wins_over_its_file() {
    let settings = read(&[("CONSUL_HTTP_TOKEN", "hush"), ("CONSUL_HTTP_TOKEN_FILE", "/run/token")]).unwrap();
    assert_eq!(settings.token.as_ref().unwrap().expose(), "hush");
    assert_eq!(settings.token_file, None);
    assert!(!format!("{settings:?}").contains("hush"));
}

#[test]
fn all_problems_come_at_once() {
    let problems = read(&[
        ("CONSUL_HTTP_ADDR", "ftp://x"),
        ("CONSUL_HTTP_SSL", "maybe"),
        ("CONSUL_NAMESPACE", "team"),
        ("CONSUL_PARTITION", "p"),
    ])
    .unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn addresses_are_read_and_shown() {
    for (text, shown) in [
        ("127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("http://consul.test", "http://consul.test:80"),
        ("https://consul.test/", "https://consul.test:443"),
        ("https://[::1]:8501", "https://[::1]:8501"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
    ] {
        assert_eq!(ConsulAddress::parse(text).unwrap().to_string(), shown);
    }
    for text in ["", "unix://", "http://", "host:99999", "host:0", "a b:1", "http://h:1/path", "user@host:1"]
    {
        assert!(ConsulAddress::parse(text).is_err(), "{text}");
    }
}
