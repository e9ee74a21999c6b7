use std::{collections::BTreeMap, fs, path::PathBuf};

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Each `tests/config/*.toml` and the `.txt` beside it: what is said of it. A line `# env NAME=VALUE` sets a variable.
#[test]
fn problems_are_told_as_recorded() {
    let mut cases = 0;
    for entry in fs::read_dir(root().join("tests/config")).expect("tests/config") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let text = fs::read_to_string(&path).expect("a case");
        let env: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.strip_prefix("# env ")?.split_once('=')).collect();
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let told = match parse(&text, &|name| env.get(name).map(|value| (*value).to_owned())) {
            Ok(_) => "ok\n".to_owned(),
            Err(problems) => format!("{}\n", ConfigError::Invalid { file, problems }),
        };
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &told).expect("write the golden");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(told, expected, "{}: UPDATE_GOLDEN=1 rewrites it", golden.display());
    }
    assert!(cases >= 5, "only {cases} cases");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("", &no_env), Ok(Config::default()));
}

#[test]
fn the_example_is_the_defaults_spelt_out_and_has_every_key() {
    let text = fs::read_to_string(root().join("docs/examples/agent.toml")).expect("the example");
    assert_eq!(parse(&text, &no_env), Ok(Config::default()));
    for key in every_key() {
        let (_, name) = key.split_once('.').expect("section.key");
        let is_there = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{name} ="));
        assert!(text.lines().any(is_there), "docs/examples/agent.toml lacks {key}");
    }
}

#[test]
fn the_reference_has_every_key() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).expect("the reference");
    for key in every_key() {
        let (_, name) = key.split_once('.').expect("section.key");
        assert!(text.contains(&format!("| `{name}` |")), "docs/configuration.md lacks {key}");
    }
}

/// The keys that reloading compares are all keys, since they are told apart by reading a file with each of them.
fn every_key() -> Vec<&'static str> {
    let diff = Config::reload_diff(&Config::default(), &different());
    diff.applied.into_iter().chain(diff.needs_restart).collect()
}

fn different() -> Config {
    let text = r#"
[consul]
address = "https://10.0.0.1:8501"
token_file = "/t"
http_auth = "u:p"
ca_file = "/ca"
ca_path = "/cas"
cert_file = "/cert"
key_file = "/key"
tls_server_name = "server.dc1.consul"
tls_verify = false
max_connections = 7
[xds]
socket = "/s"
socket_group = ""
socket_mode = "600"
tcp = "127.0.0.1:18502"
[http]
listen = "127.0.0.1:1"
[log]
level = "warn,causeway::consul=debug"
format = "json"
[telemetry]
otlp_endpoint = "http://127.0.0.1:4317"
service_name = "agent"
[mesh]
default_intention_policy = "allow"
[shutdown]
drain_ms = 0
[state]
dir = "/state"
persist_keys = false
token_max_age_s = 0
"#;
    let mut config = parse(text, &no_env).expect("all of it is good");
    config.consul.token = Some("t".into());
    config
}

#[test]
fn all_keys_differ_and_two_of_them_reload() {
    let diff = Config::reload_diff(&Config::default(), &different());
    assert_eq!(diff.applied, ["log.level", "mesh.default_intention_policy"]);
    assert_eq!(diff.needs_restart.len(), 23);
    let running = Config::default().reloaded(&different());
    assert_eq!(Config::reload_diff(&running, &different()).applied, Vec::<&str>::new());
    assert_eq!(Config::reload_diff(&running, &different()).needs_restart, diff.needs_restart);
}

#[test]
fn the_file_wins_over_the_environment_except_for_the_log() {
    let env = |name: &str| match name {
        "CONSUL_HTTP_ADDR" => Some("10.0.0.9:8500".into()),
        "CONSUL_HTTP_TOKEN" => Some("from-env".into()),
        "CAUSEWAY_LOG" => Some("debug".to_owned()),
        _ => None,
    };
    let base = parse("", &env).expect("the environment alone");
    assert_eq!(base.consul.address.to_string(), "http://10.0.0.9:8500");
    let text = "[consul]\naddress = \"127.0.0.1:8500\"\ntoken_file = \"/t\"\n[log]\nlevel = \"error\"\n";
    let config = parse(text, &env).expect("the file over it");
    assert_eq!(config.consul.address.to_string(), "http://127.0.0.1:8500");
    assert_eq!(config.consul.token, None);
    assert_eq!(config.consul.token_file, Some("/t".into()));
    assert_eq!(config.log.level.to_string(), "debug");
}

#[test]
fn a_missing_file_names_itself_and_the_remedy() {
    let error = load(Some(Path::new("/nowhere/agent.toml")), &no_env).expect_err("no such file");
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert!(error.to_string().starts_with("read /nowhere/agent.toml: "), "{error}");
}

#[test]
fn a_bare_level_is_about_causeways_own_lines() {
    let directives =
        |text: &str| text.parse::<crate::config::log::LogFilter>().map(|filter| filter.directives());
    assert_eq!(directives("debug").as_deref(), Ok("warn,causeway=debug"));
    assert_eq!(directives("error").as_deref(), Ok("error"));
    assert_eq!(directives("info,h2=debug").as_deref(), Ok("info,h2=debug"));
    assert!(directives("debgu").is_err());
    assert!(directives("info,h2=loud").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}(\n\\[?[a-z]{0,6}\\]?( = )?[\"0-9a-z.\\[{]{0,8}){0,6}") {
        let _ = parse(&text, &no_env);
    }
}
