//! Rust sources as modules with what they import. Owns reading and parsing; judges nothing.
//!
//! A parser of tokens, not of Rust: it knows comments, literals, `#[cfg(test)]` items and paths with their
//! `{}` groups. That suffices for imports, whether in a `use` or written out in an expression.

use std::{collections::BTreeSet, fs, path::Path};

/// One file of `src/`.
#[derive(Debug)]
pub(crate) struct Module {
    /// `xds::server` for `xds/server.rs`; `lib` and `main` for the two roots.
    pub(crate) name: String,
    /// The file, for messages.
    pub(crate) file: String,
    /// Shipped code: no comments, literals or `#[cfg(test)]` items.
    pub(crate) tokens: Vec<Token>,
    /// Every path of two or more segments, groups opened, renames dropped.
    pub(crate) paths: Vec<PathUse>,
    /// Modules declared here, whether in files or inline.
    pub(crate) children: BTreeSet<String>,
}

/// An identifier, `::`, or one other character; a literal is the token `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// `a::{b, c::*}` gives `a::b` and `a::c::*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathUse {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// `a::b!`: the last segment names a macro.
    pub(crate) is_macro: bool,
}

/// Every module below a source folder, files of tests left out, in order of their names.
pub(crate) fn read(root: &Path) -> Vec<Module> {
    let (mut folders, mut modules) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(root).unwrap().to_str().unwrap();
                modules.extend(parse(inside, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    modules
}

/// One file; `None` when it holds tests only.
pub(crate) fn parse(file: &str, text: &str) -> Option<Module> {
    let name = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    if name.split("::").any(|part| part == "tests") {
        return None;
    }
    let tokens = without_tests(tokens(text));
    let paths = paths(&tokens);
    let children = children(&tokens);
    Some(Module { name, file: file.to_owned(), tokens, paths, children })
}

/// Text to tokens; comments vanish, literals become `""`.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let end = token_end(&chars, at);
        let word: String = chars[at..end].iter().collect();
        if let Some(text) = kept(&word) {
            found.push(Token { text, line });
        }
        line += word.matches('\n').count();
        at = end;
    }
    found
}

/// What a piece of text counts as; nothing for white space and comments.
fn kept(word: &str) -> Option<String> {
    let first = word.chars().next()?;
    let is_comment = word.starts_with("//") || word.starts_with("/*");
    let is_literal = word.len() > 1 && (word.contains('"') || first == '\'') && !is_lifetime(word);
    if is_comment || first.is_whitespace() || is_lifetime(word) {
        None
    } else if is_literal {
        Some("\"\"".to_owned())
    } else {
        Some(word.trim_start_matches("r#").to_owned())
    }
}

fn is_lifetime(word: &str) -> bool {
    word.starts_with('\'') && !(word.len() > 1 && word.ends_with('\''))
}

fn token_end(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next(1) == '/' => scan(chars, at, |c| c != '\n'),
        '/' if next(1) == '*' => block_comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        '\'' => quote_end(chars, at),
        ':' if next(1) == ':' => at + 2,
        c if c.is_alphanumeric() || c == '_' => word_end(chars, at),
        c if c.is_whitespace() => scan(chars, at, char::is_whitespace),
        _ => at + 1,
    }
}

fn scan(chars: &[char], from: usize, inside: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&at| !inside(chars[at])).unwrap_or(chars.len())
}

/// Block comments nest.
fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

/// The end of a string whose opening quote is just before `from`.
fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `'x'` and `'\u{1}'` are literals, `'a` is a lifetime.
fn quote_end(chars: &[char], at: usize) -> usize {
    match chars.get(at + 1) {
        Some('\\') => (scan(chars, at + 3, |c| c != '\'') + 1).min(chars.len()),
        Some(_) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => scan(chars, at + 1, |c| c.is_alphanumeric() || c == '_'),
    }
}

