//! Golden cases: Consul's answers in, Envoy's resources out, by the agent's own path. `tests/golden/README.md` has the
//! format. `UPDATE_GOLDEN=1` rewrites what is expected.

pub(crate) mod case;
mod diff;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use causeway::{
    mesh::{
        self, Proxy,
        built::Built,
        world::{Assembled, World},
    },
    model::{
        catalog::{Catalog, Topic},
        note::Note,
    },
    xds::{
        json,
        resource::Kind,
        snapshot::{Draft, Snapshot},
    },
};
use serde_json::{Map, Value};

use self::case::{Answered, Case};

/// What became of a case.
pub(crate) struct Made {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Whether the agent would offer the snapshot: the proxy is known and can be served.
    pub(crate) is_offered: bool,
    notes: BTreeSet<Note>,
    /// Each topic, and why it is not known where Consul's answer tells.
    waiting_for: BTreeMap<Topic, Option<String>>,
}

impl Made {
    fn nothing(notes: impl IntoIterator<Item = Note>, waiting_for: BTreeSet<Topic>) -> Self {
        let notes = notes.into_iter().collect();
        Self {
            snapshot: Arc::new(Snapshot::empty()),
            is_offered: false,
            notes,
            waiting_for: untold(waiting_for),
        }
    }

    /// The resources as Envoy's JSON, by kind and name.
    fn resources_json(&self) -> Value {
        let kinds = Kind::ALL.into_iter().filter_map(|kind| {
            let of_kind: Map<String, Value> = self
                .snapshot
                .of_kind(kind)
                .map(|entry| {
                    let json = json::to_json(entry.type_url, &entry.any).expect("our own encoding");
                    (entry.key.name.clone(), json)
                })
                .collect();
            let name = serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
            (!of_kind.is_empty()).then_some((name, Value::Object(of_kind)))
        });
        Value::Object(kinds.collect())
    }

    fn notes_text(&self) -> String {
        let notes = self.notes.iter().map(|note| format!("{note}\n"));
        let waiting = self.waiting_for.iter().map(|(topic, reason)| match reason {
            Some(reason) => format!("waiting for: {topic}: {reason}\n"),
            None => format!("waiting for: {topic}\n"),
        });
        notes.chain(waiting).collect()
    }
}

/// A folder of cases and its name in the counts.
const FOLDERS: [&str; 2] = ["recorded", "handmade"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every case of every folder, as `recorded/tcp-local`.
pub(crate) fn all_cases() -> BTreeMap<String, Case> {
    let mut cases = BTreeMap::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let dir = entry.unwrap().path();
            let name = format!("{folder}/{}", dir.file_name().unwrap().to_str().unwrap());
            cases.insert(name, Case::load(&dir).unwrap());
        }
    }
    cases
}

/// Answers by file, each of which must be asked for.
fn answers(case: &Case) -> Result<BTreeMap<String, Answered>, String> {
    let dir = case.answers_dir();
    let mut answers = BTreeMap::new();
    for entry in fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let answered = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        answers.insert(path.file_name().unwrap().to_string_lossy().into_owned(), answered);
    }
    Ok(answers)
}

/// What is heard when all that is needed is asked for, and what was asked. The problems are those of the case's files.
pub(crate) fn hear(case: &Case) -> Result<(Catalog, BTreeSet<Topic>, Vec<String>), Vec<String>> {
    let mut answers = answers(case).map_err(|problem| vec![problem])?;
    let (mut catalog, mut asked) = (Catalog::default(), BTreeSet::new());
    let mut problems = Vec::new();
    loop {
        let topics = case::new_needs(case, &catalog, &mut asked);
        if topics.is_empty() {
            break;
        }
        for topic in topics {
            if let Some(answered) = answers.remove(&case::file_name(&topic))
                && let Err(problem) = case::hear(&mut catalog, &topic, &answered)
            {
                problems.push(format!("{topic}: {problem}"));
            }
        }
    }
    problems.extend(answers.keys().map(|name| format!("consul/{name} is never asked for")));
    Ok((catalog, asked, problems))
}

/// Asks for what is needed until nothing more is, then builds.
pub(crate) fn make(case: &Case) -> Result<Made, Vec<String>> {
    let (catalog, asked, mut problems) = hear(case)?;
    let mut made = match mesh::build(&catalog, &case.proxy, case.options) {
        Proxy::Unknown { needs } => Made::nothing([], needs),
        Proxy::Absent { .. } => Made::nothing(
            [Note::new(format!("proxy {}", case.proxy), "is absent", "register it with the agent")],
            BTreeSet::new(),
        ),
        Proxy::Unsupported { note, .. } => Made::nothing([note], BTreeSet::new()),
        Proxy::Built(built) => assemble(built),
    };
    for (topic, reason) in &mut made.waiting_for {
        *reason = catalog.trouble(topic).map(ToString::to_string);
    }
    made.notes.extend(asked.iter().filter_map(|t| catalog.heard(t)).flat_map(|h| h.notes.iter().cloned()));
    problems.extend(wholeness(case, &made));
    if problems.is_empty() { Ok(made) } else { Err(problems) }
}

