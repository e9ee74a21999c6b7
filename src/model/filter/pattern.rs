//! Go's regular expressions in the words of the `regex` crate.
//!
//! Both are RE2's children and match in linear time, but some syntax differs: `\d`, `\w`, `\s` and `\b` are ASCII in
//! Go; `{` may stand for itself; escapes, `\Q…\E`, octal numbers, two repetitions in a row and the insides of `[…]` have
//! other rules. A pattern is rewritten so that it means here what it means to Consul, and refused where Go refuses it.

use regex::bytes::{Regex, RegexBuilder};

/// The most memory of one compiled pattern, in bytes.
const MAX_PROGRAM_BYTES: usize = 256 * 1024;

/// The most repetitions of `{n,m}` that Go allows.
const MAX_REPEAT: u32 = 1_000;

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// A pattern as Consul would search with it.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let rewritten = rewrite(pattern)?;
    let mut builder = RegexBuilder::new(&rewritten);
    builder.size_limit(MAX_PROGRAM_BYTES).dfa_size_limit(MAX_PROGRAM_BYTES);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large; write it with fewer repetitions".to_owned(),
        _ => "it is no regular expression of Go's syntax; look at its brackets and repetitions".to_owned(),
    })
}

fn rewrite(pattern: &str) -> Result<String, String> {
    let mut rewriter =
        Rewriter { rest: pattern, made: String::with_capacity(pattern.len() * 2), is_after_repeat: false };
    while let Some(character) = rewriter.next() {
        rewriter.element(character)?;
    }
    Ok(rewriter.made)
}

struct Rewriter<'p> {
    rest: &'p str,
    made: String,
    /// Whether the last element was a repetition.
    is_after_repeat: bool,
}

