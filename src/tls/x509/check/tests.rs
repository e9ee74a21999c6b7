use crate::tls::{
    authority::{Authority, Issued, NewAuthority},
    x509::{
        check::{self, Demands},
        finding::{Code, Finding, Severity},
        lifetime::DAY,
        moment::Moment,
        pem::Contents,
        profile::{self, Place},
        renewal::Policy,
        set::{FileFacts, FolderFacts},
    },
};

const NOW: Moment = Moment::from_unix(1_800_000_000);

fn ca(days: u32) -> (Authority, Issued) {
    Authority::create(&NewAuthority { lifetime: DAY * days, ..Default::default() }, NOW).unwrap()
}

fn place(node: Option<&str>) -> Place {
    Place { datacenter: "dc1".into(), domain: "consul".into(), node: node.map(Into::into) }
}

fn issue(ca: &Authority, profile: &str, node: Option<&str>) -> Issued {
    let profile = profile::named(profile).unwrap();
    ca.issue(profile, &profile.issued(&place(node)), DAY * 90, NOW).unwrap()
}

fn file(folder: &str, name: &str, mode: u32, text: &str) -> FileFacts {
    FileFacts {
        path: format!("{folder}/{name}").into(),
        real: format!("/{folder}/{name}").into(),
        mode,
        uid: 100,
        owner: "consul:consul".into(),
        contents: Ok(Contents::read(text.as_bytes())),
    }
}

fn pair(folder: &str, stem: &str, issued: &Issued) -> [FileFacts; 2] {
    [
        file(folder, &format!("{stem}-key.pem"), 0o600, issued.key.expose()),
        file(folder, &format!("{stem}.pem"), 0o644, &issued.pem()),
    ]
}

fn folder(path: &str, files: impl IntoIterator<Item = FileFacts>) -> FolderFacts {
    FolderFacts { path: path.into(), is_open: false, files: files.into_iter().collect() }
}

/// A good folder of a server.
fn good(path: &str, ca: &Authority, made: &Issued) -> FolderFacts {
    let server = issue(ca, "server", Some("n1"));
    let files = pair(path, "dc1-server-consul-0", &server);
    folder(path, files.into_iter().chain([file(path, "consul-agent-ca.pem", 0o644, &made.pem())]))
}

fn found(folders: &[FolderFacts], at: Moment) -> Vec<(Severity, Code)> {
    found_with(folders, &Demands::default(), at)
}

fn found_with(folders: &[FolderFacts], demands: &Demands, at: Moment) -> Vec<(Severity, Code)> {
    check::set(folders, demands, at).iter().map(|Finding { severity, code, .. }| (*severity, *code)).collect()
}

const PROBLEM: Severity = Severity::Problem;
const WARNING: Severity = Severity::Warning;

#[test]
fn a_good_set_has_no_findings() {
    let (ca, made) = ca(1000);
    assert_eq!(found(&[good("a", &ca, &made)], NOW), []);
    let demands = Demands { is_federated: true, owner: Some((100, "consul".into())), ..Demands::default() };
    assert_eq!(found_with(&[good("a", &ca, &made)], &demands, NOW), []);
}

#[test]
fn dates_are_told_as_they_pass() {
    let (ca, made) = ca(1000);
    let set = [good("a", &ca, &made)];
    assert_eq!(found(&set, NOW.plus(DAY * 59)), []);
    assert_eq!(found(&set, NOW.plus(DAY * 61)), [(WARNING, Code::EndsSoon)]);
    assert_eq!(found(&set, NOW.plus(DAY * 90)), [(PROBLEM, Code::Expired)]);
    assert_eq!(found(&set, NOW.minus(DAY)), [(PROBLEM, Code::NotYetValid); 2]);
    assert_eq!(found(&set, NOW.plus(DAY * 1000)), [(PROBLEM, Code::Expired); 2]);
    let early = Demands { policy: Policy { before: Some(DAY * 80), all: false }, ..Demands::default() };
    assert_eq!(found_with(&set, &early, NOW.plus(DAY * 11)), [(WARNING, Code::EndsSoon)]);
}

#[test]
fn a_ca_that_would_cut_short_what_it_issues_is_told() {
    let (ca, made) = ca(100);
    let set = [good("a", &ca, &made)];
    assert_eq!(found(&set, NOW), []);
    assert_eq!(found(&set, NOW.plus(DAY * 40)), [(WARNING, Code::EndsSoon)]);
}

