//! The messages of `warn!` and `error!` in `src/`, beside the tables of the page.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A level and a message.
type Message = (String, String);

/// Every source file of the program, tests left out.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_test {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            found.push(path);
        }
    }
    found
}

/// The arguments of every `warn!` and `error!` of a source, with the level.
fn calls(source: &str) -> Vec<(&'static str, &str)> {
    let mut found = Vec::new();
    for (level, call) in [("warn", "warn!("), ("error", "error!(")] {
        for (at, _) in source.match_indices(call) {
            let before = source[..at].chars().next_back();
            if before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_') {
                found.push((level, arguments(&source[at + call.len()..])));
            }
        }
    }
    found
}

/// Up to the bracket that closes what was open before.
fn arguments(text: &str) -> &str {
    let (mut depth, mut at) = (0, 0);
    while let Some(letter) = text[at..].chars().next() {
        match letter {
            '"' => at += string_end(&text[at..]) - 1,
            ')' if depth == 0 => return &text[..at],
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        at += letter.len_utf8();
    }
    text
}

/// Behind the closing quote of the string that the text begins with.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The last string among the arguments, as it is logged; it must say something by itself.
fn message(arguments: &str) -> Option<String> {
    let arguments = arguments.trim_end().trim_end_matches(',').trim_end();
    let mut at = 0;
    while let Some(offset) = arguments[at..].find('"') {
        let end = at + offset + string_end(&arguments[at + offset..]);
        if end == arguments.len() {
            let literal = &arguments[at + offset + 1..end - 1];
            let lines: Vec<&str> = literal.split("\\\n").map(str::trim_start).collect();
            return Some(lines.concat().replace("\\\"", "\"")).filter(|text| !text.contains('{'));
        }
        at = end;
    }
    None
}

fn logged() -> BTreeSet<Message> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut messages = BTreeSet::new();
    for file in sources(&src) {
        for (level, arguments) in calls(&fs::read_to_string(&file).unwrap()) {
            let text = message(arguments).unwrap_or_else(|| {
                panic!(
                    "{}: {level}!({arguments}): end it in a message without values; they are fields",
                    file.display()
                )
            });
            assert!(
                messages.insert((level.to_owned(), text.clone())),
                "two places log `{text}`: say what differs"
            );
        }
    }
    messages
}

/// The rows `| level | message | …` of the page's section on the log.
fn explained() -> Vec<Message> {
    let page = include_str!("../../docs/operating.md");
    let section = page.split("\n## What the log says\n").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().expect("a section has an end");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    rows.filter(|(level, _)| ["warn", "error"].contains(level))
        .map(|(level, rest)| {
            let message = rest.split_once("` | ").and_then(|(cell, means)| {
                assert!(
                    means.matches(" | ").count() == 1 && means.len() > 20,
                    "{rest}: say what it means and what to do"
                );
                cell.strip_prefix('`')
            });
            (level.to_owned(), message.unwrap_or_else(|| panic!("{rest}: quote the message")).to_owned())
        })
        .collect()
}

#[test]
fn every_warning_and_error_is_explained_and_none_that_is_gone() {
    let (logged, rows) = (logged(), explained());
    assert!(logged.len() > 20, "only {} messages were found", logged.len());
    let explained: BTreeSet<Message> = rows.iter().cloned().collect();
    assert_eq!(explained.len(), rows.len(), "a message is explained twice");
    let missing: Vec<_> = logged.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&logged).collect();
    assert!(missing.is_empty(), "docs/operating.md, What the log says, lacks {missing:#?}");
    assert!(gone.is_empty(), "docs/operating.md explains what nothing logs: {gone:#?}");
}

#[test]
fn messages_are_found_in_whatever_form_they_are_written() {
    let source = r#"
        tracing::warn!(%error, path = f("a)b", x[0]), "first");
        error!(
            ?settings,
            "sec\
             ond \"quoted\"",
        );
        fn rewarn() { forewarn!("no") }
        Err(e) => warn!("third"),
    "#;
    let found: Vec<_> = calls(source).into_iter().map(|(level, it)| (level, message(it))).collect();
    let wanted = [("warn", "first"), ("warn", "third"), ("error", "second \"quoted\"")];
    assert_eq!(found, wanted.map(|(level, text)| (level, Some(text.to_owned()))));
    assert_eq!(message("%proxy, \"{note}\""), None);
    assert_eq!(message("\"text\", value"), None);
}
