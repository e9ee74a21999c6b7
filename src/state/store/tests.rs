use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::model::{
    catalog::{Answer, Catalog, Heard, Topic},
    mesh::MeshDefaults,
};
use crate::state::{keep::Keep, tokens::BYTES};

const NOW_S: u64 = 1_763_735_271;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    (folder, dir)
}

fn body() -> String {
    let mut catalog = Catalog::default();
    catalog.hear(Topic::Mesh, Heard::fresh(Answer::Mesh(MeshDefaults::default())));
    record::write_topics(&Keep::of(&catalog, &Topics::new(), NOW_S))
}

fn leaves() -> String {
    r#"{"service":"web","chain_pem":"C","key_pem":"K","valid_before_s":1863735271}"#.to_owned() + "\n"
}

/// A directory with good files in it.
fn written(dir: &Path) -> Store {
    let mut store = Store::new(dir);
    assert!(store.write(Kind::Catalog, NOW_S, &body()).unwrap() > 0);
    store.write(Kind::Keys, NOW_S, &leaves()).unwrap();
    store.write(Kind::Tokens, NOW_S, &record::write_tokens(&Tokens::new([3; BYTES]))).unwrap();
    store
}

fn load(dir: &Path, now_s: u64) -> Loaded {
    Store::new(dir).load(true, now_s)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn what_was_written_is_read_and_is_nobody_elses() {
    let (_folder, dir) = folder();
    assert!(load(&dir, NOW_S).topics.is_empty(), "nothing there is nothing wrong");
    written(&dir);
    let loaded = load(&dir, NOW_S);
    let topics: Vec<_> = loaded.topics.keys().map(ToString::to_string).collect();
    assert_eq!(topics, ["leaf/web", "mesh"]);
    assert!(loaded.tokens == Some(Tokens::new([3; BYTES])));
    assert_eq!(mode(&dir), 0o700);
    for name in names(&dir) {
        assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
    }
    assert_eq!(names(&dir), ["catalog.state", "keys.state", "tokens.state"]);
}

#[test]
fn the_same_is_not_written_twice_unless_it_is_gone() {
    let (_folder, dir) = folder();
    let mut store = written(&dir);
    assert_eq!(store.write(Kind::Catalog, NOW_S + 9, &body()).unwrap(), 0);
    let mut next = Store::new(&dir);
    next.load(true, NOW_S);
    assert_eq!(next.write(Kind::Catalog, NOW_S + 9, &body()).unwrap(), 0, "nor by the next run");
    fs::remove_file(dir.join("catalog.state")).unwrap();
    assert!(store.write(Kind::Catalog, NOW_S, &body()).unwrap() > 0);
}

#[test]
fn what_cannot_be_used_is_moved_aside_and_the_rest_is_read() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 7] = [
        ("damaged", |path| fs::write(path, "garbage").unwrap()),
        ("damaged", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("newer", |path| fs::write(path, "causeway-state 2 from tomorrow\n").unwrap()),
        ("foreign", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap()),
        ("foreign", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("foreign", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("damaged", |path| File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap()),
    ];
    for (reason, spoil) in cases {
        let (_folder, dir) = folder();
        written(&dir);
        spoil(&dir.join("catalog.state"));
        let mut store = Store::new(&dir);
        let loaded = store.load(true, NOW_S);
        assert_eq!(loaded.topics.keys().map(ToString::to_string).collect::<Vec<_>>(), ["leaf/web"]);
        let aside = format!("catalog.state.{reason}-{NOW_S}");
        assert_eq!(names(&dir), [&aside, "keys.state", "tokens.state"], "{reason}");
        store.write(Kind::Catalog, NOW_S, &body()).unwrap();
        assert_eq!(load(&dir, NOW_S).topics.len(), 2);
    }
}

#[test]
fn a_file_of_another_user_is_not_believed() {
    let (_folder, dir) = folder();
    written(&dir);
    let another = Uid::from_raw(geteuid().as_raw() + 1);
    let mut store = Store { user: another, ..Store::new(&dir) };
    let (reason, why) = store.try_read(Kind::Catalog).unwrap_err();
    assert_eq!((reason.word(), why.to_string().starts_with("it belongs to user ")), ("foreign", true));

    let before = names(&dir);
    let loaded = store.load(true, NOW_S);
    assert!(loaded.topics.is_empty() && loaded.tokens.is_none(), "nor is its directory");
    let error = store.write(Kind::Catalog, NOW_S, "other\n").unwrap_err().to_string();
    assert!(error.contains("it belongs to user ") && error.contains("StateDirectory="), "{error}");
    assert_eq!(names(&dir), before);
}

#[test]
fn a_directory_that_others_may_write_is_not_used() {
    let (_folder, dir) = folder();
    let mut store = written(&dir);
    for exposed in [0o770, 0o777, 0o1777] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(exposed)).unwrap();
        assert!(load(&dir, NOW_S).topics.is_empty(), "{exposed:o}");
        let error = store.write(Kind::Catalog, NOW_S, "other\n").unwrap_err().to_string();
        assert!(error.contains("others than the agent may write it"), "{error}");
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(load(&dir, NOW_S).topics.len(), 2, "its files are closed to them");
}

#[test]
fn private_keys_outlive_neither_their_use_nor_a_killed_agent() {
    for keys in [true, false] {
        let (_folder, dir) = folder();
        written(&dir);
        for left in [".keys.state.new", ".catalog.state.new", "keys.state.damaged-7", "keys.state.foreign-8"]
        {
            fs::write(dir.join(left), "half").unwrap();
        }
        Store::new(&dir).load(keys, NOW_S);
        let expected: &[&str] = match keys {
            true => &["catalog.state", "keys.state", "tokens.state"],
            false => &["catalog.state", "tokens.state"],
        };
        assert_eq!(names(&dir), expected);
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let (_folder, dir) = folder();
    written(&dir);
    let path = dir.join("catalog.state");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(load(&dir, NOW_S).topics.len(), 1);
    assert_eq!(names(&dir), [&format!("catalog.state.foreign-{NOW_S}"), "keys.state", "tokens.state"]);
}

#[test]
fn what_is_too_long_leaves_nothing_older_behind() {
    let (_folder, dir) = folder();
    let mut store = written(&dir);
    let error = store.write(Kind::Catalog, NOW_S, &"x".repeat(MAX_BYTES)).unwrap_err();
    assert!(
        matches!(error, StateError::TooLong { .. }) && error.to_string().contains("the limit is"),
        "{error}"
    );
    assert_eq!(names(&dir), ["keys.state", "tokens.state"]);
    assert!(store.write(Kind::Catalog, NOW_S, &body()).unwrap() > 0, "what was there before is written anew");
}

#[test]
fn no_more_than_three_of_a_kind_are_kept_aside() {
    let (_folder, dir) = folder();
    for age_s in 0..5 {
        written(&dir);
        for file in ["catalog.state", "keys.state"] {
            fs::write(dir.join(file), "garbage").unwrap();
        }
        load(&dir, NOW_S + age_s);
    }
    fs::write(dir.join("catalog.state.mine"), "not ours").unwrap();
    let kept = [2, 3, 4].map(|age_s| format!("catalog.state.damaged-{}", NOW_S + age_s));
    let others = ["catalog.state.mine", "tokens.state"].map(str::to_owned);
    assert_eq!(names(&dir), [&kept[..], &others].concat(), "and of private keys none");
}

#[test]
fn what_cannot_be_written_leaves_what_was_there_and_says_what_to_do() {
    let (folder, dir) = folder();
    let mut store = written(&dir);
    let before = fs::read(dir.join("catalog.state")).unwrap();
    // What a killed agent left, which is no file and so cannot be taken away.
    let new = dir.join(".catalog.state.new");
    fs::create_dir(&new).unwrap();
    let error = store.write(Kind::Catalog, NOW_S, "other\n").unwrap_err().to_string();
    assert!(error.contains(".catalog.state.new") && error.contains("[state] dir"), "{error}");
    assert_eq!(fs::read(dir.join("catalog.state")).unwrap(), before);
    fs::remove_dir(&new).unwrap();
    fs::write(&new, "half").unwrap();
    assert!(store.write(Kind::Catalog, NOW_S, "other\n").unwrap() > 0);
    assert_eq!(names(&dir), ["catalog.state", "keys.state", "tokens.state"]);

    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(load(&file, NOW_S).topics.is_empty(), "nothing can be read there, which is told once");
    let error = Store::new(&file.join("state")).write(Kind::Keys, NOW_S, "x").unwrap_err().to_string();
    assert!(error.starts_with("make the directory "), "{error}");
}

#[test]
fn each_refusal_has_its_remedy() {
    let told = |kind: io::ErrorKind| {
        StateError::Io { act: "write", path: "/s/f".into(), source: kind.into() }.to_string()
    };
    assert!(told(io::ErrorKind::StorageFull).contains("make room"));
    assert!(told(io::ErrorKind::PermissionDenied).contains("StateDirectory="));
    assert!(told(io::ErrorKind::NotADirectory).contains("check the directory"));
}