#[test]
fn names_and_purposes_that_lack_are_told_at_once() {
    let (ca, made) = ca(1000);
    // The purposes of an agent and the names of a client, in a file named for a server.
    let agent = profile::named("agent").unwrap();
    let names = profile::Names { dns: vec!["web.example".into()], addresses: Vec::new() };
    let strange = ca.issue(agent, &names, DAY * 90, NOW).unwrap();
    let files = pair("a", "dc1-server-consul-0", &strange);
    let set = folder("a", files.into_iter().chain([file("a", "ca.pem", 0o644, &made.pem())]));
    assert_eq!(
        found(&[set], NOW),
        [(PROBLEM, Code::Name), (PROBLEM, Code::Usage), (WARNING, Code::NodeName)]
    );
    // Another kind or another datacenter than its file is named for.
    for (stem, severity) in [("dc1-server-consul-0", PROBLEM), ("dc2-client-consul-0", WARNING)] {
        let files = pair("a", stem, &issue(&ca, "client", None));
        let set = folder("a", files.into_iter().chain([file("a", "ca.pem", 0o644, &made.pem())]));
        assert!(found(&[set], NOW).contains(&(severity, Code::Name)), "{stem}");
    }
    // A client agent without an HTTPS API needs no more than an agent has.
    let mut client = profile::named("client").unwrap().clone();
    client.more_usages.clear();
    let names = client.issued(&place(None));
    let files = pair("a", "dc1-client-consul-0", &ca.issue(&client, &names, DAY * 90, NOW).unwrap());
    let set = folder("a", files.into_iter().chain([file("a", "ca.pem", 0o644, &made.pem())]));
    assert_eq!(found(&[set], NOW), [(WARNING, Code::Usage)]);
    let files = pair("a", "something", &strange);
    let set = folder("a", files.into_iter().chain([file("a", "ca.pem", 0o644, &made.pem())]));
    assert_eq!(found(&[set], NOW), [(WARNING, Code::Unknown)]);
}

#[test]
fn a_servers_node_is_demanded_where_gateways_federate() {
    let (ca, made) = ca(1000);
    let server = issue(&ca, "server", None);
    let set = || {
        let files = pair("a", "dc1-server-consul-0", &server);
        folder("a", files.into_iter().chain([file("a", "ca.pem", 0o644, &made.pem())]))
    };
    assert_eq!(found(&[set()], NOW), [(WARNING, Code::NodeName)]);
    let demands = Demands { is_federated: true, ..Demands::default() };
    assert_eq!(found_with(&[set()], &demands, NOW), [(PROBLEM, Code::NodeName)]);
}

#[test]
fn the_wrong_datacenter_domain_and_owner_are_told() {
    let (ca, made) = ca(1000);
    let demands = Demands {
        datacenter: Some("dc2".into()),
        domain: Some("example".into()),
        owner: Some((7, "other".into())),
        ..Demands::default()
    };
    let set = [good("a", &ca, &made)];
    let codes = found_with(&set, &demands, NOW);
    assert_eq!(codes, [(PROBLEM, Code::KeyOwner), (PROBLEM, Code::Name), (PROBLEM, Code::Name)]);
}

#[test]
fn the_cas_of_every_folder_vouch_for_all() {
    let ((one, made_one), (two, made_two)) = (ca(1000), ca(1000));
    let (a, b) = (good("a", &one, &made_one), good("b", &two, &made_two));
    let codes = found(&[a.clone(), b.clone()], NOW);
    assert_eq!(codes, [(PROBLEM, Code::Untrusted), (PROBLEM, Code::Untrusted), (WARNING, Code::Duplicate)]);
    // A bundle of both, as while one CA is replaced by another.
    let bundle = format!("{}{}", made_one.pem(), made_two.pem());
    let both = |mut set: FolderFacts| {
        let path = set.path.display().to_string();
        set.files.retain(|file| file.name() != "consul-agent-ca.pem");
        set.files.push(file(&path, "consul-agent-ca.pem", 0o644, &bundle));
        set
    };
    assert_eq!(found(&[both(a), both(b.clone())], NOW), [(WARNING, Code::Duplicate)]);
    let bare = folder("b", b.files.into_iter().filter(|file| file.name() != "consul-agent-ca.pem"));
    assert_eq!(found(std::slice::from_ref(&bare), NOW), [(PROBLEM, Code::NoCa)]);
    let trusted = vec![made_two.certificate];
    assert_eq!(found_with(&[bare], &Demands { trusted, ..Demands::default() }, NOW), []);
}

