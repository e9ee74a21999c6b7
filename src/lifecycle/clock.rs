//! The wall clock. In a build with debug assertions a file can step it, as an administrator steps a machine's: fault tests do.

use std::time::{Duration, SystemTime};

/// The variable that names the file. Its text is the step in seconds, with a minus sign for backwards; a file that is
/// missing or says something else steps nothing.
pub(crate) const STEP_FILE: &str = "CAUSEWAY_TEST_CLOCK";

/// The wall clock, for what is shown to people and compared with certificates.
#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
pub fn wall_clock() -> SystemTime {
    let now = SystemTime::now();
    let step_s = step_s();
    let step = Duration::from_secs(step_s.unsigned_abs());
    let stepped = if step_s < 0 { now.checked_sub(step) } else { now.checked_add(step) };
    stepped.unwrap_or(now)
}

#[cfg(debug_assertions)]
fn step_s() -> i64 {
    static FILE: std::sync::LazyLock<Option<std::ffi::OsString>> =
        std::sync::LazyLock::new(|| std::env::var_os(STEP_FILE));
    let text = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(not(debug_assertions))]
fn step_s() -> i64 {
    0
}
