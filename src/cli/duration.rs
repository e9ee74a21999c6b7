//! Durations on the command line, written as Consul and systemd users write them. Pure.

use std::time::Duration;

/// Longer than a day nothing here waits.
const LIMIT_MS: u64 = 86_400_000;

/// A whole number and its unit: `500ms`, `30s`, `5m`, `1h`; `0` alone is zero.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write for example 500ms, 30s, 5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 0,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_ms)
        .filter(|ms| *ms <= LIMIT_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is longer than a day"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit_are_a_duration() {
        let read =
            ["0", "0s", "500ms", "30s", "5m", "5min", "1h"].map(|text| parse(text).unwrap().as_millis());
        assert_eq!(read, [0, 0, 500, 30_000, 300_000, 300_000, 3_600_000]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "30", "-1s", "1.5s", "1d", "1 s", "99999999999999999999s"] {
            assert!(parse(text).unwrap_err().contains("is not a duration"), "{text}");
        }
        for text in ["25h", "18446744073709551615h"] {
            assert!(parse(text).unwrap_err().contains("longer than a day"), "{text}");
        }
    }
}