impl Rewriter<'_> {
    fn element(&mut self, character: char) -> Result<(), String> {
        match character {
            '*' | '+' | '?' => return self.repetition(character.to_string()),
            '{' => {
                if let Some(counts) = self.counts()? {
                    return self.repetition(counts);
                }
                self.made.push_str(r"\{");
            }
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.group()?,
            '.' | '^' | '$' | '|' | ')' => self.made.push(character),
            _ => self.literal(character),
        }
        self.is_after_repeat = false;
        Ok(())
    }

    fn repetition(&mut self, operator: String) -> Result<(), String> {
        if self.is_after_repeat {
            return Err("two repetitions follow each other; put the first in parentheses".to_owned());
        }
        self.made.push_str(&operator);
        if self.eat("?") {
            self.made.push('?');
        }
        self.is_after_repeat = true;
        Ok(())
    }

    /// The rest of `{n}`, `{n,}` or `{n,m}`; anything else leaves the brace to stand for itself.
    fn counts(&mut self) -> Result<Option<String>, String> {
        let Some((inner, rest)) = self.rest.split_once('}') else { return Ok(None) };
        let (least, most) = inner.split_once(',').map_or((inner, None), |(least, most)| (least, Some(most)));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_plain = |text: &str| is_digits(text) && (text == "0" || !text.starts_with('0'));
        if !is_plain(least) || most.is_some_and(|most| !most.is_empty() && !is_plain(most)) {
            return Ok(None);
        }
        let limited = |text: &str| text.parse().ok().filter(|count: &u32| *count <= MAX_REPEAT);
        let too_many = || {
            format!("`{{{inner}}}` repeats more than {MAX_REPEAT} times, or less than it repeats at least")
        };
        let least = limited(least).ok_or_else(too_many)?;
        if let Some(most) = most.filter(|most| !most.is_empty())
            && limited(most).is_none_or(|most| most < least)
        {
            return Err(too_many());
        }
        self.rest = rest;
        Ok(Some(format!("{{{inner}}}")))
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(character) = self.rest.chars().next() else {
            return Err("it ends in a single backslash".to_owned());
        };
        match character {
            'b' | 'B' => self.made.push_str(if character == 'b' { r"(?-u:\b)" } else { r"(?-u:\B)" }),
            'A' | 'z' => self.made.extend(['\\', character]),
            'Q' => {
                self.next();
                let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                for character in quoted.chars() {
                    self.literal(character);
                }
                return Ok(());
            }
            _ => {
                if let Some((is_negated, set)) = self.set()? {
                    self.made.push_str(if is_negated { "[^" } else { "[" });
                    self.made.push_str(&set);
                    self.made.push(']');
                } else {
                    let literal = self.escaped_character()?;
                    self.literal(literal);
                }
                return Ok(());
            }
        }
        self.next();
        Ok(())
    }

    /// The set that a backslash begins (`\d`, `\pL`, …): whether it is negated and what to write in brackets.
    fn set(&mut self) -> Result<Option<(bool, String)>, String> {
        let Some(character) = self.rest.chars().next() else { return Ok(None) };
        let set = match character {
            'd' | 'D' => "0-9".to_owned(),
            'w' | 'W' => "0-9A-Za-z_".to_owned(),
            's' | 'S' => r"\t\n\x0C\r\x20".to_owned(),
            'p' | 'P' => {
                self.next();
                let (is_negated, name) = self.unicode_class()?;
                return Ok(Some((is_negated != (character == 'P'), format!("\\p{{{name}}}"))));
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some((character.is_ascii_uppercase(), set)))
    }

    /// The name behind `\p`, and whether it is negated by `^`.
    fn unicode_class(&mut self) -> Result<(bool, String), String> {
        let unknown = || "`\\p` is followed by a letter or a name in braces".to_owned();
        if !self.eat("{") {
            let letter = self.next().filter(char::is_ascii_alphabetic).ok_or_else(unknown)?;
            return Ok((false, letter.to_string()));
        }
        let (name, rest) = self.rest.split_once('}').ok_or_else(unknown)?;
        self.rest = rest;
        let plain = name.strip_prefix('^').unwrap_or(name);
        let is_name = !plain.is_empty() && plain.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        if is_name { Ok((name.len() > plain.len(), plain.to_owned())) } else { Err(unknown()) }
    }

    /// The one character behind a backslash.
    fn escaped_character(&mut self) -> Result<char, String> {
        let unknown = |character| format!("the escape `\\{character}` is unknown");
        let character = self.next().ok_or_else(|| "it ends in a single backslash".to_owned())?;
        Ok(match character {
            'a' => '\x07',
            'f' => '\x0C',
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'v' => '\x0B',
            'x' => self.hex().ok_or_else(|| unknown('x'))?,
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                if character != '0' && more == 0 {
                    return Err("it refers back to a group, which Consul's patterns cannot".to_owned());
                }
                let (digits, rest) = self.rest.split_at(more);
                self.rest = rest;
                let number = u32::from_str_radix(&format!("{character}{digits}"), 8).ok();
                number.and_then(char::from_u32).ok_or_else(|| unknown(character))?
            }
            _ if character.is_ascii() && !character.is_ascii_alphanumeric() => character,
            _ => return Err(unknown(character)),
        })
    }

    /// The rest of `\x7F` or `\x{10FFFF}`.
    fn hex(&mut self) -> Option<char> {
        let (digits, rest) =
            if self.eat("{") { self.rest.split_once('}')? } else { (self.rest.get(..2)?, &self.rest[2..]) };
        let is_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
        self.rest = rest;
        char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| is_digits)?)
    }

    /// The rest of `[…]`. Every character in it is written as itself, so none of the crate's own syntax arises.
    fn class(&mut self) -> Result<(), String> {
        let unclosed = || "a `[` has no `]`; write `\\[` for the character".to_owned();
        self.made.push('[');
        if self.eat("^") {
            self.made.push('^');
        }
        let mut is_first = true;
        while is_first || !self.eat("]") {
            is_first = false;
            if self.posix_class()? || self.escaped_set()? {
                continue;
            }
            let low = self.class_character()?.ok_or_else(unclosed)?;
            self.literal(low);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let high = self.class_character()?.ok_or_else(unclosed)?;
                if high < low {
                    return Err(format!("the range `{low}-{high}` is empty"));
                }
                self.made.push('-');
                self.literal(high);
            }
        }
        self.made.push(']');
        Ok(())
    }

    /// Passes `[:name:]` inside a class, and says whether there was one.
    fn posix_class(&mut self) -> Result<bool, String> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else {
            return Ok(false);
        };
        if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("the class `[:{name}:]` is unknown"));
        }
        self.made.push_str(&format!("[:{name}:]"));
        self.rest = rest;
        Ok(true)
    }

    /// Passes a set like `\d` inside a class, and says whether there was one.
    fn escaped_set(&mut self) -> Result<bool, String> {
        let before = self.rest;
        if !self.eat("\\") {
            return Ok(false);
        }
        let Some((is_negated, set)) = self.set()? else {
            self.rest = before;
            return Ok(false);
        };
        self.made.push_str(&if is_negated { format!("[^{set}]") } else { set });
        Ok(true)
    }

    fn class_character(&mut self) -> Result<Option<char>, String> {
        match self.next() {
            Some('\\') => self.escaped_character().map(Some),
            other => Ok(other),
        }
    }

    /// What follows `(`: nothing, a name, or flags, of which the crate has more than Go.
    fn group(&mut self) -> Result<(), String> {
        self.made.push('(');
        if !self.eat("?") {
            return Ok(());
        }
        self.made.push('?');
        if self.rest.starts_with("P<") || self.rest.starts_with('<') {
            let (name, rest) = self.rest.split_once('>').ok_or("a group's name has no `>`")?;
            let plain = name.trim_start_matches('P').trim_start_matches('<');
            if plain.is_empty() || !plain.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err("a group's name has other characters than letters, digits and `_`".to_owned());
            }
            self.made.push_str(name);
            self.made.push('>');
            self.rest = rest;
            return Ok(());
        }
        let end = self.rest.find([':', ')']).ok_or("a group is not closed")?;
        let (flags, rest) = self.rest.split_at(end);
        if !flags.chars().all(|flag| matches!(flag, 'i' | 'm' | 's' | 'U' | '-')) {
            return Err(format!("`(?{flags}` is no group that Consul's patterns have"));
        }
        self.made.push_str(flags);
        self.rest = rest;
        if self.eat(":") {
            self.made.push(':');
        }
        Ok(())
    }

    /// Writes a character that stands for itself.
    fn literal(&mut self, character: char) {
        if character.is_ascii_alphanumeric() || !character.is_ascii() {
            self.made.push(character);
        } else {
            self.made.push_str(&format!("\\x{:02X}", u32::from(character)));
        }
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}
