//! Notes: what could not be done, where, and how to mend it.

use std::fmt;

use serde::Serialize;

/// Something in the catalog that could not be honoured. A note never stops the rest; it is shown in
/// `causeway proxy status`, on `/status` and in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// The place: `upstream counting`, `instance web-2 of service web in dc2`.
    pub about: String,
    /// What is wrong, in one sentence without a full stop.
    pub problem: String,
    /// What to do about it, in one sentence without a full stop.
    pub remedy: String,
}

impl Note {
    /// A note on `about`.
    pub fn new(about: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about: about.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.about, self.problem, self.remedy)
    }
}