#[test]
fn a_ca_made_anew_under_the_old_name_is_told_apart() {
    let of_the_name = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let text = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        let mut read = Contents::read(text.as_bytes());
        Authority::new(read.certificates.pop().unwrap(), read.keys.pop().unwrap()).unwrap()
    };
    let (one, other) = (of_the_name(), of_the_name());
    let server = issue(&one, "server", Some("n1"));
    let set = [folder("a", pair("a", "dc1-server-consul-0", &server))];
    let by = |ca: &Authority| {
        let trusted = vec![ca.certificate().clone()];
        check::set(&set, &Demands { trusted, ..Demands::default() }, NOW)
    };
    assert_eq!(by(&one), []);
    let found = by(&other);
    assert!(found[0].problem.contains("has another key"), "{found:?}");
}

#[test]
fn keys_that_do_not_fit_lack_or_lie_open_are_told() {
    let (ca, made) = ca(1000);
    let (a, b) = (issue(&ca, "server", Some("n1")), issue(&ca, "client", None));
    let ca_file = || file("a", "ca.pem", 0o644, &made.pem());
    let swapped = [
        file("a", "dc1-server-consul-0-key.pem", 0o600, b.key.expose()),
        file("a", "dc1-server-consul-0.pem", 0o644, &a.pem()),
        ca_file(),
    ];
    assert_eq!(found(&[folder("a", swapped)], NOW), [(PROBLEM, Code::KeyMismatch)]);
    let missing = [file("a", "dc1-server-consul-0.pem", 0o644, &a.pem()), ca_file()];
    assert_eq!(found(&[folder("a", missing)], NOW), [(WARNING, Code::NoKey)]);
    let alone = [file("a", "x-key.pem", 0o644, a.key.expose()), ca_file()];
    assert_eq!(found(&[folder("a", alone)], NOW), [(PROBLEM, Code::KeyOpen), (WARNING, Code::NoCertificate)]);
    let mut open = good("a", &ca, &made);
    open.is_open = true;
    assert_eq!(found(&[open], NOW), [(PROBLEM, Code::KeyOpen)]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_goes_on() {
    let (ca, made) = ca(1000);
    let mut set = good("a", &ca, &made);
    set.files.push(file(
        "a",
        "x.pem",
        0o644,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ));
    set.files.push(file(
        "a",
        "y.pem",
        0o600,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ));
    let unreadable = FileFacts { contents: Err("Permission denied".into()), ..file("a", "z.pem", 0o600, "") };
    set.files.push(unreadable);
    assert_eq!(found(&[set], NOW), [(PROBLEM, Code::Unreadable); 3]);
    assert_eq!(found(&[folder("a", [])], NOW), [(PROBLEM, Code::Unreadable)]);
}

#[test]
fn shared_keys_serials_and_nodes_are_told() {
    let (ca, made) = ca(1000);
    let (one, two) = (issue(&ca, "server", Some("n1")), issue(&ca, "server", Some("n1")));
    let ca_file = || file("a", "ca.pem", 0o644, &made.pem());
    let twins =
        pair("a", "dc1-server-consul-0", &one).into_iter().chain(pair("a", "dc1-server-consul-1", &two));
    assert_eq!(found(&[folder("a", twins.chain([ca_file()]))], NOW), [(WARNING, Code::Duplicate)]);
    let copy = pair("a", "dc1-server-consul-0", &one).into_iter().chain(pair("a", "copy", &one));
    assert_eq!(found(&[folder("a", copy.chain([ca_file()]))], NOW), [(WARNING, Code::Duplicate)]);
    // The same files in two folders are a set spread over two machines.
    let spread = [good("a", &ca, &made)];
    let mut other = spread[0].clone();
    other.path = "b".into();
    for file in &mut other.files {
        file.path = format!("b/{}", file.name()).into();
    }
    assert_eq!(found(&[spread[0].clone(), other], NOW), []);
}
