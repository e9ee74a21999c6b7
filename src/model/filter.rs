//! Consul's filter language over a health entry, as subsets of a `service-resolver` use it. Pure.
//!
//! The language is that of go-bexpr 0.1.2, which Consul 1.8.7 holds and later versions kept as far as their sources
//! could be read; `tests/consul.rs` compares the answers with a real Consul. What differs on purpose:
//!
//! - Blank text matches everything. Consul takes no text as no filter, and fails a query with blanks alone.
//! - The fields of all versions are known together: one that the entry's Consul does not have counts as empty there,
//!   where that Consul would refuse the query.
//! - [`MAX_BYTES`], [`MAX_DEPTH`], [`MAX_COMPARISONS`] and the size of a pattern have limits.
//! - A quoted text whose escapes make no UTF-8, or half a UTF-16 pair, is refused: no text of an entry can be equal to it.
//! - `matches` runs Go's syntax of regular expressions on another engine, see `pattern`; it takes some names of
//!   Unicode classes that Go does not know.

mod check;
mod evaluate;
mod fields;
mod literal;
mod pattern;
mod syntax;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use crate::model::filter::check::Expression;

/// The longest filter that is read, in bytes. Consul has no limit of its own.
pub const MAX_BYTES: usize = 64 * 1024;

/// How deep `not` and parentheses may nest, which bounds the stack. Consul's own parser takes time that is
/// exponential in this depth.
pub const MAX_DEPTH: usize = 100;

/// The most comparisons of one filter; with the size of one pattern it bounds what a filter takes in memory.
pub const MAX_COMPARISONS: usize = 256;

/// A parsed filter.
#[derive(Clone)]
pub struct Filter {
    text: String,
    /// `None` matches everything.
    expression: Option<Arc<Expression>>,
}

/// Why a filter cannot be applied: where in its text, what is wrong and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl FilterError {
    /// A problem at byte `at` of the filter's text, shown as a character counted from 1.
    fn at(text: &str, at: usize, problem: impl fmt::Display) -> Self {
        let before = text.get(..at).unwrap_or(text).chars().count();
        Self(format!("at character {} of the filter: {problem}", before + 1))
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Reads a filter's text; blank text matches everything.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.trim().is_empty() {
            return Ok(Self { text: String::new(), expression: None });
        }
        if text.len() > MAX_BYTES {
            return Err(FilterError(format!(
                "the filter is longer than {MAX_BYTES} bytes; write a shorter one"
            )));
        }
        let expression = check::check(text, syntax::parse(text)?)?;
        Ok(Self { text: text.to_owned(), expression: Some(Arc::new(expression)) })
    }

    /// Whether a health entry matches: an object with `Node`, `Service` and `Checks` as Consul's API gives them.
    /// Fields that Consul leaves out count as empty, 0 or false. An entry of another shape is an error.
    pub fn matches(&self, entry: &serde_json::Value) -> Result<bool, FilterError> {
        self.expression.as_ref().map_or(Ok(true), |expression| evaluate::holds(expression, entry))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

/// Filters of the same text are the same filter.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

/// A filter as somebody wrote it, read once: texts are parsed and patterns compiled where it enters, not where it is
/// applied, which is at every build.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "String")]
pub struct WrittenFilter {
    text: String,
    read: Result<Filter, FilterError>,
}

impl WrittenFilter {
    /// The filter, or why it cannot be applied.
    pub fn read(&self) -> Result<&Filter, FilterError> {
        self.read.as_ref().map_err(FilterError::clone)
    }
}

impl From<String> for WrittenFilter {
    fn from(text: String) -> Self {
        Self { read: Filter::parse(&text), text }
    }
}

impl PartialEq for WrittenFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for WrittenFilter {}

impl Serialize for WrittenFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
