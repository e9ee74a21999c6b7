//! Lengths of time as people write them for certificates: `30d`, `72h`.

use std::time::Duration;

/// One day.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

const UNITS: &[(char, u64)] = &[('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600), ('w', 7 * 24 * 3600)];

/// Reads a whole number with one unit: `30d`, `72h`, `2w`.
///
/// Errors: anything else, with what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is no length of time; write a number and s, m, h, d or w, such as 30d or 72h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(*seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A length of time as one would say it: `364 days`, `5 hours`, `12 minutes`, `3 seconds`. Rounded down.
pub fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    let (number, unit) = match seconds {
        s if s >= 2 * 24 * 3600 => (s / (24 * 3600), "day"),
        s if s >= 2 * 3600 => (s / 3600, "hour"),
        s if s >= 2 * 60 => (s / 60, "minute"),
        s => (s, "second"),
    };
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_make_a_length_of_time() {
        assert_eq!(parse("30d"), Ok(30 * DAY));
        assert_eq!(parse("72h"), Ok(3 * DAY));
        assert_eq!(parse("2w"), Ok(14 * DAY));
        for bad in [
            "",
            "30",
            "d",
            "-3d",
            "+3d",
            "1.5d",
            "3 d",
            "3ü",
            "99999999999999999999d",
            "9999999999999999999w",
        ] {
            assert!(parse(bad).unwrap_err().contains("30d"), "{bad}");
        }
    }

    #[test]
    fn lengths_are_spoken_in_the_unit_that_fits() {
        for (seconds, said) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (300, "5 minutes"),
            (86_400, "24 hours"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), said);
        }
        assert_eq!(spoken(364 * DAY), "364 days");
    }
}
