//! Asking a filter about an entry.

use serde_json::Value;

use crate::model::filter::{
    FilterError,
    check::{Comparison, Expression, Test},
    fields::{ENTRY, Field},
    syntax::Tree,
};

/// Whether the entry is as the filter says.
pub(super) fn holds(expression: &Expression, entry: &Value) -> Result<bool, FilterError> {
    Ok(match expression {
        Tree::Not(inner) => !holds(inner, entry)?,
        Tree::All(parts) => {
            for part in parts {
                if !holds(part, entry)? {
                    return Ok(false);
                }
            }
            true
        }
        Tree::Any(parts) => {
            for part in parts {
                if holds(part, entry)? {
                    return Ok(true);
                }
            }
            false
        }
        Tree::Leaf(comparison) => comparison.holds(&comparison.path, &ENTRY, Some(entry))?,
    })
}

impl Comparison {
    /// Whether it holds for `path` below `value`, which is of the type of `field`. Consul leaves out what is empty,
    /// so what is not there is empty; only a name that a map lacks is told apart.
    fn holds(&self, path: &[String], field: &Field, value: Option<&Value>) -> Result<bool, FilterError> {
        let value = value.filter(|value| !value.is_null());
        let Some((name, rest)) = path.split_first() else {
            return Ok(self.test(field, value)? != self.is_negated);
        };
        match field {
            Field::List(fields) => {
                let parts = Field::Parts(fields);
                for item in self.list(value)? {
                    if self.holds(path, &parts, Some(item))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Field::Map(inner) => match self.object(value)?.and_then(|map| map.get(name)) {
                None | Some(Value::Null) => Ok(self.holds_without_key()),
                found => self.holds(rest, inner, found),
            },
            _ => {
                let part = field.part(name).ok_or_else(|| self.misfit("no such field"))?;
                self.holds(rest, part, self.object(value)?.and_then(|parts| parts.get(name)))
            }
        }
    }

    /// What Consul says where a map has no such name: it is equal to nothing, contains nothing and is empty, and it
    /// both matches and does not match every pattern, which is an oversight of go-bexpr that Consul kept.
    fn holds_without_key(&self) -> bool {
        match &self.test {
            Test::Text(_) | Test::Whole(_) | Test::Flag(_) | Test::Contains(_) => self.is_negated,
            Test::Empty => !self.is_negated,
            Test::Matches(_) => true,
        }
    }

    fn test(&self, field: &Field, value: Option<&Value>) -> Result<bool, FilterError> {
        Ok(match &self.test {
            Test::Text(wanted) => self.text(value)? == wanted,
            Test::Matches(pattern) => pattern.is_match(self.text(value)?.as_bytes()),
            Test::Whole(wanted) => {
                let found = value.map_or(Some(0), Value::as_i64);
                found.ok_or_else(|| self.misfit("no whole number"))? == *wanted
            }
            Test::Flag(wanted) => {
                let found = value.map_or(Some(false), Value::as_bool);
                found.ok_or_else(|| self.misfit("neither true nor false"))? == *wanted
            }
            Test::Contains(wanted) => match field {
                Field::Texts => self.list(value)?.iter().any(|item| item == wanted.as_str()),
                Field::Map(_) => self.object(value)?.is_some_and(|map| map.contains_key(wanted)),
                _ => self.text(value)?.contains(wanted.as_str()),
            },
            Test::Empty => match field {
                Field::Map(_) => self.object(value)?.is_none_or(serde_json::Map::is_empty),
                _ => self.list(value)?.is_empty(),
            },
        })
    }

    fn text<'v>(&self, value: Option<&'v Value>) -> Result<&'v str, FilterError> {
        value.map_or(Some(""), Value::as_str).ok_or_else(|| self.misfit("no text"))
    }

    fn list<'v>(&self, value: Option<&'v Value>) -> Result<&'v [Value], FilterError> {
        value
            .map_or(Some(&[][..]), |value| value.as_array().map(Vec::as_slice))
            .ok_or_else(|| self.misfit("no list"))
    }

    fn object<'v>(
        &self,
        value: Option<&'v Value>,
    ) -> Result<Option<&'v serde_json::Map<String, Value>>, FilterError> {
        value.map(|value| value.as_object().ok_or_else(|| self.misfit("no object"))).transpose()
    }

    fn misfit(&self, found: &str) -> FilterError {
        FilterError(format!(
            "the entry has {found} at or above `{}`, so the filter cannot be asked",
            self.path.join(".")
        ))
    }
}
