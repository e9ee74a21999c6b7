//! Configuration files with problems.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::assert_says;
use crate::rig::parts::run;

const BAD: &str = "\
[consul]
adress = \"http://127.0.0.1:8500\"
max_connections = 0

[xds]
socket_mode = \"0666\"
tcp = \"0.0.0.0:18502\"

[http]
listen = \"localhost\"

[log]
level = \"loud\"
";

#[test]
fn every_problem_is_told_at_once_with_its_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BAD).unwrap();
    let name = file.to_str().unwrap();
    let checked = run(&["check-config", name]);
    let refused = run(&["agent", "--config", name]);
    assert_eq!((checked.code, refused.code), (Some(64), Some(64)), "{checked:?} {refused:?}");
    assert_eq!(checked.err, refused.err);
    assert_eq!(checked.out, "");
    let lines: Vec<&str> = checked.err.lines().collect();
    let expected = [
        (2, "adress", "address"),
        (3, "max_connections", "1"),
        (6, "every local user", "socket_group"),
        (7, "not loopback", "127.0.0.1:18502"),
        (10, "localhost", "127.0.0.1:18500"),
        (13, "loud", "info"),
    ];
    assert_eq!(lines.len(), expected.len(), "{}", checked.err);
    for (line, (number, problem, remedy)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("{name}:{number}:")), "{line}");
        assert_says(line, &[problem, "; ", remedy]);
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\n\n[http\nlisten = 7\n").unwrap();
    let ended = run(&["check-config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert_says(&ended.err, &["agent.toml:2:"]);
}

#[test]
fn a_missing_file_is_no_input() {
    for args in [&["check-config", "/nowhere/agent.toml"][..], &["agent", "--config", "/nowhere/agent.toml"]]
    {
        let ended = run(args);
        assert_eq!(ended.code, Some(66), "{ended:?}");
        assert_says(&ended.err, &["/nowhere/agent.toml", "check the path"]);
    }
}

#[test]
fn a_socket_path_beyond_the_kernels_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, format!("xds.socket = \"/run/{}/xds.sock\"\n", "long/".repeat(30))).unwrap();
    let ended = run(&["agent", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert_says(&ended.err, &["agent.toml:1:", "107", "choose a shorter path"]);
}

#[test]
fn a_good_file_is_ok() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/agent.toml");
    let ended = run(&["check-config", example]);
    assert_eq!((ended.code, ended.out), (Some(0), format!("{example}: ok\n")), "{}", ended.err);
}

#[test]
fn what_a_good_file_lacks_here_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let token = folder.path().join("token");
    std::fs::write(&token, "secret-of-all\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "[consul]\ntoken_file = \"{}\"\n[xds]\nsocket = \"{}/none/xds.sock\"\nsocket_group = \"no-such-group\"\n",
        token.display(),
        folder.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let ended = run(&["check-config", name]);
    assert_eq!((ended.code, ended.out), (Some(0), format!("{name}: ok\n")), "{}", ended.err);
    let lines: Vec<&str> = ended.err.lines().collect();
    let expected = [
        (2, "every local user can read", "chmod 0600"),
        (4, "/none, which does not exist", "make it"),
        (5, "no such group", "groupadd --system no-such-group"),
    ];
    assert_eq!(lines.len(), expected.len(), "{}", ended.err);
    for (line, (number, problem, remedy)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("{name}:{number}:")), "{line}");
        assert_says(line, &["warning: [", problem, "; ", remedy]);
        assert!(!line.contains("secret-of-all"), "{line}");
    }

    let json = run(&["check-config", "--json", name]);
    assert_eq!((json.code, json.err.as_str()), (Some(0), ""), "{json:?}");
    let document: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&document["ok"], document["findings"].as_array().unwrap().len()), (&Value::Bool(true), 3));
    assert_eq!(document["findings"][0]["severity"], "warning");
    assert_eq!(document["findings"][2]["key"], "xds.socket_group");
    assert_eq!(document["findings"][2]["line"], 5);
}

#[test]
fn programs_get_problems_as_json_with_the_same_codes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BAD).unwrap();
    let bad = run(&["check-config", "--json", file.to_str().unwrap()]);
    assert_eq!((bad.code, bad.err.as_str()), (Some(64), ""), "{bad:?}");
    let document: Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!(document["ok"], false);
    assert_eq!(document["findings"].as_array().unwrap().len(), 6);
    assert_eq!(document["findings"][0]["severity"], "error");
    let none = run(&["check-config", "--json", "/nowhere/agent.toml"]);
    assert_eq!((none.code, none.err.as_str()), (Some(66), ""), "{none:?}");
    assert_says(&none.out, &["\"ok\": false", "check the path"]);
}

#[test]
fn what_systemd_shows_the_running_agent_only_is_no_reason_for_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "consul.token_file = \"/run/credentials/causeway-of-no-machine.service/token\"\n")
        .unwrap();
    let name = file.to_str().unwrap();
    let ended = run(&["check-config", name]);
    assert_eq!((ended.code, ended.out), (Some(0), format!("{name}: ok\n")), "{}", ended.err);
    assert!(!ended.err.contains("[consul]"), "{}", ended.err);
}
