use std::{collections::BTreeMap, path::PathBuf};

use super::*;
use crate::config;

/// A machine with these paths; what is not named does not exist.
#[derive(Default)]
struct Made(BTreeMap<PathBuf, Result<Found, io::ErrorKind>>);

impl Machine for Made {
    fn look(&self, path: &Path) -> io::Result<Found> {
        let found = self.0.get(path).copied().unwrap_or(Err(io::ErrorKind::NotFound));
        found.map_err(io::Error::from)
    }

    fn has_group(&self, name: &str) -> bool {
        name == "causeway-envoy"
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        ip.to_string() != "192.0.2.1"
    }

    fn user(&self) -> String {
        "alice".into()
    }
}

const FILE: Kind = Kind::File { is_blank: false };

/// What is at a path, with its permissions.
type Seen = Result<(Kind, u32), io::ErrorKind>;

fn machine(paths: &[(&str, Seen)]) -> Made {
    let found = |it: &Seen| it.map(|(kind, mode)| Found { kind, mode });
    Made(paths.iter().map(|(path, it)| (PathBuf::from(path), found(it))).collect())
}

fn told(text: &str, machine: &Made, inline: Option<&'static str>) -> Vec<String> {
    let config = config::parse(text, &|_| None).expect("a good file");
    let advice = on(&config, Path::new("/etc/causeway/agent.toml"), inline, machine);
    advice.into_iter().map(|it| format!("{}: {}; {}", it.key, it.problem, it.remedy)).collect()
}

#[test]
fn the_defaults_are_quiet_also_before_the_first_start() {
    assert_eq!(told("", &Made::default(), None), Vec::<String>::new());
    let credentials = "consul.token_file = \"/run/credentials/causeway.service/consul.token\"";
    assert_eq!(told(credentials, &Made::default(), None), Vec::<String>::new());
}

#[test]
fn files_that_are_not_there_or_not_for_this_user_are_named() {
    let text = "[consul]\naddress = \"https://127.0.0.1:8501\"\ntoken_file = \"/t\"\nca_file = \"/ca\"\n\
        cert_file = \"/cert\"\nkey_file = \"/key\"\nca_path = \"/cas\"\n";
    let machine = machine(&[
        ("/t", Err(io::ErrorKind::PermissionDenied)),
        ("/ca", Ok((Kind::Folder, 0o755))),
        ("/cert", Ok((Kind::File { is_blank: true }, 0o644))),
        ("/key", Ok((FILE, 0o644))),
    ]);
    assert_eq!(
        told(text, &machine, None),
        [
            "consul.token_file: names /t, which user alice cannot read; let the agent's user read it; \
             `sudo -u causeway causeway check-config FILE` looks as that",
            "consul.ca_file: names /ca, which is not a file; name a file",
            "consul.cert_file: names /cert, which is empty; fill it",
            "consul.key_file: names /key, which every local user can read; `chmod 0600 /key`",
            "consul.ca_path: names /cas, which does not exist on this machine; make it, or correct the path",
        ]
    );
}

#[test]
fn what_envoys_and_people_could_not_reach_is_named() {
    let text = "[xds]\nsocket = \"/srv/mesh/xds.sock\"\nsocket_group = \"envoys\"\nsocket_mode = \"0640\"\n\
        [http]\nlisten = \"192.0.2.1:18500\"\n";
    assert_eq!(
        told(text, &Made::default(), None),
        [
            "xds.socket: is in /srv/mesh, which does not exist on this machine; make it, or correct the path",
            "xds.socket_group: is envoys, and this machine has no such group; create it with \
             `groupadd --system envoys`, or name another",
            "xds.socket_mode: is 0640, with which no member of envoys can connect; write socket_mode = \"0660\"",
            "http.listen: is 192.0.2.1, which no interface of this machine has; correct the address",
            "http.listen: is not loopback: whoever reaches it can read the status; listen = \"127.0.0.1:18500\" keeps it local",
        ]
    );
    let in_the_way = machine(&[("/run/causeway/xds.sock", Ok((FILE, 0o644)))]);
    assert_eq!(
        told("", &in_the_way, None),
        [
            "xds.socket: is /run/causeway/xds.sock, which exists and is not a socket; remove it, or choose another path"
        ]
    );
}

#[test]
fn a_secret_in_a_file_for_all_is_named() {
    let text = "consul.token = \"t\"";
    let open = machine(&[("/etc/causeway/agent.toml", Ok((FILE, 0o644)))]);
    assert_eq!(
        told(text, &open, Some("consul.token")),
        [
            "consul.token: is a secret in a file that every local user can read; `chmod o= /etc/causeway/agent.toml`, or \
          keep it in a file of its own"
        ]
    );
    let closed = machine(&[("/etc/causeway/agent.toml", Ok((FILE, 0o640)))]);
    assert_eq!(told(text, &closed, Some("consul.token")), Vec::<String>::new());
}

#[test]
fn only_what_the_unit_makes_may_be_hidden_from_a_check() {
    const TOKEN: &str = "/run/credentials/causeway.service/credentials_consul-token";
    let hidden = |key: &str, path: &str, machine: &Made| {
        let text = format!("[consul]\naddress = \"https://127.0.0.1:8501\"\n{key} = \"{path}\"\n");
        let config = config::parse(&text, &|_| None).expect("a good file");
        is_hidden(&config.consul, machine)
    };
    let seen = machine(&[(TOKEN, Ok((FILE, 0o400)))]);
    let denied = machine(&[(TOKEN, Err(io::ErrorKind::PermissionDenied))]);
    for key in ["token_file", "ca_file", "ca_path"] {
        assert!(hidden(key, TOKEN, &Made::default()), "{key}");
        assert!(hidden(key, TOKEN, &denied), "{key}");
        assert!(!hidden(key, TOKEN, &seen), "{key}");
        assert!(!hidden(key, "/etc/causeway/token", &Made::default()), "{key}");
    }
}
