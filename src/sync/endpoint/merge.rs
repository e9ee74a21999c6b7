//! A tree above replicated prefixes: what the local Consul has of the rest, and of each prefix what its replica or home
//! says. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sync::endpoint::answer;

/// A body that is not what Consul answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer is not understood: {0}")]
pub struct NotUnderstood(String);

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(rename = "Key", borrow)]
    key: Cow<'a, str>,
}

/// Lists of keys with what they hold: the local one without what begins as one of the `prefixes`, and those of the
/// prefixes, in the order of their keys.
///
/// # Errors
/// One of them is no such list.
pub fn pairs(local: &[u8], prefixes: &[&str], parts: &[&[u8]]) -> Result<String, NotUnderstood> {
    let mut all: BTreeMap<Cow<'_, str>, &str> = BTreeMap::new();
    for (key, text) in read(local)? {
        if !prefixes.iter().any(|prefix| key.starts_with(prefix)) {
            all.insert(key, text);
        }
    }
    for part in parts {
        all.extend(read(part)?);
    }
    let texts: Vec<&str> = all.into_values().collect();
    Ok(format!("[{}]", texts.join(",")))
}

/// The same of names alone, of which the local ones end at the separator already.
///
/// # Errors
/// One of them is no list of names.
pub fn keys(
    local: &[u8],
    prefixes: &[&str],
    parts: &[&[u8]],
    tree: &str,
    separator: &str,
) -> Result<String, NotUnderstood> {
    let names = |body| serde_json::from_slice::<Vec<String>>(body).map_err(not_understood);
    let mut all: BTreeSet<String> = names(local)?.into_iter().collect();
    all.retain(|key| !prefixes.iter().any(|prefix| key.starts_with(prefix)));
    for part in parts {
        all.extend(names(part)?.into_iter().map(|key| cut(key, tree, separator)));
    }
    let texts: Vec<String> = all.iter().map(|key| answer::string(key)).collect();
    Ok(format!("[{}]", texts.join(",")))
}

/// A name up to and with the first separator behind the tree's beginning.
fn cut(mut key: String, tree: &str, separator: &str) -> String {
    if !separator.is_empty()
        && let Some(at) = key.get(tree.len()..).and_then(|rest| rest.find(separator))
    {
        key.truncate(tree.len() + at + separator.len());
    }
    key
}

fn read(body: &[u8]) -> Result<Vec<(Cow<'_, str>, &str)>, NotUnderstood> {
    let list: Vec<&RawValue> = serde_json::from_slice(body).map_err(not_understood)?;
    let named = |raw: &'_ RawValue| -> Result<String, NotUnderstood> {
        serde_json::from_str::<Named<'_>>(raw.get())
            .map(|named| named.key.into_owned())
            .map_err(not_understood)
    };
    list.into_iter().map(|raw| Ok((Cow::Owned(named(raw)?), raw.get()))).collect()
}

fn not_understood(error: serde_json::Error) -> NotUnderstood {
    NotUnderstood(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_shown_as_its_home_has_it() {
        let local = br#"[{"Key":"a","V":1},{"Key":"config/x","V":2},{"Key":"z","V":3}]"#;
        let part = br#"[{"Key":"config/l","V":"\u003c"},{"Key":"config/x","V":4}]"#;
        assert_eq!(
            pairs(local, &["config/"], &[part]).unwrap(),
            r#"[{"Key":"a","V":1},{"Key":"config/l","V":"\u003c"},{"Key":"config/x","V":4},{"Key":"z","V":3}]"#
        );
        assert_eq!(pairs(b"[]", &["config/"], &[]).unwrap(), "[]");
        assert!(pairs(b"{}", &[], &[]).is_err());
    }

    #[test]
    fn names_are_cut_behind_the_tree() {
        let of = |local: &[u8], part: &[u8], tree, separator| {
            keys(local, &["locks/"], &[part], tree, separator).unwrap()
        };
        let part = br#"["locks/a/.lock","locks/b"]"#;
        assert_eq!(of(br#"["a","b/"]"#, part, "", "/"), r#"["a","b/","locks/"]"#);
        assert_eq!(of(br#"["locks"]"#, part, "loc", ""), r#"["locks","locks/a/.lock","locks/b"]"#);
        assert_eq!(of(b"[]", part, "locks", "/"), r#"["locks/"]"#);
    }
}
