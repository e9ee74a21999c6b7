//! Walks the spanned TOML tables: takes values by key, remembers which keys exist, and collects every problem with
//! its place. It knows no section's meaning.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Range, RangeInclusive},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::problem::{Place, Problem};

/// A key of a section, with a value that it takes, as one writes it.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) example: &'static str,
}

/// Why a value was refused: what is wrong with it, and what to do if it is more than writing another one.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: String,
    pub(crate) remedy: Option<String>,
}

impl From<String> for Refusal {
    fn from(problem: String) -> Self {
        Self { problem, remedy: None }
    }
}

/// A document being read.
pub(crate) struct Document<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
    known: BTreeMap<&'static str, BTreeSet<&'static str>>,
    problems: Vec<Problem>,
    /// Lines that are no TOML: what recovery made of them is not judged again.
    broken: BTreeSet<usize>,
}

/// One section of it, present or not.
pub(crate) struct Section<'d, 'a> {
    document: &'d mut Document<'a>,
    name: &'static str,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(text: &'a str, table: &'a DeTable<'a>, syntax: &[toml::de::Error]) -> Self {
        let mut document =
            Self { text, table, known: BTreeMap::new(), problems: Vec::new(), broken: BTreeSet::new() };
        let mut broken = BTreeSet::new();
        for error in syntax {
            let (line, column) = document.position(error.span().map_or(0, |span| span.start));
            // The first error of a line is its cause, those behind it follow from it.
            if broken.insert(line) {
                document.problems.push(Problem {
                    place: Place::File { line, column },
                    key: String::new(),
                    problem: format!("this is not TOML: {}", error.message()),
                    remedy: syntax_remedy(error.message()).into(),
                });
            }
        }
        document.broken = broken;
        document
    }

    /// The section `name`; a value of that name which is no table is a problem.
    pub(crate) fn section<'d>(&'d mut self, name: &'static str) -> Section<'d, 'a> {
        self.known.entry(name).or_default();
        let table = lookup(self.table, name).and_then(|value| value.get_ref().as_table());
        Section { document: self, name, table }
    }

    /// A problem with what the environment gave.
    pub(crate) fn environment(&mut self, variable: &str, problem: String, remedy: &str) {
        self.problems.push(Problem {
            place: Place::Environment,
            key: variable.into(),
            problem,
            remedy: remedy.into(),
        });
    }

    /// Adds what was never asked for, and gives all problems in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        let table = self.table;
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            match (self.known.get(name).cloned(), value.get_ref().as_table()) {
                (Some(known), Some(section)) => self.unknown_keys(name, &known, section),
                (Some(_), None) => self.push(
                    key.span(),
                    name,
                    format!("{name} is {}, and must be a section", kind(value.get_ref())),
                    format!("write [{name}] on a line of its own and its keys below it"),
                ),
                (None, Some(_)) => self.unknown_section(name, key.span()),
                (None, None) => self.stray_key(name, key.span()),
            }
        }
        self.problems.sort();
        self.problems
    }

    fn unknown_keys(&mut self, section: &str, known: &BTreeSet<&'static str>, table: &DeTable<'_>) {
        for (key, _) in table.iter() {
            let name: &str = key.get_ref();
            if known.contains(name) {
                continue;
            }
            let home = self.home_of(name);
            let remedy = match (home, nearest(name, known.iter().copied())) {
                (Some(home), _) => format!("{name} belongs under [{home}]"),
                (None, Some(near)) => format!("did you mean {near}?"),
                (None, None) => format!("[{section}] has {}", list(known.iter().copied())),
            };
            self.push(
                key.span(),
                &format!("{section}.{name}"),
                format!("[{section}] has no key {name}"),
                remedy,
            );
        }
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
        let sections: Vec<&str> = self.known.keys().copied().collect();
        let remedy = match nearest(name, sections.iter().copied()) {
            Some(near) => format!("did you mean [{near}]?"),
            None => format!("the sections are {}", list(sections)),
        };
        self.push(span, name, format!("there is no section [{name}]"), remedy);
    }

    fn stray_key(&mut self, name: &str, span: Range<usize>) {
        let remedy = match self.home_of(name) {
            Some(home) => format!("put it under [{home}]"),
            None => {
                format!("put it under its section; the sections are {}", list(self.known.keys().copied()))
            }
        };
        self.push(span, name, format!("{name} stands outside any section"), remedy);
    }

    /// The only section that has this key.
    fn home_of(&self, key: &str) -> Option<&'static str> {
        let mut homes = self.known.iter().filter(|(_, keys)| keys.contains(key)).map(|(section, _)| *section);
        homes.next().filter(|_| homes.next().is_none())
    }

    fn push(&mut self, span: Range<usize>, key: &str, problem: String, remedy: String) {
        let (line, column) = self.position(span.start);
        if !self.broken.contains(&line) {
            let place = Place::File { line, column };
            self.problems.push(Problem { place, key: key.into(), problem, remedy });
        }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl<'a> Section<'_, 'a> {
    /// Whether the file gives this key.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.table.is_some_and(|table| lookup(table, key.name).is_some())
    }

    /// Text.
    pub(crate) fn text(&mut self, key: &Key) -> Option<String> {
        self.parsed(key, |text| Ok(text.to_owned()))
    }

    /// Text that `parse` makes something of.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "text");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(refusal) => {
                let remedy = refusal.remedy.unwrap_or_else(|| written(key));
                self.refuse(key, &refusal.problem, &remedy);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &Key) -> Option<bool> {
        let value = self.take(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        flag
    }

    /// A whole number within limits.
    pub(crate) fn number(&mut self, key: &Key, limits: RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let within = number.filter(|number| limits.contains(number));
        if within.is_none() {
            let problem = format!("is outside {} to {}", limits.start(), limits.end());
            self.refuse(key, &problem, &written(key));
        }
        within
    }

    /// A problem with the value of a key that the file gives.
    pub(crate) fn refuse(&mut self, key: &Key, problem: &str, remedy: &str) {
        let Some(value) = self.table.and_then(|table| lookup(table, key.name)) else { return };
        let full = format!("{}.{}", self.name, key.name);
        let problem = format!("[{}] {} {problem}", self.name, key.name);
        self.document.push(value.span(), &full, problem, remedy.into());
    }

    fn take(&mut self, key: &Key) -> Option<&'a Spanned<DeValue<'a>>> {
        self.document.known.entry(self.name).or_default().insert(key.name);
        self.table.and_then(|table| lookup(table, key.name))
    }

    fn wrong_type(&mut self, key: &Key, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let problem = format!("is {}, and must be {wanted}", kind(value.get_ref()));
        self.refuse(key, &problem, &written(key));
    }
}

fn lookup<'a>(table: &'a DeTable<'a>, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

fn written(key: &Key) -> String {
    format!("write {} = {}", key.name, key.example)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

fn syntax_remedy(message: &str) -> &'static str {
    if message.contains("duplicate") {
        "write it once"
    } else if ["quoted", "invalid float", "invalid integer"].iter().any(|part| message.contains(part)) {
        "put the text in double quotes"
    } else {
        "write key = value, text in double quotes, and [section] on a line of its own"
    }
}

fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Beyond this share of its letters a name is another name, not a slip of the hand.
const MAX_SLIP_PERCENT: usize = 40;

fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| distance * 100 <= candidate.len().max(name.len()) * MAX_SLIP_PERCENT)
        .min()
        .map(|(_, candidate)| candidate)
}
