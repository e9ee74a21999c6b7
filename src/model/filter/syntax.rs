//! The grammar: a filter's text as a tree of comparisons that know nothing of fields and types yet.
//!
//! Keywords are lower case and need white space around them, also beside parentheses; `and` binds more than `or`,
//! `not` more than both. A bare word is a value where a value is due, even if it is a keyword (`not in Service.Tags`).

use crate::model::filter::{FilterError, MAX_COMPARISONS, MAX_DEPTH, literal};

/// A tree over comparisons of type `C`.
#[derive(Debug)]
pub(super) enum Tree<C> {
    /// The inner one does not hold.
    Not(Box<Tree<C>>),
    /// All hold; asked from the left until one does not.
    All(Vec<Tree<C>>),
    /// One holds; asked from the left.
    Any(Vec<Tree<C>>),
    /// A comparison.
    Leaf(C),
}

/// A comparison as written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Byte at which it begins.
    pub(super) at: usize,
    /// The selector's parts.
    pub(super) path: Vec<String>,
    /// What is asked.
    pub(super) operator: Operator,
    /// Whether the operator is written with `not` or `!`.
    pub(super) is_negated: bool,
    /// The value, unquoted; `None` for `is empty`.
    pub(super) value: Option<String>,
}

/// What a comparison asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `==`, `!=`
    Equal,
    /// `in`, `contains`
    In,
    /// `is empty`
    Empty,
    /// `matches`
    Matches,
}

/// The operators written as words: the words, what they ask, whether negated, and whether the selector is on the right.
const WORDS: [(&[&str], Operator, bool, bool); 8] = [
    (&["contains"], Operator::In, false, false),
    (&["not", "contains"], Operator::In, true, false),
    (&["matches"], Operator::Matches, false, false),
    (&["not", "matches"], Operator::Matches, true, false),
    (&["is", "empty"], Operator::Empty, false, false),
    (&["is", "not", "empty"], Operator::Empty, true, false),
    (&["in"], Operator::In, false, true),
    (&["not", "in"], Operator::In, true, true),
];

