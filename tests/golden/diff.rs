//! What differs between expected and made, as a person wants to read it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Lines shown around a difference.
const CONTEXT: usize = 3;
/// Lines shown of one difference; the rest is counted.
const LINES: usize = 40;

/// Differences resource by resource: `+` is made and not expected, `-` is expected and not made.
pub(super) fn resources(wanted: &Value, made: &Value) -> Vec<String> {
    let nothing = Map::new();
    let of = |value: &Value| value.as_object().unwrap_or(&nothing).clone();
    let (wanted, made) = (of(wanted), of(made));
    let kinds: BTreeSet<&String> = wanted.keys().chain(made.keys()).collect();
    let mut told = Vec::new();
    for kind in kinds {
        let by_name = |all: &Map<String, Value>| all.get(kind).map(of).unwrap_or_default();
        let (wanted, made) = (by_name(&wanted), by_name(&made));
        let names: BTreeSet<&String> = wanted.keys().chain(made.keys()).collect();
        for name in names {
            match (wanted.get(name), made.get(name)) {
                (Some(wanted), Some(made)) if wanted != made => {
                    told.extend(text(
                        &format!("{kind} {name}"),
                        &format!("{wanted:#}"),
                        &format!("{made:#}"),
                    ));
                }
                (Some(_), None) => told.push(format!("- {kind} {name}")),
                (None, Some(made)) => told.push(format!("+ {kind} {name}\n{made:#}")),
                _ => {}
            }
        }
    }
    told
}

/// The lines between the first and the last difference, with some around them.
pub(super) fn text(about: &str, wanted: &str, made: &str) -> Option<String> {
    if wanted == made {
        return None;
    }
    let (wanted, made): (Vec<_>, Vec<_>) = (wanted.lines().collect(), made.lines().collect());
    let start = wanted.iter().zip(&made).take_while(|(a, b)| a == b).count();
    let rest = wanted.len().min(made.len()) - start;
    let end = wanted.iter().rev().zip(made.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut lines = vec![format!("~ {about}")];
    lines.extend(wanted[start.saturating_sub(CONTEXT)..start].iter().map(|line| format!("  {line}")));
    lines.extend(marked('-', &wanted[start..wanted.len() - end]));
    lines.extend(marked('+', &made[start..made.len() - end]));
    lines.extend(made[made.len() - end..].iter().take(CONTEXT).map(|line| format!("  {line}")));
    Some(lines.join("\n"))
}

fn marked(mark: char, lines: &[&str]) -> Vec<String> {
    let mut marked: Vec<_> = lines.iter().take(LINES).map(|line| format!("{mark} {line}")).collect();
    if lines.len() > LINES {
        marked.push(format!("{mark} ... {} more lines", lines.len() - LINES));
    }
    marked
}
