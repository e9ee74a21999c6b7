//! The rules: layers, purity, spelling of imports, no cycles. Data in, problems out.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Module, PathUse, Token};

/// One row of the table.
pub(crate) struct Layer {
    /// A module's path; everything below it belongs here too, unless a longer name takes it. With `::` at its
    /// end it is what lies below only.
    pub(crate) name: &'static str,
    /// Names of modules; what is below them is included.
    pub(crate) may_import: &'static [&'static str],
    /// Whether the layer only decides.
    pub(crate) pure: bool,
}

/// The library's own name, by which `main` imports it.
const CRATE: &str = "causeway";

/// Beginnings of paths that a pure module has no business with.
const IMPURE_PATHS: &[&str] = &[
    "hyper",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "tokio",
    "tonic",
];
/// Names that a pure module does not speak. Hashed containers have no order; clocks are arguments.
const IMPURE_NAMES: &[&str] = &["HashMap", "HashSet", "SystemTime"];
/// Sequences of tokens.
const IMPURE_SEQUENCES: &[&[&str]] =
    &[&["Instant", "::", "now"], &[".", "await"], &["async", "fn"], &["async", "move"], &["async", "{"]];

/// Everything wrong with these sources, one line each.
pub(crate) fn problems(modules: &[Module], layers: &[Layer]) -> Vec<String> {
    let mut found = Vec::new();
    let known: BTreeSet<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    for module in modules {
        if module.file.ends_with("/mod.rs") {
            found.push(format!("src/{}: a module is `foo.rs` beside `foo/`, not `foo/mod.rs`", module.file));
        }
        let Some(layer) = layer_of(&module.name, layers) else {
            found.push(format!("src/{}: {} is not in the layer table", module.file, module.name));
            continue;
        };
        found.extend(spelling(module));
        found.extend(strangers(module, layer, layers, &known));
        if layer.pure {
            found.extend(impurities(module));
        }
    }
    found.extend(cycles(modules).iter().map(|cycle| format!("import cycle: {}", cycle.join(" <-> "))));
    found
}

fn layer_of<'a>(module: &str, layers: &'a [Layer]) -> Option<&'a Layer> {
    let holds = |layer: &&Layer| match layer.name.strip_suffix("::") {
        Some(_) => module.starts_with(layer.name),
        None => is_at_or_below(module, layer.name),
    };
    layers.iter().filter(holds).max_by_key(|layer| layer.name.len())
}

