//! Small sources with one fault planted in each: a rule that no longer bites fails here.

use super::{
    rules::{self, Layer},
    source::{self, Module},
};

const TABLE: &[Layer] = &[
    Layer { name: "lib", may_import: &[], pure: true },
    Layer { name: "model", may_import: &[], pure: true },
    Layer { name: "wire", may_import: &["model"], pure: false },
    Layer { name: "wire::index", may_import: &["model"], pure: true },
    Layer { name: "shell", may_import: &["model", "wire"], pure: false },
    Layer { name: "shell::", may_import: &["shell"], pure: true },
];

fn sources(files: &[(&str, &str)]) -> Vec<Module> {
    files.iter().filter_map(|(file, text)| source::parse(file, text)).collect()
}

/// The problems of `planted` as the text of one file among sound ones.
fn problems(file: &str, planted: &str) -> Vec<String> {
    let sound = [
        ("lib.rs", "pub mod model; pub mod shell; pub mod wire;"),
        ("model.rs", "pub struct Name;"),
        ("wire.rs", "pub mod index; use crate::model::Name;"),
        ("wire/index.rs", "use crate::model::Name;"),
        ("shell.rs", "use crate::{model::Name, wire};"),
    ];
    let mut files: Vec<_> = sound.into_iter().filter(|(name, _)| *name != file).collect();
    files.push((file, planted));
    rules::problems(&sources(&files), TABLE)
}

#[track_caller]
fn caught(file: &str, planted: &str, word: &str) {
    let found = problems(file, planted);
    assert!(found.iter().any(|line| line.contains(word)), "{planted}\n{found:?}");
}

#[track_caller]
fn sound(file: &str, text: &str) {
    assert_eq!(problems(file, text), Vec::<String>::new(), "{text}");
}

#[test]
fn sound_sources_have_no_problems() {
    sound("model.rs", "pub struct Name;");
}

#[test]
fn an_import_of_a_stranger_is_caught_however_it_is_written() {
    for planted in [
        "use crate::shell::Thing;",
        "use crate::shell;",
        "use crate::shell as s;",
        "use crate::shell::*;",
        "use crate::{model::Name, wire::{index::{A, B}}};",
        "use {std::fmt, crate::wire::A};",
        "fn f() { crate::shell::go() }",
        "fn f() -> Vec::<crate::shell::Thing> { todo() }",
        "fn f() { let a = b'\"'; let l: &'static str = r#\"//\"#; crate::shell::go() }",
        "fn f() { let c = '\\''; crate::shell::go() } /* ' */",
        "#[cfg(test)] use std::fmt; use crate::shell::A;",
        "struct S { #[cfg(test)] a: u8, b: crate::shell::A }",
        "#[cfg(test)] mod tests { fn f() {} } pub fn g() { crate::shell::go() }",
        "use crate::shell::{self as s, A};",
        "use causeway::shell::A;",
    ] {
        caught("model.rs", planted, "model may not import");
    }
    caught("wire/index.rs", "use crate::wire::Client;", "wire::index may not import wire");
    caught("wire.rs", "pub mod index; use crate::shell::A;", "wire may not import shell");
}

#[test]
fn a_child_module_is_an_import_also_without_crate() {
    for planted in
        ["mod index; use self::index::A;", "mod index; use index::A;", "mod index; fn f() { index::go() }"]
    {
        caught("wire.rs", planted, "wire may not import wire::index");
    }
    sound("wire.rs", "pub mod index; use crate::model::Name;");
}

#[test]
fn what_is_not_shipped_code_is_no_import() {
    for text in [
        "// use crate::shell::A;\n/* use crate::shell::A; /* nested */ crate::shell */ pub struct Name;",
        "/// See [`crate::shell`].\npub const S: &str = \"crate::shell::A \\\" HashMap\";",
        "pub const S: &str = r##\"crate::shell \"# tokio::x\"##;",
        "#[cfg(test)]\nmod tests { use crate::shell::A; use super::*; use std::collections::HashMap; }",
        "#[cfg(test)]\nmod tests;",
        "#[cfg(test)]\n#[allow(dead_code)]\nfn f() { crate::shell::go() }",
        "#[cfg(test)] use crate::{shell::A, wire};",
        "pub(super) struct Name<'a>(&'a str);",
        "pub enum Kind { A } impl Kind { fn f(self) -> bool { self == Kind::A && Self::g() } }",
    ] {
        sound("model.rs", text);
    }
    sound("model/tests.rs", "use super::*; use crate::shell::A;");
}

#[test]
fn an_impure_token_in_a_pure_module_is_caught() {
    for (planted, word) in [
        ("use std::collections::HashMap;", "HashMap"),
        ("use std::{collections::{BTreeMap, HashSet}};", "HashSet"),
        ("use std::{env, fmt};", "std::env"),
        ("fn f() { let t = std::fs::read(p); }", "std::fs"),
        ("use tokio::time::Instant;", "tokio"),
        ("use tonic as t; use tonic::Status;", "tonic"),
        ("fn f() { hyper::go() }", "hyper"),
        ("use std::time; fn f() { time::Instant::now() }", "Instant"),
        ("use std::time::SystemTime;", "SystemTime"),
        ("fn f() { g() . await }", "await"),
        ("pub async fn f() {}", "async"),
    ] {
        caught("model.rs", planted, word);
        let found = problems("shell.rs", planted);
        assert!(found.is_empty(), "a shell may: {found:?}");
    }
}

#[test]
fn a_layer_may_be_what_lies_below_a_module() {
    caught("shell/part.rs", "use std::fs;", "shell::part is pure");
    caught("shell/part.rs", "use crate::model::Name;", "shell::part may not import model");
    sound("shell/part.rs", "use crate::shell::Thing;");
    sound("shell.rs", "use std::fs;");
}

#[test]
fn a_cycle_is_caught_even_where_the_table_would_allow_it() {
    let allowing = &[
        Layer { name: "a", may_import: &["b"], pure: false },
        Layer { name: "b", may_import: &["c"], pure: false },
        Layer { name: "c", may_import: &["a"], pure: false },
        Layer { name: "d", may_import: &["a"], pure: false },
    ];
    let modules = sources(&[
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "fn f() { crate::c::go() }"),
        ("c/deep.rs", "use crate::{a::A};"),
        ("c.rs", "mod deep;"),
        ("d.rs", "use crate::a::A;"),
    ]);
    assert_eq!(rules::problems(&modules, allowing), ["import cycle: a <-> b <-> c"]);
    assert_eq!(rules::cycles_in_table(allowing), [["a", "b", "c"]]);
}

#[test]
fn a_module_outside_the_table_is_caught() {
    caught("stranger.rs", "", "stranger is not in the layer table");
    caught("modelling.rs", "", "modelling is not in the layer table");
    caught("model.rs", "use crate::nowhere::A;", "no module of this crate");
    caught("model.rs", "use crate::Thing;", "no module of this crate");
}

#[test]
fn what_hides_an_import_is_caught() {
    caught("shell.rs", "use super::model::Name;", "super::");
    caught("shell.rs", "mod inner { use super::*; }", "super::");
    caught("shell.rs", "use crate::*;", "glob");
    caught("shell/mod.rs", "", "mod.rs");
}