fn assemble(built: Built) -> Made {
    let Assembled { resources, partial, waiting_for, complete, notes, .. } = World::default().assemble(built);
    let snapshot = Snapshot::empty().next(Draft { resources, partial, complete });
    Made { snapshot, is_offered: true, notes, waiting_for: untold(waiting_for) }
}

fn untold(topics: BTreeSet<Topic>) -> BTreeMap<Topic, Option<String>> {
    topics.into_iter().map(|topic| (topic, None)).collect()
}

fn wholeness(case: &Case, made: &Made) -> Vec<String> {
    let mut problems = Vec::new();
    if made.is_offered && made.snapshot.is_complete() == case.is_incomplete {
        let waiting: Vec<_> = made.waiting_for.keys().map(ToString::to_string).collect();
        let is = if case.is_incomplete { "is complete" } else { "is incomplete" };
        problems.push(format!("the snapshot {is}; waiting for: {}", waiting.join(", ")));
    }
    if !case.is_incomplete {
        let dangling = made.snapshot.dangling();
        problems.extend(dangling.iter().map(|(from, to)| format!("{from} refers to {to}, which is absent")));
    }
    problems
}

/// What differs from the expected files, or nothing after rewriting them.
fn check(case: &Case, is_update: bool) -> Vec<String> {
    let made = match make(case) {
        Ok(made) => made,
        Err(problems) => return problems,
    };
    let (resources, notes) = (made.resources_json(), made.notes_text());
    let expected = case.dir.join("expected");
    let (resources_path, notes_path) = (expected.join("resources.json"), expected.join("notes.txt"));
    if is_update {
        fs::create_dir_all(&expected).unwrap();
        fs::write(resources_path, format!("{resources:#}\n")).unwrap();
        fs::write(notes_path, notes).unwrap();
        return Vec::new();
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let wanted = read(&resources_path).and_then(|text| {
        serde_json::from_str::<Value>(&text).map_err(|error| format!("{}: {error}", resources_path.display()))
    });
    let mut problems = Vec::new();
    match wanted {
        Ok(wanted) => problems.extend(diff::resources(&wanted, &resources)),
        Err(problem) => problems.push(problem),
    }
    match read(&notes_path) {
        Ok(wanted) => problems.extend(diff::text("notes.txt", &wanted, &notes)),
        Err(problem) => problems.push(problem),
    }
    problems
}

#[test]
fn every_case_gives_what_is_expected() {
    let is_update = env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let cases = all_cases();
    let counts = FOLDERS.map(|folder| {
        let of_folder = cases.keys().filter(|name| name.starts_with(&format!("{folder}/")));
        format!("{folder} {}", of_folder.count())
    });
    println!("golden cases: {}", counts.join(", "));
    let failing: Vec<String> = cases
        .iter()
        .map(|(name, case)| (name, check(case, is_update)))
        .filter(|(_, problems)| !problems.is_empty())
        .map(|(name, problems)| format!("{name}\n{}", problems.join("\n")))
        .collect();
    assert!(
        failing.is_empty(),
        "{} of {} cases differ; if that is meant, UPDATE_GOLDEN=1 rewrites them\n\n{}",
        failing.len(),
        cases.len(),
        failing.join("\n\n")
    );
}

#[test]
fn no_recording_holds_a_private_key() {
    const DUMMY: &str = "-----BEGIN PRIVATE KEY-----\nZHVtbXk=\n-----END PRIVATE KEY-----\n";
    for (name, case) in all_cases() {
        for (file, answered) in answers(&case).unwrap() {
            let text = answered.body["PrivateKeyPEM"].as_str().unwrap_or(DUMMY);
            assert_eq!(text, DUMMY, "{name}/consul/{file}");
            assert_eq!(answered.body.to_string().matches("PRIVATE KEY").count() % 2, 0, "{name}/{file}");
        }
    }
}

/// The check itself is checked: a fault planted in what is expected is told, by the resource's name.
#[test]
fn a_changed_resource_is_reported() {
    let case = &all_cases()["recorded/tcp-local"];
    let made = make(case).unwrap();
    let (is, mut wanted) = (made.resources_json(), made.resources_json());
    assert_eq!(diff::resources(&wanted, &is), Vec::<String>::new());
    wanted["cluster"]["local_app"]["connect_timeout"] = "6s".into();
    let listeners = wanted["listener"].as_object_mut().unwrap();
    let gone = listeners.keys().next().unwrap().clone();
    listeners.remove(&gone);
    wanted["cluster"]["more"] = Value::Object(Map::new());
    let told = diff::resources(&wanted, &is).join("\n");
    for part in ["~ cluster local_app", "-   \"connect_timeout\": \"6s\"", "- cluster more", &gone] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
}
