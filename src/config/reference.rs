//! What the declarations say, for people: the tables of `docs/configuration.md` and the example file.

use crate::config::{
    Config,
    key::{Effect, Key, Kind, SECTIONS, Section},
};

/// Comments of the example are wrapped here.
const EXAMPLE_WIDTH: usize = 100;

const EXAMPLE_HEAD: &str = "\
# Causeway's agent. Every key is optional: these are the defaults, and lines that begin with `#` and a key are off
# by default. docs/configuration.md has more on each; `causeway check-config FILE` checks a file.
";

/// The headers of all sections, and of the tables of which some have many, each with the Markdown table of its keys.
/// They are in the order in which they are told.
pub fn tables() -> impl Iterator<Item = (String, String)> {
    SECTIONS.iter().flat_map(|section| {
        let own = (format!("[{}]", section.name), table(section.keys));
        let many = below(section).map(|(header, keys)| (header, table(keys)));
        std::iter::once(own).chain(many)
    })
}

/// The tables `[[section.key]]` of a section, with their headers.
fn below(section: &'static Section) -> impl Iterator<Item = (String, &'static [Key])> {
    section.keys.iter().filter_map(|key| match key.kind {
        Kind::Tables(keys) => Some((format!("[[{}.{}]]", section.name, key.name), keys)),
        _ => None,
    })
}

fn table(keys: &[Key]) -> String {
    let has_variables = keys.iter().any(|key| key.variable.is_some());
    let mut head = vec!["key", "type and limits", "default", "a change takes effect"];
    if has_variables {
        head.push("variable");
    }
    head.push("meaning");
    let mut lines = vec![row(&head), row(&vec!["---"; head.len()])];
    for key in keys {
        let mut cells = vec![format!("`{}`", key.name), kind(key), default(key), effect(key).to_owned()];
        if has_variables {
            cells.push(key.variable.map(|variable| format!("`{variable}`")).unwrap_or_default());
        }
        let gap = if key.more.is_empty() { "" } else { ". " };
        cells.push(format!("{}{gap}{}", key.meaning, key.more));
        lines.push(row(&cells));
    }
    lines.join("\n")
}

/// The example file: every key with its default, or behind `# ` with a value that it takes.
pub fn example() -> String {
    SECTIONS.iter().fold(EXAMPLE_HEAD.to_owned(), |text, section| text + "\n" + &example_section(section))
}

fn example_section(section: &'static Section) -> String {
    let mut text = format!("# {}\n[{}]\n", section.about, section.name);
    for key in section.keys {
        let comment = match &key.kind {
            Kind::Choice(_) | Kind::Flag | Kind::Tables(_) => key.meaning.to_owned(),
            Kind::Text(_) | Kind::Number(..) | Kind::List(_) => format!("{} ({})", key.meaning, kind(key)),
        };
        text += &wrapped(&comment, EXAMPLE_WIDTH);
        if let Kind::Tables(keys) = key.kind {
            text += &format!("# [[{}.{}]]\n", section.name, key.name);
            text += &keys.iter().map(|key| format!("# {} = {}\n", key.name, key.example)).collect::<String>();
            continue;
        }
        let default = (key.value)(&Config::default()).written();
        text += &match default.filter(|_| !key.needs_another) {
            Some(default) => format!("{} = {default}\n", key.name),
            None => format!("# {} = {}\n", key.name, key.example),
        };
    }
    text
}

fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => *line += &format!(" {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

fn row(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |", cells.join(" | "))
}

fn kind(key: &Key) -> String {
    match &key.kind {
        Kind::Text(what) => (*what).to_owned(),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(" or ")
        }
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Number(unit, limits) => format!("{unit}, {} to {}", limits.start(), limits.end()),
        Kind::List(what) => format!("list of {what}"),
        Kind::Tables(_) => "tables".to_owned(),
    }
}

fn default(key: &Key) -> String {
    (key.value)(&Config::default())
        .written()
        .map_or_else(|| key.unset.to_owned(), |value| format!("`{value}`"))
}

fn effect(key: &Key) -> &'static str {
    match key.effect {
        Effect::Restart => "restart",
        Effect::RestartContentsAtOnce => "restart (its contents: at once)",
        Effect::Reload(_) => "reload",
    }
}
