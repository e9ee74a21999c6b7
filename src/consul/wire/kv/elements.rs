//! A JSON array of objects that comes in pieces, cut into its objects: a list of a million keys is never in memory as
//! text.

use crate::consul::wire::WireError;

/// The longest object that is kept until it is whole. A value of Consul's largest default size takes 700 KB.
pub(crate) const MAX_ELEMENT_BYTES: usize = 64 << 20;

/// Cuts objects out of the pieces of an array.
#[derive(Debug, Default)]
pub(crate) struct Elements {
    at: At,
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
    /// The start of an object of which the rest is still to come.
    kept: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the array.
    #[default]
    Start,
    /// Behind its bracket.
    First,
    /// In an object.
    Inside,
    /// Behind an object.
    Behind,
    /// Behind a comma.
    Next,
    /// Behind the array.
    End,
}

impl Elements {
    /// Takes a piece, and hands on each object that became whole, as text.
    ///
    /// # Errors
    /// What comes is no array of objects, or `each` says no. Nothing may be fed after that.
    pub(crate) fn feed(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            if self.at != At::Inside {
                self.at = self.between(byte)?;
                if self.at != At::Inside {
                    rest = &rest[1..];
                    continue;
                }
            }
            let (part, behind, is_whole) = self.inside(rest);
            rest = behind;
            self.take(part, is_whole, &mut each)?;
        }
        Ok(())
    }

    /// Whether the array came to its end.
    ///
    /// # Errors
    /// It did not: what was handed on is not all.
    pub(crate) fn end(self) -> Result<(), WireError> {
        match self.at {
            At::End => Ok(()),
            _ => Err(WireError::Shape("the list ends in its middle".into())),
        }
    }

    fn take(
        &mut self,
        part: &[u8],
        is_whole: bool,
        each: &mut impl FnMut(&[u8]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if is_whole && self.kept.is_empty() {
            return each(part);
        }
        if self.kept.len() + part.len() > MAX_ELEMENT_BYTES {
            return Err(WireError::Shape(format!("an item is longer than {MAX_ELEMENT_BYTES} bytes")));
        }
        self.kept.extend_from_slice(part);
        if is_whole {
            each(&self.kept)?;
            self.kept.clear();
        }
        Ok(())
    }

    /// What follows outside of objects.
    fn between(&self, byte: u8) -> Result<At, WireError> {
        match (self.at, byte) {
            (at, b' ' | b'\t' | b'\r' | b'\n') => Ok(at),
            (At::Start, b'[') => Ok(At::First),
            (At::First | At::Next, b'{') => Ok(At::Inside),
            (At::Behind, b',') => Ok(At::Next),
            (At::First | At::Behind, b']') => Ok(At::End),
            _ => Err(WireError::Shape("it is no list of objects".into())),
        }
    }

    /// The part of these bytes that belongs to the present object, what follows, and whether the object is whole now.
    fn inside<'p>(&mut self, bytes: &'p [u8]) -> (&'p [u8], &'p [u8], bool) {
        for (place, byte) in bytes.iter().enumerate() {
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth == 0 {
                self.at = At::Behind;
                let (part, behind) = bytes.split_at(place + 1);
                return (part, behind, true);
            }
        }
        (bytes, &[], false)
    }
}
