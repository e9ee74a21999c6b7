//! `docs/operating.md` explains every line that can be logged at warning and above, and no other; every metric and
//! label that the alert rules and the board ask for exists; every alert leads to a section of that page.

mod messages;
mod monitoring;
