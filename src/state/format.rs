//! The container of a kept file: one line that says what it is, then one record a line. Pure.
//!
//! `causeway-state 1 catalog 1763735271 <blake3, hex>`: format number, what is in it, when it was written in seconds
//! since the Unix epoch, and the checksum of everything else.

use std::fmt;

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

const MAGIC: &str = "causeway-state";

/// The longest file that is written or read. Of 1,000 services with one instance each a catalog has 2 MB.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Topics, but for leaf certificates.
    Catalog,
    /// Leaf certificates with their private keys.
    Keys,
    /// Marks of tokens that passed.
    Tokens,
    /// How far prefixes were committed, as replication writes it.
    Positions,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Keys, Self::Tokens, Self::Catalog, Self::Positions];

    /// What it is called in the file and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Keys => "keys",
            Self::Tokens => "tokens",
            Self::Positions => "positions",
        }
    }

    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog.state",
            Self::Keys => "keys.state",
            Self::Tokens => "tokens.state",
            Self::Positions => "positions.state",
        }
    }
}

/// A file as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// When it was written, seconds since the Unix epoch.
    pub written_at_s: u64,
    /// Its records, one a line.
    pub body: &'a str,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not what was written.
    Damaged(&'static str),
    /// A newer Causeway wrote it, in this format.
    Newer(u32),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "it is damaged: {what}"),
            Self::Newer(format) => {
                write!(
                    f,
                    "a newer Causeway wrote it: its format is {format}, and this one reads up to {FORMAT}"
                )
            }
        }
    }
}

/// The bytes of a file.
pub fn seal(kind: Kind, written_at_s: u64, body: &str) -> Vec<u8> {
    let (name, sum) = (kind.name(), checksum(kind.name(), written_at_s, body.as_bytes()));
    let mut bytes = format!("{MAGIC} {FORMAT} {name} {written_at_s} {}\n", sum.to_hex()).into_bytes();
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// What is in the bytes of a file.
///
/// # Errors
/// The bytes are not what [`seal`] gave for this kind.
pub fn open(kind: Kind, bytes: &[u8]) -> Result<Opened<'_>, Unusable> {
    use Unusable::{Damaged, Newer};
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Damaged("it has no first line"))?;
    let header = str::from_utf8(&bytes[..end]).map_err(|_| Damaged("its first line is no text"))?;
    let words: Vec<&str> = header.split(' ').collect();
    let [MAGIC, format, rest @ ..] = words.as_slice() else {
        return Err(Damaged("its first line is not of a state file"));
    };
    match format.parse::<u32>() {
        Ok(FORMAT) => {}
        Ok(newer) if newer > FORMAT => return Err(Newer(newer)),
        _ => return Err(Damaged("its format has no such number")),
    }
    let [name, written_at, sum] = rest else { return Err(Damaged("its first line is cut")) };
    if *name != kind.name() {
        return Err(Damaged("it holds something else than its name says"));
    }
    let written_at_s: u64 = written_at.parse().map_err(|_| Damaged("its time is no number"))?;
    let body = &bytes[end + 1..];
    // As written: a number has more than one spelling.
    let is_plain = written_at_s.to_string() == *written_at && FORMAT.to_string() == *format;
    if !is_plain || checksum(name, written_at_s, body).to_hex().as_str() != *sum {
        return Err(Damaged("its checksum is another"));
    }
    let body = str::from_utf8(body).map_err(|_| Damaged("it is no text"))?;
    Ok(Opened { written_at_s, body })
}

fn checksum(name: &str, written_at_s: u64, body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{name} {written_at_s}\n").as_bytes()).update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &str = "{\"a\":1}\n{\"b\":2}\n";

    #[test]
    fn what_was_sealed_is_read() {
        for kind in Kind::ALL {
            let bytes = seal(kind, 1_763_735_271, BODY);
            assert_eq!(open(kind, &bytes), Ok(Opened { written_at_s: 1_763_735_271, body: BODY }));
        }
        assert!(matches!(open(Kind::Keys, &seal(Kind::Catalog, 1, BODY)), Err(Unusable::Damaged(_))));
    }

    #[test]
    fn damage_at_any_place_is_seen() {
        let whole = seal(Kind::Catalog, 1_763_735_271, BODY);
        for at in 0..whole.len() {
            assert!(open(Kind::Catalog, &whole[..at]).is_err(), "cut at {at}");
            for flip in [0x01, 0x02, 0x20, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                assert!(open(Kind::Catalog, &bytes).is_err(), "byte {at} ^ {flip}");
            }
            let mut longer = whole.clone();
            longer.insert(at, b'0');
            assert!(open(Kind::Catalog, &longer).is_err(), "a byte more at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_told_apart() {
        let text = String::from_utf8(seal(Kind::Catalog, 1, BODY)).unwrap().replacen(" 1 ", " 2 ", 1);
        assert_eq!(open(Kind::Catalog, text.as_bytes()), Err(Unusable::Newer(2)));
        assert_eq!(open(Kind::Catalog, b"causeway-state 7 what it may be\n"), Err(Unusable::Newer(7)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in "(causeway-state|) ?[0-9 a-z\n]{0,60}") {
            let _ = open(Kind::Tokens, &bytes);
            let _ = open(Kind::Tokens, header.as_bytes());
        }

        #[test]
        fn every_body_comes_back(body in "\\PC{0,200}", at: u64) {
            let bytes = seal(Kind::Keys, at, &body);
            prop_assert_eq!(open(Kind::Keys, &bytes), Ok(Opened { written_at_s: at, body: &body }));
        }
    }
}