fn is_at_or_below(module: &str, name: &str) -> bool {
    module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `super::` and items of the crate's root hide who imports whom.
fn spelling(module: &Module) -> Vec<String> {
    let mut found = Vec::new();
    for path in &module.paths {
        let at = format!("src/{}:{}", module.file, path.line);
        if path.segments.iter().any(|segment| segment == "super") {
            found.push(format!("{at}: `{}`: write `crate::`, not `super::`", path.segments.join("::")));
        }
        if path.segments.len() == 2 && is_root(&path.segments[0]) && path.segments[1] == "*" {
            found.push(format!("{at}: a glob of the crate's root imports every layer; name the module"));
        }
    }
    found
}

fn is_root(segment: &str) -> bool {
    segment == "crate" || segment == CRATE
}

fn strangers(module: &Module, layer: &Layer, layers: &[Layer], known: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for path in &module.paths {
        let at = format!("src/{}:{}", module.file, path.line);
        match imported(module, path, known) {
            Import::Module(name) if !may_import(layer, &name, layers) => {
                found.push(format!("{at}: {} may not import {name}: {}", module.name, allowance(layer)));
            }
            Import::Unknown(name) => found.push(format!("{at}: {name} is no module of this crate")),
            Import::Module(_) | Import::Elsewhere => {}
        }
    }
    found
}

fn may_import(layer: &Layer, module: &str, layers: &[Layer]) -> bool {
    let is_own = layer_of(module, layers).is_some_and(|other| other.name == layer.name);
    is_own || layer.may_import.iter().any(|name| is_at_or_below(module, name))
}

fn allowance(layer: &Layer) -> String {
    if layer.may_import.is_empty() {
        return format!("layer `{}` imports no other", layer.name);
    }
    format!("layer `{}` imports only {}", layer.name, layer.may_import.join(", "))
}

enum Import {
    /// A module of this crate, by its longest known name.
    Module(String),
    /// A path into this crate that leads to no module.
    Unknown(String),
    /// Another crate, or an item of the file itself.
    Elsewhere,
}

/// `crate::a::B`, `self::a::B` and, beside `mod a;`, plain `a::B` all lead into this crate.
fn imported(module: &Module, path: &PathUse, known: &BTreeSet<&str>) -> Import {
    let here = if matches!(module.name.as_str(), "lib" | "main") { "" } else { module.name.as_str() };
    let (from, segments) = match path.segments.first().map(String::as_str) {
        Some(first) if is_root(first) => ("", &path.segments[1..]),
        Some("self") => (here, &path.segments[1..]),
        Some(first) if module.children.contains(first) => (here, &path.segments[..]),
        _ => return Import::Elsewhere,
    };
    let full: Vec<&str> =
        from.split("::").filter(|part| !part.is_empty()).chain(segments.iter().map(String::as_str)).collect();
    let longest =
        (1..=full.len()).rev().map(|n| full[..n].join("::")).find(|name| known.contains(name.as_str()));
    match longest {
        Some(name) => Import::Module(name),
        None if path.is_macro || full == ["*"] || full == ["self"] => Import::Elsewhere,
        None if from.is_empty() && path.segments.first().is_some_and(|first| is_root(first)) => {
            Import::Unknown(full.join("::"))
        }
        None => Import::Elsewhere,
    }
}

/// What a pure module does beyond deciding.
pub(crate) fn impurities(module: &Module) -> Vec<String> {
    let mut found = BTreeSet::new();
    for path in &module.paths {
        let full = path.segments.join("::");
        if IMPURE_PATHS.iter().any(|banned| is_at_or_below(&full, banned)) {
            found.insert((path.line, full));
        }
    }
    for (at, token) in module.tokens.iter().enumerate() {
        if IMPURE_NAMES.contains(&token.text.as_str()) {
            found.insert((token.line, token.text.clone()));
        }
        for sequence in IMPURE_SEQUENCES.iter().filter(|sequence| starts_with(&module.tokens[at..], sequence))
        {
            found.insert((token.line, sequence.join(" ")));
        }
    }
    let say = |(line, what)| format!("src/{}:{line}: {} is pure but uses `{what}`", module.file, module.name);
    found.into_iter().map(say).collect()
}

fn starts_with(tokens: &[Token], sequence: &[&str]) -> bool {
    tokens.len() >= sequence.len() && tokens.iter().zip(sequence).all(|(token, text)| token.text == *text)
}

/// Sets of top-level modules that reach each other, from the sources.
pub(crate) fn cycles(modules: &[Module]) -> Vec<Vec<String>> {
    let known: BTreeSet<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    let mut arrows = Arrows::new();
    for module in modules {
        for path in &module.paths {
            if let Import::Module(name) = imported(module, path, &known) {
                arrows.entry(top(&module.name)).or_default().insert(top(&name));
            }
        }
    }
    knots(&arrows)
}

/// The same, from what the table allows.
pub(crate) fn cycles_in_table(layers: &[Layer]) -> Vec<Vec<String>> {
    let mut arrows = Arrows::new();
    for layer in layers {
        arrows.entry(top(layer.name)).or_default().extend(layer.may_import.iter().map(|name| top(name)));
    }
    knots(&arrows)
}

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn top(module: &str) -> String {
    module.split("::").next().unwrap_or(module).to_owned()
}

fn knots(arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<String>> =
        arrows.keys().map(|from| (from, reach(from, arrows))).collect();
    let mut found = BTreeSet::new();
    for (from, there) in &reached {
        let back = |other: &&String| reached.get(*other).is_some_and(|reach| reach.contains(*from));
        let mut knot: BTreeSet<String> = there.iter().filter(back).cloned().collect();
        knot.insert((*from).clone());
        if knot.len() > 1 {
            found.insert(knot.into_iter().collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

fn reach(from: &str, arrows: &Arrows) -> BTreeSet<String> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(next) = todo.pop() {
        for other in arrows.get(&next).into_iter().flatten() {
            if seen.insert(other.clone()) {
                todo.push(other.clone());
            }
        }
    }
    seen
}
