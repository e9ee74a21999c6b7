//! The Debian package: what is in it, and what dpkg does with it below a folder of the test's own. How its services
//! start, stop and stay up is for `make test-vm`, which has a systemd to ask.
//!
//! One package serves all checks, which run in one test: a process of libtest has no place to delete a shared one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

const VERSION: &str = "0.9.0";
const NEXT: &str = "0.9.1";

/// A built package with its contents laid out.
struct Package {
    dir: TempDir,
    deb: PathBuf,
}

impl Package {
    /// Builds it of the binary that the tests run.
    fn build() -> Self {
        let dir = TempDir::new().unwrap();
        let built = output(
            Command::new(root().join("tools/deb"))
                .env("CAUSEWAY_BINARY", env!("CARGO_BIN_EXE_causeway"))
                .env("DEB_VERSION", VERSION)
                .env("DEB_PROFILE", "dev")
                .env("DEB_DIR", dir.path()),
        );
        let deb = PathBuf::from(built.trim());
        output(Command::new("dpkg-deb").arg("-R").arg(&deb).arg(dir.path().join("tree")));
        Self { dir, deb }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("tree").join(below)
    }
}

/// Names a check after its function.
macro_rules! checks {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn(&Package))),*] };
}

#[test]
fn the_package_and_its_golden_contents() {
    let package = Package::build();
    let checks = checks![
        contents_are_golden,
        it_needs_what_every_debian_has,
        the_licences_of_what_is_linked_are_told,
        settings_survive_upgrade_and_removal_and_keys_survive_a_purge,
        a_purge_leaves_nothing_where_nobody_added_anything,
        bash_completes_what_is_for_people,
    ];
    let failed = checks.map(|(name, check)| {
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&package)));
        println!("{name}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        outcome.is_err().then_some(name)
    });
    let failed: Vec<_> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{failed:?}; their own words are above");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a command prints; it must succeed.
fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{out}\n{err}", done.status);
    out.into_owned()
}

fn field(deb: &Path, name: &str) -> String {
    output(Command::new("dpkg-deb").arg("-f").arg(deb).arg(name)).trim().to_owned()
}

fn contents_are_golden(package: &Package) {
    let listed = output(Command::new("dpkg-deb").arg("-c").arg(&package.deb));
    // Mode, owner, size, day, time, name: sizes and times are not what a golden is about.
    let lines = listed.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}\n", words[0], words[1], words[5..].join(" "))
    });
    let contents: String = lines.collect();
    let golden = root().join("tests/package/contents.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &contents).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(expected == contents, "{} is not what the package holds; `make fix` writes it:\n{contents}", {
        golden.display()
    });
}

fn it_needs_what_every_debian_has(package: &Package) {
    assert_eq!(field(&package.deb, "Version"), VERSION);
    let needed = field(&package.deb, "Depends");
    for dependency in needed.split(", ") {
        let name = dependency.split(' ').next().unwrap();
        assert!(["libc6", "libgcc-s1", "systemd"].contains(&name), "{dependency}, of: {needed}");
    }
}

fn the_licences_of_what_is_linked_are_told(package: &Package) {
    let doc = package.path("usr/share/doc/causeway");
    let copyright = fs::read_to_string(doc.join("copyright")).unwrap();
    for linked in ["linked/ring-", "linked/tokio-", "linked/envoy-types-", "linked/rust-std-"] {
        assert!(copyright.contains(linked), "{linked} is missing");
    }
    for own in ["License: Apache-2.0\n On Debian", "License: MIT\n Permission is hereby granted"] {
        assert!(copyright.contains(own), "{own} is missing");
    }
    for not_linked in ["linked/syn-", "linked/serde_derive-", "linked/proptest-"] {
        assert!(!copyright.contains(not_linked), "{not_linked} leaves nothing in the binary");
    }
    assert!(fs::metadata(doc.join("LICENCES.txt.gz")).unwrap().len() > 10_000);
}

#[test]
fn the_changelog_of_the_package_knows_this_version() {
    let changelog = fs::read_to_string(root().join("debian/changelog")).unwrap();
    let first = format!("causeway ({}) ", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.starts_with(&first),
        "debian/changelog begins with another version than Cargo.toml has"
    );
}

