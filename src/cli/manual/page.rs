//! One manual page. Pure.
//!
//! clap_mangen knows options and synopsis. The text behind a command's help it would fill like prose, examples
//! included; here it becomes sections of its own, with examples kept as they are typed.

use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// Equal sources give equal pages. Nothing at all would let the next word take the date's place.
const NO_DATE: &str = " ";

/// The page's name without its section: `causeway-proxy-status`.
pub(crate) fn name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// The page of a built command. `parent` is the name of the page above it.
pub(crate) fn page(command: &clap::Command, parent: Option<&str>) -> String {
    let source = format!("causeway {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        .date(NO_DATE)
        .source(source)
        .manual("Causeway manual");
    let mut out = Vec::new();
    render(&man, command, parent, &mut out).expect("a vector takes every byte");
    String::from_utf8_lossy(&out).into_owned()
}

fn render(
    man: &Man,
    command: &clap::Command,
    parent: Option<&str>,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(out)?;
    }
    if command.get_subcommands().any(|child| !child.is_hide_set()) {
        man.render_subcommands_section(out)?;
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    let mut roff = Roff::new();
    for section in sections(&after.map(ToString::to_string).unwrap_or_default()) {
        add(&mut roff, &section);
    }
    see_also(&mut roff, command, parent);
    roff.to_writer(out)
}

/// A part of the text behind a command's help.
#[derive(Debug, PartialEq)]
struct Section {
    heading: &'static str,
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq)]
enum Line {
    /// Indented in the help: something to type, or a table.
    Kept(String),
    Prose(String),
    Break,
}

/// The parts of such a text. Only `Example:` and `Exit code:`, each also in the plural, begin a section of their own.
fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        let (heading, line) = match begins(line) {
            Some((heading, rest)) => (Some(heading), rest),
            None if sections.is_empty() && !line.trim().is_empty() => (Some("NOTES"), line),
            None => (None, line),
        };
        if let Some(heading) = heading {
            sections.push(Section { heading, lines: Vec::new() });
        }
        let Some(section) = sections.last_mut() else { continue };
        // What follows the examples after an empty line, at the margin, is no example.
        if section.heading == "EXAMPLES" && heading.is_none() && !line.is_empty() && !line.starts_with(' ') {
            sections.push(Section { heading: "NOTES", lines: vec![Line::Prose(line.into())] });
            continue;
        }
        match line {
            _ if heading.is_some() && line.is_empty() => {}
            "" => section.lines.push(Line::Break),
            _ if line.starts_with(' ') => section.lines.push(Line::Kept(line.trim_start().into())),
            _ => section.lines.push(Line::Prose(line.into())),
        }
    }
    for section in &mut sections {
        section.lines.truncate(1 + section.lines.iter().rposition(|line| *line != Line::Break).unwrap_or(0));
    }
    sections
}

fn begins(line: &str) -> Option<(&'static str, &str)> {
    const HEADINGS: [(&str, &str); 4] = [
        ("Example:", "EXAMPLES"),
        ("Examples:", "EXAMPLES"),
        ("Exit code:", "EXIT STATUS"),
        ("Exit codes:", "EXIT STATUS"),
    ];
    HEADINGS.iter().find_map(|(word, heading)| Some((*heading, line.strip_prefix(word)?.trim_start())))
}

fn add(roff: &mut Roff, section: &Section) {
    roff.control("SH", [section.heading]);
    let mut is_kept = false;
    for line in &section.lines {
        let keeps = matches!(line, Line::Kept(_)) || (is_kept && matches!(line, Line::Break));
        match (is_kept, keeps) {
            (false, true) => roff.control("RS", ["4"]).control("nf", []),
            (true, false) => roff.control("fi", []).control("RE", []),
            _ => roff,
        };
        is_kept = keeps;
        match line {
            Line::Kept(text) | Line::Prose(text) => roff.text([roman(text.as_str())]),
            Line::Break => roff.control("PP", []),
        };
    }
    if is_kept {
        roff.control("fi", []).control("RE", []);
    }
}

fn see_also(roff: &mut Roff, command: &clap::Command, parent: Option<&str>) {
    let own = name(command);
    let children = command.get_subcommands().filter(|child| !child.is_hide_set()).map(name);
    let mut pages: Vec<(String, &str)> =
        parent.map(str::to_owned).into_iter().chain(children).map(|page| (page, "1")).collect();
    if matches!(own.as_str(), "causeway" | "causeway-agent" | "causeway-check-config") {
        pages.push(("causeway-agent.toml".into(), "5"));
    }
    if pages.is_empty() {
        return;
    }
    roff.control("SH", ["SEE ALSO"]);
    let last = pages.len() - 1;
    for (at, (page, section)) in pages.into_iter().enumerate() {
        let end = if at == last { "" } else { "," };
        roff.text([bold(page), roman(format!("({section}){end}"))]);
    }
}
