//! Inputs by chance: what a corpus holds, cut, spliced, repeated, nested and spoilt. The same seed gives the same inputs.

use std::collections::BTreeSet;

use fastrand::Rng;

/// The longest input.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// One input in so many is as long as it may be: by repetition or by nesting, which is what finds quadratic work and
/// full stacks.
const LONG_ONE_IN: u32 = 40;

/// Numbers at the edges of types.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "255",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "-0.0",
];

/// Bytes and words that parsers treat in a way of their own.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b",",
    b":",
    b"\0",
    b"\n",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"%",
    b"..",
    b"/",
];

/// What opens, and what closes it.
const NESTS: [(&[u8], &[u8]); 10] = [
    (b"[", b"]"),
    (b"{\"a\":", b"}"),
    (b"[{\"Not\":", b"}]"),
    (b"(", b")"),
    (b"not (", b")"),
    (b"not ", b""),
    (b"a.", b""),
    (b"a = [", b"]"),
    (b"{ a = ", b" }"),
    (b"\"", b"\""),
];

/// Makes inputs of a corpus.
pub(super) struct Mutator {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
    /// Words of the corpus itself: names of fields, verbs, keys.
    words: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let words: BTreeSet<Vec<u8>> = corpus
            .iter()
            .flat_map(|file| file.split(|byte| !is_word(byte)))
            .filter(|word| (2..60).contains(&word.len()))
            .map(<[u8]>::to_vec)
            .collect();
        Self { rng: Rng::with_seed(seed), corpus, words: words.into_iter().collect() }
    }

    pub(super) fn corpus(&self) -> Vec<Vec<u8>> {
        self.corpus.clone()
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut input = self.some_file().to_vec();
        if self.rng.u32(..LONG_ONE_IN) == 0 {
            input = if self.rng.bool() { self.nested(&input) } else { self.repeated(&input) };
        }
        for _ in 0..self.rng.u32(1..=6) {
            self.spoil(&mut input);
        }
        input.truncate(MAX_BYTES);
        input
    }

    fn some_file(&mut self) -> &[u8] {
        let at = self.rng.usize(..self.corpus.len());
        &self.corpus[at]
    }

    fn some_range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.rng.usize(..=input.len());
        let most = (input.len() - from).min(if self.rng.bool() { 8 } else { usize::MAX });
        from..from + self.rng.usize(..=most)
    }

    fn spoil(&mut self, input: &mut Vec<u8>) {
        let range = self.some_range(input);
        let at = range.start;
        match self.rng.u32(..11) {
            0 => input.truncate(at),
            1 => drop(input.drain(range)),
            2 => {
                let again = input[range].to_vec();
                input.splice(at..at, again);
            }
            3 => {
                let other = self.some_file().to_vec();
                let part = self.some_range(&other);
                input.splice(range, other[part].iter().copied());
            }
            4 => {
                let word = *self.rng.choice(WORDS.iter()).expect("there are some");
                input.splice(at..at, word.iter().copied());
            }
            5 if !self.words.is_empty() => {
                let word = self.rng.usize(..self.words.len());
                input.splice(range, self.words[word].clone());
            }
            6 => self.renumber(input),
            7 => input[range].reverse(),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = if self.rng.bool() { *byte ^ (1 << self.rng.u8(..8)) } else { self.rng.u8(..) };
                }
            }
        }
        input.truncate(MAX_BYTES);
    }

    /// Puts a number of an edge in place of one.
    fn renumber(&mut self, input: &mut Vec<u8>) {
        let begins: Vec<usize> = (0..input.len())
            .filter(|at| input[*at].is_ascii_digit() && (*at == 0 || !input[at - 1].is_ascii_digit()))
            .collect();
        let Some(from) = self.rng.choice(begins) else { return };
        let digits = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = *self.rng.choice(NUMBERS.iter()).expect("there are some");
        input.splice(from..from + digits, number.bytes());
    }

    fn repeated(&mut self, input: &[u8]) -> Vec<u8> {
        let range = self.some_range(input);
        let part = if range.is_empty() { b"a".to_vec() } else { input[range.clone()].to_vec() };
        let times = MAX_BYTES.saturating_sub(input.len()) / part.len();
        [&input[..range.start], &part.repeat(times), &input[range.start..]].concat()
    }

    /// The input, or a part of it, inside of as many as fit.
    fn nested(&mut self, input: &[u8]) -> Vec<u8> {
        let range = self.some_range(input);
        if self.rng.u32(..4) == 0 {
            return self.nested_message(&input[range]);
        }
        let (open, close) = *self.rng.choice(NESTS.iter()).expect("there are some");
        let inner = if self.rng.bool() { &input[range.clone()] } else { &b"1"[..] };
        let times = MAX_BYTES.saturating_sub(input.len() + inner.len()) / (open.len() + close.len());
        [&input[..range.start], &open.repeat(times), inner, &close.repeat(times), &input[range.end..]]
            .concat()
    }

    /// Protobuf: a message in a field of a message in a field, and so on.
    fn nested_message(&mut self, inner: &[u8]) -> Vec<u8> {
        let tag = self.rng.u8(1..16) << 3 | 2;
        let mut reversed: Vec<u8> = inner.iter().rev().copied().collect();
        reversed.truncate(MAX_BYTES / 2);
        while reversed.len() + 4 <= MAX_BYTES {
            let mut length = reversed.len();
            let mut prefix = vec![tag];
            while length >= 0x80 {
                prefix.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            prefix.push(length as u8);
            reversed.extend(prefix.into_iter().rev());
        }
        reversed.reverse();
        reversed
    }
}
