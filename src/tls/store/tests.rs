use std::os::unix::fs::symlink;

use super::*;
use crate::tls::{
    authority::{Authority, Issued, NewAuthority},
    x509::{
        lifetime::DAY,
        moment::Moment,
        profile::{self, Place},
    },
};

const NOW: Moment = Moment::from_unix(1_800_000_000);

fn issued() -> Issued {
    let (ca, _) = Authority::create(&NewAuthority { lifetime: DAY * 10, ..Default::default() }, NOW).unwrap();
    let profile = profile::named("client").unwrap();
    let place = Place { datacenter: "dc1".into(), domain: "consul".into(), node: None };
    ca.issue(profile, &profile.issued(&place), DAY, NOW).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_never_replaces_one_and_a_key_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("a-key.pem");
    create(&key, "one", KEY_MODE, None).unwrap();
    assert_eq!(mode(&key), 0o600);
    let error = create(&key, "two", KEY_MODE, None).unwrap_err();
    assert!(
        matches!(error, StoreError::Exists { .. }) && error.to_string().contains("not replaced"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&key).unwrap(), "one");
    symlink(folder.path().join("elsewhere"), folder.path().join("link.pem")).unwrap();
    assert!(create(&folder.path().join("link.pem"), "x", KEY_MODE, None).is_err());
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn a_file_that_cannot_be_given_away_is_not_left_behind() {
    if nix::unistd::geteuid().is_root() {
        // Root may give to anybody; that others may not is seen in `tests/tls`, as another user.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pem");
        create(&path, "x", KEY_MODE, Some(Owner { uid: 4321, gid: 4322 })).unwrap();
        let about = fs::metadata(&path).unwrap();
        assert_eq!((about.uid(), about.gid()), (4321, 4322));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.pem");
    let error = create(&path, "x", KEY_MODE, Some(Owner { uid: 0, gid: 0 })).unwrap_err();
    assert!(error.to_string().contains("run this as root") && !path.exists(), "{error}");
}

#[test]
fn a_pair_is_replaced_with_its_modes_and_through_links() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real");
    fs::create_dir(&real).unwrap();
    let (certificate, key) = (real.join("a.pem"), real.join("a-key.pem"));
    create(&certificate, "old", 0o640, None).unwrap();
    create(&key, "old", 0o600, None).unwrap();
    fs::set_permissions(&certificate, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
    let link = folder.path().join("a.pem");
    symlink(&certificate, &link).unwrap();
    replace(&Pair { certificate: &link, certificate_text: "new", key: &key, key_text: "secret" }).unwrap();
    assert_eq!(fs::read_to_string(&link).unwrap(), "new");
    assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((mode(&certificate), mode(&key)), (0o640, 0o400));
    assert_eq!(names(&real), ["a-key.pem", "a.pem"]);
}

#[test]
fn one_file_for_both_is_replaced_once() {
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.pem");
    create(&both, "old", KEY_MODE, None).unwrap();
    replace(&Pair { certificate: &both, certificate_text: "c\n", key: &both, key_text: "k\n" }).unwrap();
    assert_eq!(fs::read_to_string(&both).unwrap(), "c\nk\n");
    assert_eq!((mode(&both), names(folder.path())), (0o600, vec!["both.pem".to_owned()]));
}

/// The moment between the two renames, cut short: the new key is there, its certificate waits.
#[test]
fn an_interrupted_replacement_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (issued(), issued());
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a-key.pem"));
    let waiting = folder.path().join(".a.pem.new");
    fs::write(&certificate, old.pem()).unwrap();
    fs::write(&key, new.key.expose()).unwrap();
    fs::write(&waiting, new.pem()).unwrap();
    assert!(finish(&certificate, &key).unwrap());
    assert_eq!(fs::read_to_string(&certificate).unwrap(), new.pem());
    assert_eq!(names(folder.path()), ["a-key.pem", "a.pem"]);
    assert!(!finish(&certificate, &key).unwrap());
}

/// Cut short before the first rename: nothing of it is in use.
#[test]
fn what_was_prepared_and_never_used_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (issued(), issued());
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a-key.pem"));
    fs::write(&certificate, old.pem()).unwrap();
    fs::write(&key, old.key.expose()).unwrap();
    fs::write(folder.path().join(".a.pem.new"), new.pem()).unwrap();
    fs::write(folder.path().join(".a-key.pem.new"), new.key.expose()).unwrap();
    assert!(!finish(&certificate, &key).unwrap());
    assert_eq!(fs::read_to_string(&certificate).unwrap(), old.pem());
    assert_eq!(names(folder.path()), ["a-key.pem", "a.pem"]);
}

#[test]
fn two_renewals_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let held = lock(folder.path()).unwrap();
    assert!(matches!(lock(folder.path()), Err(StoreError::Busy { .. })));
    drop(held);
    lock(folder.path()).unwrap();
}
