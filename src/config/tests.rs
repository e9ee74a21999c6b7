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
fn the_example_is_the_defaults_and_its_commented_lines_are_good_too() {
    let example = reference::example();
    assert_eq!(parse(&example, &no_env), Ok(Config::default()));
    for (section, key) in key::all() {
        let text = format!("[{section}]\n{} = {}\n", key.name, key.example);
        let told = parse(&text, &no_env).err().unwrap_or_default();
        // Some keys are good only beside others.
        let is_lone = |problem: &Problem| problem.problem.contains("is given");
        assert!(told.iter().all(is_lone), "{text}{told:?}");
        assert!(
            example.contains(&format!("\n{} = ", key.name))
                || example.contains(&format!("# {} = ", key.name))
        );
    }
}

#[test]
fn a_declaration_is_whole() {
    for (section, key) in key::all() {
        let name = format!("{section}.{}", key.name);
        assert!(!key.meaning.is_empty() && !key.meaning.ends_with('.') && !key.more.ends_with('.'), "{name}");
        assert!(!key.meaning.contains('|') && !key.more.contains('|'), "{name} breaks its table");
        let is_shown = (key.value)(&Config::default()).written();
        assert!(is_shown.is_none_or(|default| default == key.example), "{name}: the example is the default");
        let unit = match (&key.kind, key.name) {
            (key::Kind::Number(unit, _), name) => Some((*unit, name.ends_with("_ms"), name.ends_with("_s"))),
            _ => None,
        };
        if let Some((unit, is_ms, is_s)) = unit {
            assert_eq!((is_ms, is_s), (unit == "milliseconds", unit == "seconds"), "{name}");
        }
    }
}

/// A file in which every key has another value than its default, apart from `token`, which `token_file` excludes.
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
tcp_max_age_s = 0
max_streams = 9
new_streams_per_second = 7
token_recheck_ms = 1000
[http]
listen = "127.0.0.1:1"
allow_write_http_from = ["10.0.0.0/8"]
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
[sync]
enabled = true
datacenters = ["a", "b"]
sessions_home = "a"
listen = "127.0.0.1:2"
advertise = "10.0.0.7"
gateway_mode = "remote"
forward_deadline_ms = 3000
commit_deadline_ms = 3000
audit_interval_s = 1
max_staleness_s = 1
max_value_bytes = 1
journal_max_entries = 2000
journal_max_age_s = 60
commit_linger_ms = 1
delete_guard_keys = 1
delete_guard_percent = 1
lock_ttl_s = 20
lock_delay_s = 1
[[sync.prefix]]
prefix = "config/"
home = "b"
"#;
    let mut config = parse(text, &no_env).expect("all of it is good");
    config.consul.token = Some("t".into());
    config
}

#[test]
fn every_declared_key_is_read_and_compared() {
    let diff = Config::reload_diff(&Config::default(), &different());
    let compared: Vec<&String> = diff.applied.iter().chain(&diff.needs_restart).collect();
    for (section, key) in key::all() {
        let name = format!("{section}.{}", key.name);
        assert!(
            compared.contains(&&name),
            "{name} is declared, and nothing reads it or `value` looks elsewhere"
        );
    }
    assert_eq!(compared.len(), key::all().count());
}

#[test]
fn a_reload_takes_over_what_it_says_and_nothing_else() {
    let running = Config::default().reloaded(&different());
    let diff = Config::reload_diff(&Config::default(), &different());
    assert_eq!(Config::reload_diff(&running, &different()).applied, Vec::<String>::new());
    assert_eq!(Config::reload_diff(&running, &different()).needs_restart, diff.needs_restart);
    assert_eq!(Config::reload_diff(&Config::default(), &running).applied, diff.applied);
    assert_eq!(Config::reload_diff(&Config::default(), &running).needs_restart, Vec::<String>::new());
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
