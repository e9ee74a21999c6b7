//! Comparisons against the known fields: the selector exists, the operator suits its type, the value is of its type.

use regex::bytes::Regex;

use crate::model::filter::{
    FilterError,
    fields::{ENTRY, Field},
    literal, pattern,
    syntax::{Operator, Tree, Written},
};

/// A filter that can be asked.
pub(super) type Expression = Tree<Comparison>;

/// A comparison whose selector, operator and value suit each other.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The selector; every part is a known field or a name of a map.
    pub(super) path: Vec<String>,
    /// What is asked of the field.
    pub(super) test: Test,
    /// Whether the opposite is asked.
    pub(super) is_negated: bool,
}

/// What is asked of a field.
#[derive(Debug)]
pub(super) enum Test {
    /// It is this text.
    Text(String),
    /// It is this number.
    Whole(i64),
    /// It is so.
    Flag(bool),
    /// This is part of the text, in the list, or a name of the map.
    Contains(String),
    /// It has nothing in it.
    Empty,
    /// This is found in it.
    Matches(Regex),
}

/// Checks every comparison.
pub(super) fn check(text: &str, tree: Tree<Written>) -> Result<Expression, FilterError> {
    let each =
        |parts: Vec<Tree<Written>>| parts.into_iter().map(|part| check(text, part)).collect::<Result<_, _>>();
    Ok(match tree {
        Tree::Not(inner) => Tree::Not(Box::new(check(text, *inner)?)),
        Tree::All(parts) => Tree::All(each(parts)?),
        Tree::Any(parts) => Tree::Any(each(parts)?),
        Tree::Leaf(written) => {
            let at = written.at;
            Tree::Leaf(comparison(written).map_err(|problem| FilterError::at(text, at, problem))?)
        }
    })
}

fn comparison(written: Written) -> Result<Comparison, String> {
    let field = field(&written.path)?;
    let shown = written.path.join(".");
    let unsuited = || format!("`{shown}` takes {}", field.operators());
    let value = written.value.unwrap_or_default();
    let test = match (field, written.operator) {
        (Field::Text, Operator::Equal) => Test::Text(value),
        (Field::Whole, Operator::Equal) => Test::Whole(
            literal::whole(&value)
                .ok_or_else(|| format!("`{shown}` is a whole number, `{value}` is none"))?,
        ),
        (Field::Flag, Operator::Equal) => Test::Flag(
            literal::flag(&value)
                .ok_or_else(|| format!("`{shown}` is true or false, `{value}` is neither"))?,
        ),
        (Field::Text | Field::Texts | Field::Map(_), Operator::In) => Test::Contains(value),
        (Field::Texts | Field::Map(_) | Field::List(_), Operator::Empty) => Test::Empty,
        (Field::Text, Operator::Matches) => Test::Matches(
            pattern::compile(&value)
                .map_err(|problem| format!("the pattern `{value}` cannot be used: {problem}"))?,
        ),
        _ => return Err(unsuited()),
    };
    Ok(Comparison { path: written.path, test, is_negated: written.is_negated })
}

/// The field that a selector selects.
fn field(path: &[String]) -> Result<&'static Field, String> {
    let mut field: &'static Field = &ENTRY;
    for (nth, name) in path.iter().enumerate() {
        let Some(part) = field.part(name) else {
            let shown = path[..=nth].join(".");
            let names = field.names();
            return Err(if names.is_empty() {
                format!("`{shown}` is no field of a health entry; `{}` has no parts", path[..nth].join("."))
            } else {
                format!("`{shown}` is no field of a health entry; write one of {}", names.join(", "))
            });
        };
        field = part;
    }
    Ok(field)
}
