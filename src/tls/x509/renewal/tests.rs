use super::*;
use crate::tls::{
    authority::{Authority, Issued, NewAuthority},
    x509::{pem::Contents, profile::Place, set::FileFacts},
};

const ALL: Policy = Policy { before: None, all: true };
const NOW: Moment = Moment::from_unix(1_800_000_000);

fn ca(days: u32) -> (Authority, Issued) {
    Authority::create(&NewAuthority { lifetime: DAY * days, ..Default::default() }, NOW).unwrap()
}

fn client(ca: &Authority, days: u32) -> Issued {
    let profile = profile::named("client").unwrap();
    let place = Place { datacenter: "dc1".into(), domain: "consul".into(), node: None };
    ca.issue(profile, &profile.issued(&place), DAY * days, NOW).unwrap()
}

fn file(name: &str, text: &str) -> FileFacts {
    FileFacts {
        path: format!("d/{name}").into(),
        real: format!("/d/{name}").into(),
        mode: 0o600,
        uid: 0,
        owner: "root:root".into(),
        contents: Ok(Contents::read(text.as_bytes())),
    }
}

fn folder(files: Vec<FileFacts>) -> FolderFacts {
    FolderFacts { path: "d".into(), is_open: false, files }
}

fn with_key(one: &Issued) -> Vec<FileFacts> {
    vec![file("c.pem", &one.pem()), file("c-key.pem", one.key.expose())]
}

fn step_at(
    set: &FolderFacts,
    signers: &[&Certificate],
    how: Signers,
    at: Moment,
) -> Result<Duration, String> {
    match plan(set, signers, how, Policy::default(), None, at).remove(0) {
        Step::Keep { due_from, .. } => Err(format!("kept until {due_from}")),
        Step::Renew(renewal) => Ok(renewal.lifetime),
        Step::Stuck { obstacle, remedy, .. } => Err(format!("{obstacle}; {remedy}")),
    }
}

#[test]
fn a_third_of_the_lifetime_is_left_or_what_is_asked() {
    let one = client(&ca(1000).0, 90).certificate;
    let policy = Policy::default();
    // The hour before its beginning, for clocks that differ, is part of its life.
    let due = policy.due_from(&one);
    assert!(due > NOW.plus(DAY * 59) && due < NOW.plus(DAY * 61));
    assert_eq!(policy.due(&one, due.minus(Duration::from_secs(1))), None);
    assert_eq!(policy.due(&one, due).as_deref(), Some("it ends in 30 days"));
    assert!(policy.due(&one, NOW.plus(DAY * 90)).unwrap().contains("ended on"));
    let early = Policy { before: Some(DAY * 80), all: false };
    assert_eq!(early.due(&one, NOW.plus(DAY * 9)), None);
    assert!(early.due(&one, NOW.plus(DAY * 11)).is_some());
    assert!(Policy { before: None, all: true }.due(&one, NOW).is_some());
    // Longer than its whole life: due from its beginning, not before.
    assert_eq!(Policy { before: Some(DAY * 1000), all: false }.due_from(&one), one.not_before);
}

#[test]
fn a_certificate_is_signed_by_the_ca_that_issued_it() {
    let ((one, made), (two, _)) = (ca(1000), ca(1000));
    let issued = client(&one, 90);
    let mut files = with_key(&issued);
    files.push(file("ca.pem", &made.pem()));
    let set = folder(files);
    let (own, other) = (one.certificate(), two.certificate());
    let late = NOW.plus(DAY * 80);
    assert!(step_at(&set, &[own], Signers::Found, NOW).unwrap_err().starts_with("kept until"));
    assert_eq!(step_at(&set, &[other, own], Signers::Found, late), Ok(lifetime(&issued.certificate)));
    let stuck = step_at(&set, &[other], Signers::Found, late).unwrap_err();
    assert!(stuck.contains("is not in the folder") && stuck.contains("--ca"), "{stuck}");
    assert!(step_at(&set, &[], Signers::Found, late).is_err());
    // One that is named signs what another issued: that is how one rolls over.
    assert!(step_at(&set, &[other], Signers::Named, late).is_ok());
}

#[test]
fn without_its_key_a_certificate_is_stuck() {
    let (one, _) = ca(1000);
    let issued = client(&one, 90);
    let late = NOW.plus(DAY * 80);
    let set = folder(vec![file("c.pem", &issued.pem())]);
    assert!(
        step_at(&set, &[one.certificate()], Signers::Found, late).unwrap_err().contains("its key is not")
    );
    let other = client(&one, 90);
    let set = folder(vec![file("c.pem", &issued.pem()), file("c-key.pem", other.key.expose())]);
    let stuck = step_at(&set, &[one.certificate()], Signers::Found, late).unwrap_err();
    assert!(stuck.contains("another certificate's"), "{stuck}");
}