/// An identifier, or a literal with a prefix: `b".."`, `r#".."#`, `br".."`, `c".."`, `b'x'`.
fn word_end(chars: &[char], from: usize) -> usize {
    let end = scan(chars, from, |c| c.is_alphanumeric() || c == '_');
    let prefix: String = chars[from..end].iter().collect();
    let is_raw = matches!(prefix.as_str(), "r" | "br" | "cr");
    match chars.get(end) {
        Some('\'') if prefix == "b" => quote_end(chars, end),
        Some('"') if matches!(prefix.as_str(), "b" | "c") => string_end(chars, end + 1),
        Some('"' | '#') if is_raw => raw_end(chars, end),
        _ => end,
    }
}

fn raw_end(chars: &[char], from: usize) -> usize {
    let open = scan(chars, from, |c| c == '#');
    if chars.get(open) != Some(&'"') {
        return scan(chars, open, |c| c.is_alphanumeric() || c == '_'); // r#type: an identifier
    }
    let hashes = open - from;
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (open + 1..chars.len()).find(|&at| closes(at)).map_or(chars.len(), |at| at + 1 + hashes)
}

/// Drops every item marked `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut at, mut kept) = (0, Vec::new());
    while at < tokens.len() {
        let is_mark = tokens[at..].iter().map(|token| token.text.as_str()).take(MARK.len()).eq(MARK);
        if is_mark {
            at = item_end(&tokens, at + MARK.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Behind the first `;` or `{..}` outside brackets; a `use` ends at its `;` only, a field at its `,`.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while text(tokens, at) == "#" && text(tokens, at + 1) == "[" {
        at = closing(tokens, at + 1) + 1;
    }
    let head: Vec<_> = (at..at + 6).map(|at| text(tokens, at)).collect();
    let is_use = head.contains(&"use");
    let is_item = ["fn", "mod", "impl", "struct", "enum", "trait", "const", "static", "type", "use"]
        .iter()
        .any(|keyword| head.contains(keyword));
    while at < tokens.len() {
        match text(tokens, at) {
            "{" if depth == 0 && !is_use => return closing(tokens, at) + 1,
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return at,
            ")" | "]" | "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            "," if depth == 0 && !is_item => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 1 => return at,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tokens.len()
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Every path, wherever it stands.
fn paths(tokens: &[Token]) -> Vec<PathUse> {
    let (mut at, mut found) = (0, Vec::new());
    while at < tokens.len() {
        if is_name(&tokens[at].text) && text(tokens, at + 1) == "::" {
            at = expand(tokens, at, &[], &mut found);
        } else if text(tokens, at) == "use" && text(tokens, at + 1) == "{" {
            at = group(tokens, at + 1, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path from `at`, below `prefix`; returns where reading goes on.
fn expand(tokens: &[Token], from: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
    let (mut at, mut segments) = (from, prefix.to_vec());
    loop {
        match text(tokens, at) {
            "{" => return group(tokens, at, &segments, found),
            word if is_name(word) || word == "*" => segments.push(word.to_owned()),
            _ => break, // `::<T>`, whose types are read as paths of their own
        }
        at += 1;
        if text(tokens, at) != "::" {
            break;
        }
        at += 1;
    }
    let is_macro = text(tokens, at) == "!" && text(tokens, at + 1) != "=";
    found.push(PathUse { segments, line: tokens[from.min(tokens.len() - 1)].line, is_macro });
    at
}

/// Reads `{a, b as c, d::{e}}` from its opening bracket.
fn group(tokens: &[Token], open: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
    let mut at = open + 1;
    while at < tokens.len() {
        match text(tokens, at) {
            "}" => return at + 1,
            "as" => at += 2,
            word if is_name(word) || word == "*" => at = expand(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

fn children(tokens: &[Token]) -> BTreeSet<String> {
    let declares = |at: &usize| text(tokens, *at) == "mod" && is_name(text(tokens, at + 1));
    (0..tokens.len()).filter(declares).map(|at| text(tokens, at + 1).to_owned()).collect()
}
