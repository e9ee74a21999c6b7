//! Literals as Go reads them: quoted texts, numbers, whole numbers in several bases, truth values.

/// The text between quotes. `is_raw` is for backquotes, which know no escapes and drop carriage returns.
pub(super) fn unquote(inner: &str, is_raw: bool) -> Result<String, &'static str> {
    if is_raw {
        return Ok(inner.replace('\r', ""));
    }
    if inner.contains('\n') {
        return Err("a text in double quotes has no line break; write it in backquotes");
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = escape(after, &mut bytes)
            .ok_or("this escape is unknown; write the text in backquotes, where `\\` is itself")?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes)
        .map_err(|_| "these escapes make no UTF-8, which no text of an entry can be equal to")
}

/// Puts the escape that `after` (behind the backslash) begins with into `bytes`, and gives what follows it.
fn escape<'t>(after: &'t str, bytes: &mut Vec<u8>) -> Option<&'t str> {
    let kind = after.chars().next()?;
    let rest = &after[kind.len_utf8()..];
    let plain = match kind {
        'a' => 7,
        'b' => 8,
        't' => b'\t',
        'n' => b'\n',
        'v' => 11,
        'f' => 12,
        'r' => b'\r',
        '\\' => b'\\',
        'x' => {
            bytes.push(u8::try_from(digits(rest, 2, 16)?).ok()?);
            return Some(&rest[2..]);
        }
        '0'..='7' => {
            bytes.push(u8::try_from(digits(after, 3, 8)?).ok()?);
            return Some(&after[3..]);
        }
        'u' | 'U' => {
            let length = if kind == 'u' { 4 } else { 8 };
            let character = char::from_u32(digits(rest, length, 16)?)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[length..]);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(rest)
}

/// The number that the first `length` characters write.
fn digits(text: &str, length: usize, radix: u32) -> Option<u32> {
    let digits = text.get(..length)?;
    digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())?
}

/// Whether this is a number without quotes: no leading zeros, no exponent, no sign but `-`.
pub(super) fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_digits(whole) && (whole == "0" || !whole.starts_with('0')) && part.is_none_or(is_digits)
}

/// A whole number as Go's `ParseInt` reads it with base 0: `0x`, `0o`, `0b` and `0` begin other bases, `_` may
/// stand between digits.
pub(super) fn whole(text: &str) -> Option<i64> {
    let (is_negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = base(unsigned);
    let mut is_after_digit = radix != 10;
    let mut value: i128 = 0;
    for character in digits.chars() {
        if character == '_' {
            if !is_after_digit {
                return None;
            }
            is_after_digit = false;
        } else {
            value = value.checked_mul(radix.into())?.checked_add(character.to_digit(radix)?.into())?;
            is_after_digit = true;
        }
    }
    if !is_after_digit {
        return None;
    }
    i64::try_from(if is_negative { -value } else { value }).ok()
}

/// The base that a number without sign is written in, and its digits.
fn base(text: &str) -> (u32, &str) {
    let Some(rest) = text.strip_prefix('0') else { return (10, text) };
    let radix = match rest.bytes().next() {
        Some(b'x' | b'X') => 16,
        Some(b'o' | b'O') => 8,
        Some(b'b' | b'B') => 2,
        _ => return (8, rest),
    };
    // `0x` alone is an octal number with the digit x, which is none.
    if rest.len() == 1 { (8, rest) } else { (radix, &rest[1..]) }
}

/// A truth value as Go's `ParseBool` reads it.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
