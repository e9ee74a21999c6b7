//! The page of xDS rules against the sources: no rule is left out, none is cited that it does not have, and the tests that
//! it names are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "docs/xds-rules.md";

/// The last of the rules.
const LAST: u8 = 53;

/// Rules about what is not served, and nothing else may be left out.
const NOT_SERVED: [u8; 4] = [46, 48, 49, 51];

struct Row {
    rules: Vec<u8>,
    met_in: Vec<String>,
    shown_by: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let rules = cells[0].split(", ").map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_, _, met_in, shown_by] = cells[..] else { panic!("not four cells: {line}") };
    Some(Row { rules, met_in: quoted(met_in), shown_by: quoted(shown_by) })
}

fn rows() -> Vec<Row> {
    read(PAGE).lines().filter_map(row).collect()
}

/// The rules that a text cites: `rule 4`, `rules 6 and 7`, `rules 1, 2 and 3`.
fn cited(text: &str) -> BTreeSet<u8> {
    let text = text.split_whitespace().filter(|word| !word.starts_with("//")).collect::<Vec<_>>().join(" ");
    let text = text.to_lowercase();
    let mut rules = BTreeSet::new();
    for (at, word) in text.match_indices("rule") {
        let after = &text[at + word.len()..];
        let Some(list) = after.strip_prefix("s ").or_else(|| after.strip_prefix(' ')) else { continue };
        for word in list.split(' ').filter(|word| *word != "and") {
            let number: String = word.chars().take_while(char::is_ascii_digit).collect();
            let Ok(rule) = number.parse() else { break };
            rules.insert(rule);
            if word.len() > number.len() && !word.ends_with(',') {
                break;
            }
        }
    }
    rules
}

/// The sources of xDS, tests left out.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_test {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            found.push(path);
        }
    }
}

/// By file, as the page names it.
fn cited_by_file() -> BTreeMap<String, BTreeSet<u8>> {
    let mut files = vec![root().join("src/xds.rs")];
    sources(&root().join("src/xds"), &mut files);
    let of_file = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().display().to_string(), cited(&text))
    };
    files.into_iter().map(of_file).collect()
}

fn is_test(place: &str) -> bool {
    let Some((path, name)) = place.split_once("::") else { return false };
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    let declares = |line: &str| {
        let line = line.trim_start();
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        function.is_some_and(|function| function.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
    };
    let is_marked = |line: &str| {
        matches!(line.trim_start(), "#[test]" | "#[tokio::test]")
            || line.trim_start().starts_with("#[tokio::test(")
    };
    lines.windows(2).any(|pair| is_marked(pair[0]) && declares(pair[1]))
}

#[test]
fn the_page_of_rules_is_complete() {
    let told: Vec<u8> = rows().into_iter().flat_map(|row| row.rules).collect();
    assert_eq!(told, (1..=LAST).collect::<Vec<_>>(), "each rule once, in order");
}

#[test]
fn each_rule_is_cited_where_it_is_met() {
    let cited = cited_by_file();
    let mut wrong = Vec::new();
    for row in rows() {
        let is_served = !row.rules.iter().any(|rule| NOT_SERVED.contains(rule));
        if is_served == row.met_in.is_empty() {
            wrong.push(format!("{:?} names {:?}", row.rules, row.met_in));
        }
        for file in &row.met_in {
            let there = cited.get(file).unwrap_or_else(|| panic!("{:?}: no {file}", row.rules));
            let missing = row.rules.iter().filter(|rule| !there.contains(rule));
            wrong.extend(missing.map(|rule| format!("{file} does not cite rule {rule}")));
        }
    }
    let known: BTreeSet<u8> = rows().into_iter().flat_map(|row| row.rules).collect();
    for (file, rules) in cited {
        let unknown = rules.difference(&known);
        wrong.extend(unknown.map(|rule| format!("{file} cites rule {rule}, which is not in {PAGE}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_rule_is_shown_by_a_test() {
    let mut wrong = Vec::new();
    for row in rows() {
        let is_served = !row.rules.iter().any(|rule| NOT_SERVED.contains(rule));
        if is_served && row.shown_by.is_empty() {
            wrong.push(format!("{:?} is shown by nothing", row.rules));
        }
        let missing = row.shown_by.iter().filter(|place| !is_test(place));
        wrong.extend(missing.map(|place| format!("{:?}: no test {place}", row.rules)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn citations_are_read_as_people_read_them() {
    let lists = "/// It waits (rules 6 and\n    /// 7), see rule 12. Rules 1, 2 and 3; rule 33: and rules of another page, or the ruler 9.";
    assert_eq!(cited(lists), BTreeSet::from([1, 2, 3, 6, 7, 12, 33]));
}
