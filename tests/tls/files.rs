//! The files that `causeway tls` writes and reads: names, modes, owners, what is never replaced, exit codes.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use causeway::tls::{
    authority::{Authority, NewAuthority},
    x509::{lifetime::DAY, pem::Contents},
};
use serde_json::Value;

use super::{Set, findings, now, tls};
use crate::rig::parts::{causeway, tool};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn files_are_named_as_consuls_tool_names_them() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let steps: &[&[&str]] = &[
        &["ca", "create", "-domain=example"],
        &["cert", "create", "-server", "-domain=example", "-dc=east", "-node=n1"],
        &["cert", "create", "-server", "-domain=example", "-dc=east", "-additional-dnsname=a.test"],
        &["cert", "create", "-client", "-domain=example", "-additional-ipaddress=10.0.0.1"],
        &["cert", "create", "-cli", "-domain=example", "-days=3"],
    ];
    for step in steps {
        let theirs = Command::new(tool("consul", "CONSUL_BIN"))
            .env_clear()
            .current_dir(&theirs)
            .arg("tls")
            .args(*step)
            .output()
            .unwrap();
        assert!(theirs.status.success(), "{theirs:?}");
        // The same flags, with two dashes.
        let own: Vec<String> = step
            .iter()
            .map(|arg| if arg.starts_with('-') { format!("-{arg}") } else { (*arg).to_owned() })
            .collect();
        let dir = ours.path().to_str().unwrap();
        let args: Vec<&str> = own.iter().map(String::as_str).chain(["--dir", dir]).collect();
        tls(0, &args);
    }
    assert_eq!(names(ours.path()), names(theirs.path()));
    for name in names(ours.path()) {
        let is_key = name.ends_with("-key.pem");
        assert_eq!(mode(&ours.path().join(&name)) & 0o077 == 0, is_key, "{name}");
    }
    let both = |name: &str| [ours.path(), theirs.path()].map(|folder| super::first(&folder.join(name)));
    for stem in ["east-server-example-0", "east-server-example-1", "dc1-client-example-0"] {
        let [mut own, mut consuls] = both(&format!("{stem}.pem")).map(|one| one.names());
        own.sort();
        consuls.sort();
        assert_eq!(own, consuls, "{stem}");
        let [own, consuls] = both(&format!("{stem}.pem"));
        assert_eq!((own.subject, own.usages), (consuls.subject, consuls.usages), "{stem}");
    }
}

#[test]
fn nothing_is_replaced_and_the_owner_is_told() {
    let set = Set::ca();
    let before = fs::read(set.path("consul-agent-ca-key.pem")).unwrap();
    let refused = tls(1, &["ca", "create", "--dir", set.dir()]);
    assert!(refused.err.contains("exists and is not replaced"), "{refused:?}");
    assert_eq!(fs::read(set.path("consul-agent-ca-key.pem")).unwrap(), before);
    let made = tls(0, &["cert", "create", "--server", "--dir", set.dir()]);
    assert!(
        made.out.contains("-key.pem (mode 0600, owner ") && made.err.contains("note: who holds"),
        "{made:?}"
    );
    tls(0, &["cert", "create", "--server", "--dir", set.dir()]);
    assert!(set.path("dc1-server-consul-1-key.pem").exists());
    // A free number needs both files free.
    fs::remove_file(set.path("dc1-server-consul-0.pem")).unwrap();
    tls(0, &["cert", "create", "--server", "--dir", set.dir()]);
    assert!(set.path("dc1-server-consul-2.pem").exists() && !set.path("dc1-server-consul-0.pem").exists());

    let out = set.path("gossip.json");
    tls(0, &["gossip", "--out", out.to_str().unwrap()]);
    assert_eq!(mode(&out), 0o600);
    let text: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(text["encrypt"].as_str().unwrap().len(), 44);
    tls(1, &["gossip", "--out", out.to_str().unwrap()]);
}

/// A user of no name and no rights.
const NOBODY: u32 = 65_534;