/// A machine that is a folder: dpkg and the package's scripts work below it, as whoever runs the tests.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: TempDir::new().unwrap() };
        for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc/systemd/system", "stubs"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        fs::write(machine.path("var/lib/dpkg/status"), "").unwrap();
        // A systemd that runs here is not this machine's.
        machine.stub("systemctl", "exit 1");
        // Both want to be root, to give files to their owners.
        machine.stub("systemd-sysusers", "");
        machine.stub(
            "systemd-tmpfiles",
            "cd \"$DPKG_ROOT\"/etc/causeway && mkdir -p -m 0700 credentials secrets",
        );
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn stub(&self, name: &str, script: &str) {
        let path = self.path("stubs").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn dpkg(&self, args: &[&str]) -> String {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("stubs").display());
        let forced = ["--force-not-root", "--force-script-chrootless", "--force-depends", "--force-confold"];
        output(
            Command::new("dpkg")
                .arg(format!("--root={}", self.dir.path().display()))
                .args(forced)
                .args(args)
                .env("PATH", path)
                .env("HOME", self.dir.path()),
        )
    }

    fn has(&self, below: &str) -> bool {
        self.path(below).symlink_metadata().is_ok()
    }

    fn text(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }
}

/// The package in a higher version, which brings other settings.
fn next(package: &Package) -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let (tree, deb) = (dir.path().join("tree"), dir.path().join("next.deb"));
    output(Command::new("cp").arg("-a").arg(package.path("")).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap().replace(VERSION, NEXT);
    fs::write(control, text).unwrap();
    fs::write(tree.join("etc/causeway/agent.toml"), "# of the next version\n").unwrap();
    output(Command::new("dpkg-deb").args(["--root-owner-group", "-z1", "-b"]).arg(&tree).arg(&deb));
    (dir, deb.to_str().unwrap().to_owned())
}

fn settings_survive_upgrade_and_removal_and_keys_survive_a_purge(package: &Package) {
    let machine = Machine::new();
    machine.dpkg(&["-i", package.deb.to_str().unwrap()]);
    for link in ["multi-user.target.wants/causeway.target", "causeway.target.wants/causeway.service"] {
        assert!(machine.has(&format!("etc/systemd/system/{link}")), "{link} is missing: not enabled");
    }
    let instance = "etc/systemd/system/causeway.target.wants/causeway-envoy@web.service";
    std::os::unix::fs::symlink("/lib/systemd/system/causeway-envoy@.service", machine.path(instance))
        .unwrap();
    fs::write(machine.path("etc/causeway/agent.toml"), "# of the administrator\n").unwrap();
    fs::write(machine.path("etc/causeway/secrets/consul-token"), "secret").unwrap();
    fs::create_dir_all(machine.path("var/lib/causeway")).unwrap();
    fs::write(machine.path("var/lib/causeway/state"), "").unwrap();

    let (_kept, deb) = next(package);
    machine.dpkg(&["-i", &deb]);
    assert_eq!(machine.text("etc/causeway/agent.toml"), "# of the administrator\n");
    assert!(machine.has("etc/causeway/agent.toml.dpkg-dist"), "the new settings are not beside the old ones");

    machine.dpkg(&["--remove", "causeway"]);
    assert_eq!(machine.text("etc/causeway/agent.toml"), "# of the administrator\n");
    assert!(
        !machine.has("usr/bin/causeway") && machine.has("var/lib/causeway/state") && machine.has(instance)
    );

    let told = machine.dpkg(&["--purge", "causeway"]);
    assert!(told.contains("/etc/causeway holds files that the package did not bring"), "{told}");
    assert_eq!(machine.text("etc/causeway/secrets/consul-token"), "secret");
    for gone in ["etc/causeway/agent.toml", "etc/default/causeway", "var/lib/causeway", instance] {
        assert!(!machine.has(gone), "{gone} is still there");
    }
}

fn a_purge_leaves_nothing_where_nobody_added_anything(package: &Package) {
    let machine = Machine::new();
    machine.dpkg(&["-i", package.deb.to_str().unwrap()]);
    let told = machine.dpkg(&["--purge", "causeway"]);
    assert!(!told.contains("/etc/causeway holds"), "{told}");
    assert!(!machine.has("etc/causeway") && !machine.has("usr/share/causeway"));
}

fn bash_completes_what_is_for_people(package: &Package) {
    let script = "source \"$1\"; COMP_WORDS=(causeway ''); COMP_CWORD=1; _causeway causeway '' causeway; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let completions = package.path("usr/share/bash-completion/completions/causeway");
    let offered = output(Command::new("bash").args(["-euc", script, "bash"]).arg(completions));
    let offered: Vec<&str> = offered.lines().collect();
    for command in ["agent", "check-config", "envoy", "proxy", "kv", "sync", "completions", "--version"] {
        assert!(offered.contains(&command), "{command} is not offered: {offered:?}");
    }
    for hidden in ["demo", "manual"] {
        assert!(!offered.contains(&hidden), "{hidden} is offered: {offered:?}");
    }
}
