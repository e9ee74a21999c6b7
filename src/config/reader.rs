//! Walks the spanned TOML tables: takes values by the declarations of their keys, and collects every problem with its
//! place. It knows no section's meaning.

mod many;

use std::{collections::BTreeSet, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::{
    key::{Key, Kind, SECTIONS},
    problem::{Place, Problem},
};

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
    /// Where each line begins.
    lines: Vec<usize>,
    table: &'a DeTable<'a>,
    problems: Vec<Problem>,
    /// Lines that are no TOML: what recovery made of them is not judged again.
    broken: BTreeSet<usize>,
}

/// One section of it, present or not, or one table of a `[[section.key]]`.
pub(crate) struct Reading<'d, 'a> {
    document: &'d mut Document<'a>,
    /// As in a header: `section`, or `[section.key]` of many.
    name: String,
    /// Where one of many begins.
    begins: Range<usize>,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(text: &'a str, table: &'a DeTable<'a>, syntax: &[toml::de::Error]) -> Self {
        let begins = text.match_indices('\n').map(|(newline, _)| newline + 1);
        let lines = std::iter::once(0).chain(begins).collect();
        let mut document = Self { text, lines, table, problems: Vec::new(), broken: BTreeSet::new() };
        let mut broken = BTreeSet::new();
        for error in syntax {
            let at = error.span().map_or(0, |span| span.start);
            // The first error of a line is its cause, those behind it follow from it.
            if broken.insert(document.line(at)) {
                let (line, column) = document.position(at);
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
    pub(crate) fn section<'d>(&'d mut self, name: &'static str) -> Reading<'d, 'a> {
        let table = lookup(self.table, name).and_then(|value| value.get_ref().as_table());
        Reading { document: self, name: name.to_owned(), begins: 0..0, table }
    }

    /// Where the file gives the value of a key, by its name as `section.key`.
    pub(crate) fn place_of(&self, name: &str) -> Option<Place> {
        let (section, key) = name.split_once('.')?;
        let value = lookup(lookup(self.table, section)?.get_ref().as_table()?, key)?;
        let (line, column) = self.position(value.span().start);
        Some(Place::File { line, column })
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

    /// Adds what no declaration knows, and gives all problems in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        let table = self.table;
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            match (keys_of(name), value.get_ref().as_table()) {
                (Some(known), Some(section)) => self.unknown_keys(name, known, section),
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

    fn unknown_keys(&mut self, section: &str, known: &[Key], table: &DeTable<'_>) {
        let names = || known.iter().map(|key| key.name);
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            if let Some(known) = known.iter().find(|known| known.name == name) {
                self.unknown_keys_below(section, known, value.get_ref());
                continue;
            }
            let remedy = match (home_of(name), nearest(name, names())) {
                (Some(home), _) => format!("{name} belongs under {home}"),
                (None, Some(near)) => format!("did you mean {near}?"),
                (None, None) => format!("[{section}] has {}", list(names())),
            };
            self.push(key.span(), &path(section, name), format!("[{section}] has no key {name}"), remedy);
        }
    }

    fn unknown_keys_below(&mut self, section: &str, key: &Key, value: &DeValue<'_>) {
        let (Kind::Tables(known), DeValue::Array(tables)) = (&key.kind, value) else { return };
        for table in tables.iter().filter_map(|entry| entry.get_ref().as_table()) {
            self.unknown_keys(&header_of_many(section, key), known, table);
        }
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
        let remedy = match nearest(name, sections()) {
            Some(near) => format!("did you mean [{near}]?"),
            None => format!("the sections are {}", list(sections())),
        };
        self.push(span, name, format!("there is no section [{name}]"), remedy);
    }

    fn stray_key(&mut self, name: &str, span: Range<usize>) {
        let remedy = match home_of(name) {
            Some(home) => format!("put it under {home}"),
            None => format!("put it under its section; the sections are {}", list(sections())),
        };
        self.push(span, name, format!("{name} stands outside any section"), remedy);
    }

    fn push(&mut self, span: Range<usize>, key: &str, problem: String, remedy: String) {
        if !self.broken.contains(&self.line(span.start)) {
            let (line, column) = self.position(span.start);
            let place = Place::File { line, column };
            self.problems.push(Problem { place, key: key.into(), problem, remedy });
        }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = self.text.get(self.lines[line - 1]..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The line that this byte is in, counted from 1. A file may have very many problems: none looks at all of it.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|begins| *begins <= offset)
    }
}

impl<'a> Reading<'_, 'a> {
    /// Whether the file gives this key.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.take(key).is_some()
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

    /// One of the words that the key takes.
    pub(crate) fn choice(&mut self, key: &Key) -> Option<&'static str> {
        let Kind::Choice(words) = key.kind else { return None };
        self.parsed(key, |text| {
            let told = || words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
            words
                .iter()
                .copied()
                .find(|word| *word == text)
                .ok_or_else(|| format!("is `{text}`, and must be {}", told()).into())
        })
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

    /// A whole number within the key's limits.
    pub(crate) fn number(&mut self, key: &Key) -> Option<u64> {
        let limits = key.limits();
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
        let Some(value) = self.take(key) else { return };
        self.refuse_at(value.span(), key, problem, remedy);
    }

    fn refuse_at(&mut self, span: Range<usize>, key: &Key, problem: &str, remedy: &str) {
        let problem = format!("[{}] {} {problem}", self.name, key.name);
        self.document.push(span, &path(&self.name, key.name), problem, remedy.into());
    }

    fn take(&self, key: &Key) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.and_then(|table| lookup(table, key.name))
    }

    fn wrong_type(&mut self, key: &Key, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let problem = format!("is {}, and must be {wanted}", kind(value.get_ref()));
        self.refuse(key, &problem, &written(key));
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|section| section.name)
}

fn keys_of(section: &str) -> Option<&'static [Key]> {
    SECTIONS.iter().find(|known| known.name == section).map(|known| known.keys)
}

/// More places than this are no help.
const MAX_HOMES: usize = 2;

/// The headers of the sections and tables that have this key, if they are few.
fn home_of(key: &str) -> Option<String> {
    let has = |keys: &[Key]| keys.iter().any(|known| known.name == key);
    let homes: Vec<String> = SECTIONS
        .iter()
        .flat_map(|section| {
            let below =
                section.keys.iter().filter(|known| matches!(known.kind, Kind::Tables(keys) if has(keys)));
            let below = below.map(|tables| header_of_many(section.name, tables));
            has(section.keys).then(|| section.name.to_owned()).into_iter().chain(below)
        })
        .map(|header| format!("[{header}]"))
        .collect();
    (1..=MAX_HOMES).contains(&homes.len()).then(|| homes.join(" or "))
}

/// What stands between the outer brackets of the header of one of a key's tables.
fn header_of_many(section: &str, key: &Key) -> String {
    format!("[{section}.{}]", key.name)
}

/// The name of a key with its section's.
fn path(header: &str, key: &str) -> String {
    format!("{}.{key}", header.trim_start_matches('[').trim_end_matches(']'))
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
