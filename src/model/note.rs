//! Notes: what could not be done, where, and how to mend it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something in the catalog that could not be honoured. A note never stops the rest; it is shown in
/// `causeway proxy status`, on `/status` and in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The place: `upstream counting`, `instance web-2 of service web in dc2`.
    pub about: String,
    /// What is wrong, in one sentence without a full stop.
    pub problem: String,
    /// What to do about it, in one sentence without a full stop.
    pub remedy: String,
}

impl Note {
    /// A note on `about`.
    pub fn new(about: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about: about.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

/// The most characters of an error of a parser that a note shows.
const REASON_CHARS: usize = 200;

/// A parser's error without the value that it quotes, which may be a private key: field names and what was expected
/// stay. For the forms of serde and of protobuf's JSON.
pub fn without_values(error: &str) -> String {
    let is_open = |text: &str| {
        text.find(['"', '`', '\'']).is_some_and(|start| text.rfind(&text[start..=start]) == Some(start))
    };
    let (head, tail) = match error.rfind(", expected ").map(|at| error.split_at(at)) {
        Some((head, tail)) if !is_open(head) => (head, tail),
        _ => (error, ""),
    };
    let head = match head.find(['"', '`', '\'']) {
        Some(start) if !is_field_name(head, start) => {
            let end = head.rfind(&head[start..=start]).filter(|end| *end > start);
            let after = end.map_or("", |end| &head[end + 1..]);
            format!("{}...{after}", &head[..start])
        }
        _ => head.to_owned(),
    };
    head.chars().chain(tail.chars()).take(REASON_CHARS).collect()
}

/// Whether what is quoted from `start` is the name of a field or of a type.
fn is_field_name(text: &str, start: usize) -> bool {
    let is_announced =
        ["field ", "field name ", "message "].iter().any(|before| text[..start].ends_with(before));
    let (mark, rest) = text[start..].split_at(1);
    let Some((name, after)) = rest.split_once(mark) else { return false };
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    is_announced && is_plain && !after.contains(['"', '`', '\''])
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.about, self.problem, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_an_error_is_cut_out() {
        let cases = [
            (
                r#"invalid type: string "KEY \"a\", expected KEY", expected u32"#,
                "invalid type: string ..., expected u32",
            ),
            ("unrecognized enum value 'KEY's'", "unrecognized enum value ..."),
            ("unrecognized enum value 'a, expected KEY'", "unrecognized enum value ..."),
            ("unknown variant `KEY`, expected `a` or `b`", "unknown variant ..., expected `a` or `b`"),
            ("invalid type: string \"KEY at line 1", "invalid type: string ..."),
            (
                "invalid value: string \"KEY\" at line 1 column 2",
                "invalid value: string ... at line 1 column 2",
            ),
            ("unrecognized field name '-----BEGIN KEY'", "unrecognized field name ..."),
            ("unrecognized field name 'no_such_field'", "unrecognized field name 'no_such_field'"),
            ("missing field `DestinationName`", "missing field `DestinationName`"),
            ("expected value at line 1 column 1", "expected value at line 1 column 1"),
        ];
        for (error, told) in cases {
            assert_eq!(without_values(error), told);
        }
        assert_eq!(without_values(&"x".repeat(1000)).len(), REASON_CHARS);
    }
}
