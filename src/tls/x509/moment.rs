//! Moments as certificates know them: whole seconds, UTC.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};
use x509_parser::time::ASN1Time;

/// Seconds since 1970-01-01 00:00 UTC. Prints as `2027-11-21 14:28 UTC`, serializes as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// So many seconds since 1970.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// How long it is until `later`; none if that is past.
    pub fn until(self, later: Self) -> Option<Duration> {
        let seconds = later.0.checked_sub(self.0)?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// The moment so much later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(seconds(span)))
    }

    /// The moment so much earlier.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(seconds(span)))
    }

    fn parts(self) -> Option<[i32; 6]> {
        let at = ASN1Time::from_timestamp(self.0).ok()?.to_datetime();
        let [month, day, hour, minute, second] =
            [u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second()].map(i32::from);
        Some([at.year(), month, day, hour, minute, second])
    }
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            Some([year, month, day, hour, minute, _]) => {
                write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
            }
            None => write!(f, "{} s after 1970", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.parts() {
            Some([year, month, day, hour, minute, second]) => serializer.collect_str(&format_args!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
            )),
            None => serializer.collect_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_as_people_and_machines_write_them() {
        let at = Moment::from_unix(1_826_893_723);
        assert_eq!(at.to_string(), "2027-11-22 14:28 UTC");
        assert_eq!(serde_json::to_string(&at).unwrap(), r#""2027-11-22T14:28:43Z""#);
        assert_eq!(Moment::from_unix(i64::MAX).to_string(), "9223372036854775807 s after 1970");
    }

    #[test]
    fn spans_never_overflow() {
        let now = Moment::from_unix(100);
        assert_eq!(now.until(now.plus(Duration::from_secs(5))), Some(Duration::from_secs(5)));
        assert_eq!(now.until(now.minus(Duration::from_secs(5))), None);
        assert_eq!(now.plus(Duration::MAX), Moment::from_unix(i64::MAX));
    }
}