#[test]
fn files_are_given_to_whom_one_may_give_them() {
    let set = Set::ca();
    if nix::unistd::geteuid().is_root() {
        tls(0, &["cert", "create", "--client", "--dir", set.dir(), "--owner", &format!("{NOBODY}:7")]);
        let key = fs::metadata(set.path("dc1-client-consul-0-key.pem")).unwrap();
        assert_eq!((key.uid(), key.gid(), key.mode() & 0o777), (NOBODY, 7, 0o600));
        // A renewal by root leaves them to their owner.
        tls(0, &["renew", set.dir(), "--all"]);
        let key = fs::metadata(set.path("dc1-client-consul-0-key.pem")).unwrap();
        assert_eq!((key.uid(), key.gid(), key.mode() & 0o777), (NOBODY, 7, 0o600));
        assert_eq!(findings(set.folder.path(), &["--owner", &format!("{NOBODY}:7")]).len(), 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = causeway();
    command.args(["tls", "ca", "create", "--owner", "0:0", "--dir"]).arg(folder.path());
    if nix::unistd::geteuid().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("the build's folder must be open to other users of this machine");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("run this as root"), "{said}");
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_key_is_closed_to_other_users() {
    let set = Set::whole();
    fs::set_permissions(set.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(findings(set.folder.path(), &[]), []);
    let key = set.path("dc1-server-consul-0-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(findings(set.folder.path(), &[]), []);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(findings(set.folder.path(), &[]), [("problem".into(), "key-open".into())]);
    let told = tls(3, &["verify", set.dir()]);
    assert!(told.out.contains("chmod 600 ") && told.out.contains("1 problem, no warnings"), "{told:?}");
}

#[test]
fn inspect_tells_what_a_file_is() {
    let set = Set::whole();
    let told = tls(0, &["inspect", set.path("dc1-server-consul-0.pem").to_str().unwrap()]).out;
    for part in [
        "a Consul server (server): datacenter dc1, domain consul, node s1",
        "server.dc1.consul, s1.server.dc1.consul, localhost, 127.0.0.1",
        "TLS server, TLS client",
        "consul-agent-ca.pem)",
        " days left, renewal due from 20",
        "dc1-server-consul-0-key.pem fits (mode 0600, owner ",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    let told = tls(0, &["inspect", set.path("consul-agent-ca-key.pem").to_str().unwrap()]).out;
    assert!(told.contains("a private key; fits ") && told.contains("consul-agent-ca.pem"), "{told}");
    let json = tls(0, &["inspect", set.dir(), "--json"]).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 6);
    let server =
        json.as_array().unwrap().iter().find(|one| one["certificates"][0]["profile"] == "server").unwrap();
    let server = &server["certificates"][0];
    assert_eq!(
        (&server["datacenter"], &server["node"], &server["key"]["state"]),
        (&"dc1".into(), &"s1".into(), &"fits".into())
    );
    assert!(server["not_after"].as_str().unwrap().ends_with('Z'), "{server}");
    fs::write(set.path("junk.pem"), "hello").unwrap();
    let told = tls(1, &["inspect", set.path("junk.pem").to_str().unwrap()]);
    assert!(told.err.contains("neither a certificate nor a private key"), "{told:?}");
}

/// As other tools lay them out: the certificate alone and with its way to the CA, and one key for both.
#[test]
fn files_that_share_a_key_are_renewed_together_or_not_at_all() {
    let set = Set::whole();
    let stem = |ending: &str| set.path(&format!("dc1-cli-consul-0{ending}"));
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    fs::rename(stem(".pem"), set.path("cert.pem")).unwrap();
    fs::rename(stem("-key.pem"), set.path("privkey.pem")).unwrap();
    let chain = text(&set.path("cert.pem")) + &text(&set.path("consul-agent-ca.pem"));
    fs::write(set.path("fullchain.pem"), chain).unwrap();
    let old = set.certificate("cert.pem");
    let done = tls(0, &["renew", set.dir(), "--all"]);
    assert_eq!(done.out.matches("renewed ").count(), 3, "{done:?}");
    let new = set.certificate("cert.pem");
    assert!(new != old && set.certificate("fullchain.pem") == new);
    let key = Contents::read(text(&set.path("privkey.pem")).as_bytes()).keys.remove(0);
    assert_eq!(key.public(), new.public_key);
    assert!(text(&set.path("fullchain.pem")).ends_with(&text(&set.path("consul-agent-ca.pem"))));
    // A second copy of the key would stay behind.
    fs::copy(set.path("privkey.pem"), set.path("copy.key")).unwrap();
    let stuck = tls(3, &["renew", set.dir(), "--all"]);
    assert_eq!(stuck.out.matches("STUCK ").count(), 2, "{stuck:?}");
    assert!(stuck.out.contains("privkey.pem") && stuck.out.contains("ln -sf"), "{stuck:?}");
    assert!(set.certificate("cert.pem") == new && set.certificate("fullchain.pem") == new);
}

#[test]
fn a_folder_without_its_cas_key_says_where_to_renew() {
    let set = Set::whole();
    fs::remove_file(set.path("consul-agent-ca-key.pem")).unwrap();
    tls(0, &["renew", set.dir()]);
    let stuck = tls(3, &["renew", set.dir(), "--before", "400d", "--json"]);
    let json: Value = serde_json::from_str(&stuck.out).unwrap();
    assert_eq!(json["certificates"][0]["action"], "stuck", "{json}");
    assert!(json["certificates"][0]["problem"].as_str().unwrap().contains("the key of its CA"), "{json}");
    assert_eq!(json["consul"]["reload"], "not-needed");
}

#[test]
fn a_ca_near_its_end_is_told_loudly_with_the_way_out() {
    let set = Set { folder: tempfile::tempdir().unwrap() };
    let request = NewAuthority { lifetime: DAY * 1825, ..NewAuthority::default() };
    let (_, ca) = Authority::create(&request, now().minus(DAY * 1700)).unwrap();
    fs::write(set.path("consul-agent-ca.pem"), ca.pem()).unwrap();
    fs::write(set.path("consul-agent-ca-key.pem"), ca.key.expose()).unwrap();
    fs::set_permissions(set.path("consul-agent-ca-key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let made = tls(0, &["cert", "create", "--server", "--node", "s1", "--dir", set.dir()]);
    assert!(made.err.contains("with its CA"), "{made:?}");
    // It is no longer than its CA lasts, and yet it counts as one that is to have its year.
    for all in [&["--all"][..], &[]] {
        let args: Vec<&str> = ["renew", set.dir()].iter().chain(all).copied().collect();
        let told = tls(5, &args);
        assert!(told.err.contains("ENDS IN 12") && told.err.contains("causeway tls ca create"), "{told:?}");
    }
    assert_eq!(findings(set.folder.path(), &[]), [("warning".into(), "ends-soon".into())]);
}

#[test]
fn wrong_use_is_told() {
    let set = Set::ca();
    for (code, args, says) in [
        (2, &["cert", "create"][..], "--server"),
        (2, &["cert", "create", "--server", "--client"], "cannot be used with"),
        (2, &["cert", "create", "--server", "--dc", "../x"], "letters"),
        (2, &["cert", "create", "--server", "--days", "0"], "whole days"),
        (2, &["renew", "d", "--before", "soon"], "30d"),
        (2, &["ca", "create", "--additional-name-constraint", "x"], "--name-constraint"),
        (2, &["ca", "create", "--owner", "no-such-user"], "no user"),
        (1, &["cert", "create", "--cli", "--node", "n1", "--dir", set.dir()], "names no node"),
        (
            1,
            &["cert", "create", "--cli", "--ca", "/nowhere.pem", "--dir", set.dir()],
            "causeway tls ca create",
        ),
        (1, &["verify", "/nowhere"], "check the path"),
        (1, &["renew", set.dir()], "no certificate to renew"),
        (1, &["gossip", "--out", "/tmp/x.hcl"], ".json"),
    ] {
        let ended = tls(code, args);
        assert!(ended.err.contains(says), "{args:?}: {says} is not in {ended:?}");
    }
}
