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

fn successor<'a>(place: &'a Path, text: &str) -> Successor<'a> {
    Successor { place, text: text.into() }
}

fn finished(folder: &Path) -> bool {
    finish(&folder::read(folder).unwrap()).unwrap().has_changed
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
    let place = folder::file(&link).unwrap().real;
    // Whoever swaps the link after it was read gets nothing for it.
    fs::write(folder.path().join("b.pem"), "other").unwrap();
    fs::remove_file(&link).unwrap();
    symlink(folder.path().join("b.pem"), &link).unwrap();
    replace(&successor(&key, "secret"), &[successor(&place, "new")]).unwrap();
    assert_eq!(fs::read_to_string(&link).unwrap(), "other");
    fs::remove_file(&link).unwrap();
    symlink(&certificate, &link).unwrap();
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
    replace(&successor(&both, "c\nk\n"), &[]).unwrap();
    assert_eq!(fs::read_to_string(&both).unwrap(), "c\nk\n");
    assert_eq!((mode(&both), names(folder.path())), (0o600, vec!["both.pem".to_owned()]));
}

/// A link that somebody puts where a file was, or where one is made, changes nothing at its end.
#[test]
fn a_link_put_in_the_way_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (victim, key, certificate) = (path("victim"), path("a-key.pem"), path("a.pem"));
    create(&victim, "theirs", 0o600, None).unwrap();
    create(&key, "old", 0o640, None).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o666)).unwrap();
    symlink(&victim, path(".a-key.pem.new")).unwrap();
    symlink(&victim, &certificate).unwrap();
    let error = replace(&successor(&key, "new"), &[successor(&certificate, "new")]).unwrap_err();
    assert!(error.to_string().contains("something else than a file"), "{error}");
    assert_eq!(names(folder.path()), ["a-key.pem", "a.pem", "victim"]);
    // Between the making of a file and the setting of its mode.
    let file = File::create(path("made")).unwrap();
    fs::remove_file(path("made")).unwrap();
    symlink(&victim, path("made")).unwrap();
    fill(file.try_clone().unwrap(), &path("made"), "new", None, Some(0o666)).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o666);
    assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), mode(&victim)), ("theirs", 0o600));
}

/// Once the key is in place its certificates are never taken away, whatever fails.
#[test]
fn a_folder_that_cannot_be_synced_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (key, certificate, copy) = (path("k.pem"), path("c.pem"), path("full.pem"));
    let (old, new) = (issued(), issued());
    let fails = |_: &Path| Err(io::Error::other("worn out"));
    fs::write(&key, old.key.expose()).unwrap();
    [&certificate, &copy].iter().for_each(|path| fs::write(path, old.pem()).unwrap());
    let certificates = [successor(&certificate, &new.pem()), successor(&copy, &new.pem())];
    let unsynced = replace_and(&successor(&key, new.key.expose()), &certificates, fails).unwrap();
    let told = unsynced[0].to_string();
    assert!(unsynced.len() == 1 && told.contains("in place") && !told.contains("  "), "{told}");
    let texts =
        |files: &[&PathBuf]| files.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>();
    assert_eq!(texts(&[&certificate, &copy, &key]), [&new.pem(), &new.pem(), new.key.expose()]);
    assert_eq!(names(folder.path()), ["c.pem", "full.pem", "k.pem"]);
    // And when an interrupted one is completed.
    fs::write(&copy, old.pem()).unwrap();
    fs::write(path(".full.pem.new"), new.pem()).unwrap();
    let finished = finish_and(&folder::read(folder.path()).unwrap(), fails).unwrap();
    assert!(finished.has_changed && finished.unsynced.len() == 1);
    assert_eq!(texts(&[&copy]), [new.pem()]);
}

/// A certificate that cannot be renamed after its key waits, and the next run brings it to its place.
#[test]
fn a_certificate_that_cannot_be_renamed_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (old, new) = (issued(), issued());
    fs::write(path("k.pem"), new.key.expose()).unwrap();
    fs::write(path(".c.pem.new"), new.pem()).unwrap();
    // A folder in its way: no rename replaces that.
    fs::create_dir(path("c.pem")).unwrap();
    let error = settle(&path("c.pem")).unwrap_err();
    assert!(matches!(&error, StoreError::Half { .. }) && error.to_string().contains("again"), "{error}");
    fs::remove_dir(path("c.pem")).unwrap();
    fs::write(path("c.pem"), old.pem()).unwrap();
    assert!(finished(folder.path()));
    assert_eq!(fs::read_to_string(path("c.pem")).unwrap(), new.pem());
}

/// The moment between the renames, cut short: the new key is there, its certificate waits. Whatever the key is called.
#[test]
fn an_interrupted_replacement_is_completed() {
    for name in ["a-key.pem", "privkey.pem", "0.key"] {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (issued(), issued());
        let (certificate, key) = (folder.path().join("a.pem"), folder.path().join(name));
        let waiting = folder.path().join(".a.pem.new");
        fs::write(&certificate, old.pem()).unwrap();
        fs::write(&key, new.key.expose()).unwrap();
        fs::write(&waiting, new.pem()).unwrap();
        assert!(finished(folder.path()), "{name}");
        assert_eq!(fs::read_to_string(&certificate).unwrap(), new.pem());
        assert!(!waiting.exists() && !finished(folder.path()));
    }
}

/// A key that this user may not read can be the one that is waited for.
#[test]
fn what_waits_for_an_unknown_key_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (issued(), issued());
    fs::write(folder.path().join("a.pem"), old.pem()).unwrap();
    fs::write(folder.path().join(".a.pem.new"), new.pem()).unwrap();
    assert!(!finished(folder.path()));
    assert_eq!(names(folder.path()), [".a.pem.new", "a.pem"]);
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
    assert!(!finished(folder.path()));
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