const OPERATORS: &str = "==, !=, [not] in, [not] contains, [not] matches or is [not] empty";

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Tree<Written>, FilterError> {
    let mut parser = Parser { text, at: 0, depth: 0, comparisons: 0 };
    parser.space();
    let tree = parser.any()?;
    parser.space();
    if parser.at == text.len() {
        Ok(tree)
    } else {
        Err(parser
            .error("`and`, `or` or the end is due here; write them in lower case with blanks around them"))
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    comparisons: usize,
}

/// What stands at one side of a comparison.
enum Side {
    Selector(Vec<String>),
    Value(String),
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Tree<Written>, FilterError> {
        let mut parts = vec![self.all()?];
        while self.conjunction("or") {
            parts.push(self.all()?);
        }
        Ok(Tree::of(parts, Tree::Any))
    }

    fn all(&mut self) -> Result<Tree<Written>, FilterError> {
        let mut parts = vec![self.not()?];
        while self.conjunction("and") {
            parts.push(self.not()?);
        }
        Ok(Tree::of(parts, Tree::All))
    }

    fn not(&mut self) -> Result<Tree<Written>, FilterError> {
        let (at, comparisons) = (self.at, self.comparisons);
        if !(self.eat("not") && self.space()) {
            self.at = at;
            return self.grouping();
        }
        match self.nested(Self::not) {
            Ok(inner) => Ok(Tree::Not(Box::new(inner))),
            Err(error) => {
                // It may have been the value of `not in …`.
                (self.at, self.comparisons) = (at, comparisons);
                self.comparison().map_err(|_| error)
            }
        }
    }

    fn grouping(&mut self) -> Result<Tree<Written>, FilterError> {
        if !self.eat("(") {
            return self.comparison();
        }
        self.space();
        let inner = self.nested(Self::any)?;
        self.space();
        if self.eat(")") { Ok(inner) } else { Err(self.error("`and`, `or` or `)` is due here")) }
    }

    fn nested<T>(&mut self, inner: impl Fn(&mut Self) -> Result<T, FilterError>) -> Result<T, FilterError> {
        if self.depth == MAX_DEPTH {
            let problem =
                format!("not and parentheses nest deeper than {MAX_DEPTH}; write the filter flatter");
            return Err(self.error(&problem));
        }
        self.depth += 1;
        let found = inner(self);
        self.depth -= 1;
        found
    }

    fn comparison(&mut self) -> Result<Tree<Written>, FilterError> {
        let at = self.at;
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            return Err(
                self.error(&format!("there are more than {MAX_COMPARISONS} comparisons; write fewer"))
            );
        }
        let left = self.side()?;
        let Some((operator, is_negated, is_selector_right)) = self.operator() else {
            return Err(self.no_operator(&left));
        };
        let (path, value) = if is_selector_right {
            let place = self.at;
            let Side::Selector(path) = self.side()? else {
                return Err(FilterError::at(
                    self.text,
                    place,
                    "a field is due after `in`, like Service.Tags",
                ));
            };
            (path, Some(left.into_value()))
        } else {
            let Side::Selector(path) = left else {
                let problem = "a field is due before the operator, like Service.Meta[\"version\"]; \
                    JSON pointers and quoted fields are not part of Consul's filters";
                return Err(FilterError::at(self.text, at, problem));
            };
            let value = if operator == Operator::Empty { None } else { Some(self.side()?.into_value()) };
            (path, value)
        };
        Ok(Tree::Leaf(Written { at, path, operator, is_negated, value }))
    }

    fn no_operator(&self, left: &Side) -> FilterError {
        let rest = &self.text[self.at..];
        match left {
            Side::Selector(path) if path.len() == 1 && (path[0] == "any" || path[0] == "all") => {
                self.error("`any` and `all` are not part of Consul's filters; a field of Checks holds if one check has it")
            }
            Side::Selector(_) if !rest.starts_with([' ', '\t', '\r', '\n', '=', '!', ')']) && !rest.is_empty() => self
                .error("an operator is due here; a name with other characters than letters, digits and `_` is written [\"so\"]"),
            _ => self.error(&format!("an operator is due here: {OPERATORS}")),
        }
    }

    /// A selector, or a value that cannot be one.
    fn side(&mut self) -> Result<Side, FilterError> {
        let at = self.at;
        match self.text[at..].chars().next() {
            Some(first) if first.is_ascii_alphabetic() => self.selector().map(Side::Selector),
            Some('"' | '`') => self.quoted().map(Side::Value),
            Some('-' | '0'..='9') => self.number().map(Side::Value),
            Some('\'') => {
                Err(self.error("text is written in double quotes or backquotes, not in single ones"))
            }
            _ => Err(self.error("a field, a text in quotes, a word or a number is due here")),
        }
    }

    fn selector(&mut self) -> Result<Vec<String>, FilterError> {
        let mut path = vec![self.identifier()];
        loop {
            let at = self.at;
            if self.eat(".") {
                if !self.text[self.at..].starts_with(|c: char| c.is_ascii_alphabetic()) {
                    self.at = at;
                    return Ok(path);
                }
                path.push(self.identifier());
            } else if self.eat("[") {
                self.space();
                if !self.text[self.at..].starts_with(['"', '`']) {
                    return Err(self.error("a name in double quotes or backquotes is due after `[`"));
                }
                path.push(self.quoted()?);
                self.space();
                if !self.eat("]") {
                    return Err(self.error("`]` is due here"));
                }
            } else {
                return Ok(path);
            }
        }
    }

    /// The identifier here, whose first letter the caller has seen.
    fn identifier(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    /// The text in the quotes that begin here. An escaped double quote ends it all the same, as in Consul.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let rest = &self.text[self.at..];
        let (quote, inner) = rest.split_at(1);
        let Some(end) = inner.find(quote) else {
            return Err(self.error("these quotes are not closed"));
        };
        let text = literal::unquote(&inner[..end], quote == "`").map_err(|problem| self.error(problem))?;
        self.at += end + 2;
        Ok(text)
    }

    fn number(&mut self) -> Result<String, FilterError> {
        let rest = &self.text[self.at..];
        let end = rest.find([' ', '\t', '\r', '\n', ')']).unwrap_or(rest.len());
        let number = &rest[..end];
        if !literal::is_number(number) {
            return Err(
                self.error("this is no number; write a text that begins with a digit or `-` in quotes")
            );
        }
        self.at += end;
        Ok(number.to_owned())
    }

    fn operator(&mut self) -> Option<(Operator, bool, bool)> {
        let at = self.at;
        let is_spaced = self.space();
        for (sign, is_negated) in [("==", false), ("!=", true)] {
            if self.eat(sign) {
                self.space();
                return Some((Operator::Equal, is_negated, false));
            }
        }
        let after = self.at;
        if is_spaced {
            for (words, operator, is_negated, is_selector_right) in WORDS {
                if self.words(words) && (operator == Operator::Empty || self.space()) {
                    return Some((operator, is_negated, is_selector_right));
                }
                self.at = after;
            }
        }
        self.at = at;
        None
    }

    fn words(&mut self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(nth, word)| (nth == 0 || self.space()) && self.eat(word))
    }

    /// Passes `word` with white space on both sides, or stays where it is.
    fn conjunction(&mut self, word: &str) -> bool {
        let at = self.at;
        let is_there = self.space() && self.eat(word) && self.space();
        if !is_there {
            self.at = at;
        }
        is_there
    }

    fn eat(&mut self, word: &str) -> bool {
        let is_there = self.text[self.at..].starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    /// Passes white space, and says whether there was any.
    fn space(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len());
        self.at += end;
        end > 0
    }

    fn error(&self, problem: &str) -> FilterError {
        FilterError::at(self.text, self.at, problem)
    }
}

impl Side {
    /// As a value: a selector is the text of its parts.
    fn into_value(self) -> String {
        match self {
            Self::Selector(path) => path.join("."),
            Self::Value(value) => value,
        }
    }
}

impl<C> Tree<C> {
    fn of(mut parts: Vec<Self>, several: impl Fn(Vec<Self>) -> Self) -> Self {
        match parts.pop() {
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                several(parts)
            }
            None => several(parts),
        }
    }
}
