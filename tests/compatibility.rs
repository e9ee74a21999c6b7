//! `docs/compatibility.md` quotes notes: each must be one that a golden case shows. What such a case shows is gathered
//! as the publisher gathers it for `/status`: what was noted in Consul's answers, what `build` notes, and why it waits.

use std::{fs, path::Path};

/// All that golden cases show beside resources.
fn shown() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shown = String::new();
    for kind in ["recorded", "handmade"] {
        for case in fs::read_dir(root.join("tests/golden").join(kind)).expect("the golden cases are there") {
            let notes = case.expect("a case has a name").path().join("expected/notes.txt");
            shown += &fs::read_to_string(&notes).expect("every case says what it notes");
        }
    }
    shown
}

#[test]
fn the_notes_that_the_documentation_quotes_are_shown() {
    let page = include_str!("../docs/compatibility.md");
    let section = page.split("## Not served, with its note").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().expect("a section has an end");
    let shown = shown();
    let (mut quoted, mut missing) = (0, Vec::new());
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        // A note with backquotes of its own is quoted in pieces.
        for note in row.rsplit(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2) {
            quoted += 1;
            if !shown.contains(note) {
                missing.push(note);
            }
        }
    }
    assert!(quoted > 30, "only {quoted} quotes were found");
    assert!(missing.is_empty(), "no golden case shows these notes:\n{}", missing.join("\n"));
}
