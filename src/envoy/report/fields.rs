//! The fields in which two JSON documents differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use serde_json::Value;

use crate::envoy::report::Field;

/// Every place where the two differ, as deep as both go. Lists of things with names of their own are compared by name.
pub(super) fn differing(intended: &Value, actual: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    walk("", Some(intended), Some(actual), &mut found);
    found
}

fn walk(path: &str, intended: Option<&Value>, actual: Option<&Value>, found: &mut Vec<Field>) {
    match (intended, actual) {
        (Some(a), Some(b)) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                walk(&below(path, name), a.get(name), b.get(name), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => lists(path, a, b, found),
        _ => found.push(field(path, intended.cloned(), actual.cloned())),
    }
}

fn field(path: &str, intended: Option<Value>, actual: Option<Value>) -> Field {
    Field { path: path.to_owned(), intended, actual }
}

fn lists(path: &str, a: &[Value], b: &[Value], found: &mut Vec<Field>) {
    let (Some(named_a), Some(named_b)) = (by_name(a), by_name(b)) else {
        for at in 0..a.len().max(b.len()) {
            walk(&format!("{path}[{at}]"), a.get(at), b.get(at), found);
        }
        return;
    };
    let names: BTreeSet<&str> = named_a.keys().chain(named_b.keys()).copied().collect();
    for name in names {
        let path = format!("{path}[name={name}]");
        walk(&path, named_a.get(name).copied(), named_b.get(name).copied(), found);
    }
    let order = |list: &[Value]| -> Vec<Value> { list.iter().map(|item| item["name"].clone()).collect() };
    if named_a.keys().eq(named_b.keys()) && order(a) != order(b) {
        let path = format!("{path} (order)");
        found.push(field(&path, Some(Value::Array(order(a))), Some(Value::Array(order(b)))));
    }
}

/// The items by their names, if each has one of its own.
fn by_name(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let names = list.iter().map(|item| Some((item.get("name")?.as_str()?, item)));
    let named: BTreeMap<_, _> = names.collect::<Option<_>>()?;
    (named.len() == list.len()).then_some(named)
}

fn below(path: &str, name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '@');
    let mut text = path.to_owned();
    // Writing to a String cannot fail.
    let _ = match (path.is_empty(), !name.is_empty() && name.chars().all(is_plain)) {
        (true, true) => write!(text, "{name}"),
        (false, true) => write!(text, ".{name}"),
        (_, false) => write!(text, "[{name:?}]"),
    };
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(intended: &Value, actual: &Value) -> Vec<String> {
        differing(intended, actual).into_iter().map(|field| field.path).collect()
    }

    #[test]
    fn equal_documents_have_no_field() {
        let document = json!({"a": [1, {"name": "x"}], "b": {"c": null}});
        assert_eq!(differing(&document, &document), []);
    }

    #[test]
    fn a_field_is_told_where_it_is_with_both_values() {
        let found = differing(&json!({"a": {"b": [1, 2]}, "c": 1}), &json!({"a": {"b": [1, 3]}, "d": 2}));
        let expected = [
            field("a.b[1]", Some(json!(2)), Some(json!(3))),
            field("c", Some(json!(1)), None),
            field("d", None, Some(json!(2))),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn one_more_in_a_list_of_names_is_one_difference() {
        let of =
            |names: &[&str]| json!({"chains": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
        assert_eq!(paths(&of(&["a", "b", "c"]), &of(&["a", "c"])), ["chains[name=b]"]);
        assert_eq!(paths(&of(&["a", "b"]), &of(&["b", "a"])), ["chains (order)"]);
        assert_eq!(paths(&of(&["a", "a"]), &of(&["a", "b"])), ["chains[1].name"]);
    }

    #[test]
    fn names_that_are_no_words_are_quoted() {
        let of = |weight: u32| json!({"endpoints": {"127.0.0.1:1": {"weight": weight}}});
        assert_eq!(paths(&of(1), &of(2)), [r#"endpoints["127.0.0.1:1"].weight"#]);
        assert_eq!(paths(&json!({"": 1}), &json!({})), [r#"[""]"#]);
    }

    #[test]
    fn other_shapes_are_told_as_they_are() {
        assert_eq!(paths(&json!({"a": [1]}), &json!({"a": {"b": 1}})), ["a"]);
        assert_eq!(paths(&json!(1), &json!("1")), [""]);
    }
}