/// What is said of the first certificate in these files, late enough that it is due.
fn obstacle(ca: &Authority, files: Vec<FileFacts>) -> String {
    let set = folder(files);
    let signers = [ca.certificate()];
    let stuck = step_at(&set, &signers, Signers::Found, NOW.plus(DAY * 80)).unwrap_err();
    // The others of that key are no better off.
    let steps = plan(&set, &signers, Signers::Found, ALL, None, NOW);
    assert!(steps.iter().all(|step| matches!(step, Step::Stuck { .. })), "{steps:?}");
    stuck
}

#[test]
fn copies_of_a_certificate_are_renewed_together() {
    let (one, made) = ca(1000);
    let issued = client(&one, 90);
    let mut linked = file("z-link.pem", issued.key.expose());
    linked.real = "/d/privkey.pem".into();
    let set = folder(vec![
        file("cert.pem", &issued.pem()),
        file("fullchain.pem", &format!("{}{}", issued.pem(), made.pem())),
        file("privkey.pem", issued.key.expose()),
        linked,
    ]);
    let steps = plan(&set, &[one.certificate()], Signers::Found, ALL, None, NOW);
    let [Step::Renew(renewal)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(renewal.leaf.file.name(), "cert.pem");
    assert_eq!(renewal.copies.iter().map(|one| one.file.name()).collect::<Vec<_>>(), ["fullchain.pem"]);
    assert_eq!(renewal.key_file.name(), "privkey.pem");
}

#[test]
fn a_key_that_something_else_uses_is_not_replaced() {
    let (one, _) = ca(1000);
    let (issued, other) = (client(&one, 90), client(&one, 90));
    let second_key = file("z.pem", issued.key.expose());
    let stuck = obstacle(&one, [with_key(&issued), vec![second_key]].concat());
    assert!(stuck.contains("in d/c-key.pem and in d/z.pem") && stuck.contains("ln -sf"), "{stuck}");
    // Another certificate of the same key, at the head of a file or within one.
    let mut twin = file("t.pem", &other.pem());
    twin.contents.as_mut().unwrap().certificates[0].public_key = issued.certificate.public_key.clone();
    let stuck = obstacle(&one, [with_key(&issued), vec![twin]].concat());
    assert!(stuck.contains("another certificate, in d/t.pem") && stuck.contains("cert create"), "{stuck}");
    let bundle = file("b.pem", &format!("{}{}", other.pem(), issued.pem()));
    let set = folder([vec![bundle], with_key(&issued)].concat());
    let steps = plan(&set, &[one.certificate()], Signers::Found, ALL, None, NOW);
    let Step::Stuck { obstacle, .. } = &steps[1] else { panic!("{steps:?}") };
    assert!(obstacle.contains("in d/b.pem"), "{obstacle}");
}

#[test]
fn a_file_that_holds_anything_else_is_not_replaced() {
    let (one, made) = ca(1000);
    let (issued, other) = (client(&one, 90), client(&one, 90));
    let (certificate, key) = (issued.pem(), issued.key.expose());
    let with = |text: &str, more: &str| format!("{text}{more}");
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificates, keys, what) in [
        (certificate.clone(), with(key, made.key.expose()), "d/k.pem also holds another key"),
        (certificate.clone(), with(key, &made.pem()), "d/k.pem also holds another certificate"),
        (with(&certificate, &other.pem()), key.into(), "d/c.pem also holds another certificate"),
        (with(&certificate, other.key.expose()), key.into(), "d/c.pem also holds another key"),
        (certificate.clone(), with(key, damaged), "d/k.pem also holds something"),
    ] {
        let stuck = obstacle(&one, vec![file("c.pem", &certificates), file("k.pem", &keys)]);
        assert!(stuck.contains(what) && stuck.contains("file of its own"), "{what}: {stuck}");
    }
    // One file for both holds nothing else.
    let both = folder(vec![file("both.pem", &with(&certificate, key))]);
    assert!(step_at(&both, &[one.certificate()], Signers::Found, NOW.plus(DAY * 80)).is_ok());
}

#[test]
fn what_the_cas_end_cut_short_gets_its_days_back() {
    let (old, made) = ca(100);
    let issued = client(&old, 365);
    assert!(issued.is_cut_short);
    let mut files = with_key(&issued);
    files.push(file("ca.pem", &made.pem()));
    let (new, _) = ca(2000);
    let renewed = step_at(&folder(files), &[new.certificate()], Signers::Named, NOW.plus(DAY * 90));
    assert_eq!(renewed, Ok(DAY * 365));
}

#[test]
fn a_ca_ends_soon_when_it_cuts_short_what_it_issues() {
    let one = ca(1825).0.certificate().clone();
    let year = DAY * 365;
    assert_eq!(authority_ends_soon(&one, year, NOW.plus(DAY * 1400)), None);
    assert!(authority_ends_soon(&one, year, NOW.plus(DAY * 1500)).is_some());
    assert_eq!(authority_ends_soon(&one, year, NOW.plus(DAY * 1825)), Some(Duration::ZERO));
    // Made together, for as long: not from the first day on.
    let short = ca(365).0.certificate().clone();
    assert_eq!(authority_ends_soon(&short, year, NOW.plus(DAY * 100)), None);
    assert!(authority_ends_soon(&short, year, NOW.plus(DAY * 130)).is_some());
}
