//! `docs/configuration.md` and `docs/examples/agent.toml` say what the program reads: the tables of the one and all of
//! the other are written from the declarations of the keys.

use std::path::{Path, PathBuf};

use causeway::config::reference;

const END: &str = "\n<!-- end -->";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Compares, or writes with `UPDATE_GOLDEN`.
#[track_caller]
fn is_golden(name: &str, wanted: &str) {
    let file = file(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, wanted).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(wanted.lines()).find(|(is, wants)| is != wants);
    assert!(written == wanted, "docs/{name} is behind the program; `make fix` writes it: {differs:#?}");
}

/// The page with this text between the comment that begins with `mark` and the next end.
fn filled(page: &str, mark: &str, text: &str) -> String {
    let (head, rest) = page.split_once(&format!("<!-- {mark}: ")).unwrap_or_else(|| {
        panic!("docs/configuration.md has no place for this: write `<!-- {mark}: … -->` and `<!-- end -->`")
    });
    let (comment, rest) = rest.split_once('\n').unwrap();
    let (_, tail) = rest.split_once(END.trim_start()).unwrap();
    format!("{head}<!-- {mark}: {comment}\n\n{text}\n{END}{tail}")
}

#[test]
fn the_tables_of_keys_are_golden() {
    let mut page = std::fs::read_to_string(file("configuration.md")).unwrap();
    for (header, table) in reference::tables() {
        page = filled(&page, &format!("keys of {header}"), &table);
    }
    is_golden("configuration.md", &page);
}

#[test]
fn the_example_is_golden() {
    is_golden("examples/agent.toml", &reference::example());
}
