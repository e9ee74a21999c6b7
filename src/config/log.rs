//! `[log]`: what is logged, and in which form.

use std::{fmt, str::FromStr};

use tracing_subscriber::EnvFilter;

use crate::config::{
    Env,
    key::{Effect, Key, Kind, Section, Value},
    reader::{Document, Refusal},
};

/// The variable that wins over `[log] level`.
pub const LOG_VARIABLE: &str = "CAUSEWAY_LOG";

/// The levels, from few lines to many.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What is logged.
    pub level: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogFilter("info".into()), format: LogFormat::Text }
    }
}

/// A level, or a filter in the directives of `tracing` (`warn,causeway::consul=debug`). It was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// A filter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem}; write one of error, warn, info, debug, trace, or directives such as warn,causeway::consul=debug"
)]
pub struct BadFilter {
    problem: String,
}

impl LogFilter {
    /// The directives it stands for. A bare level from `info` on is about Causeway's own lines: libraries stay at
    /// `warn`, since the lines of the HTTP/2 library alone would drown the rest.
    pub fn directives(&self) -> String {
        match self.0.as_str() {
            level @ ("info" | "debug" | "trace") => format!("warn,causeway={level}"),
            other => other.to_owned(),
        }
    }
}

impl FromStr for LogFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let bad = |problem| Err(BadFilter { problem });
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return bad("an empty filter would log nothing".into());
        }
        // `tracing` takes any bare word as the name of a module, so that a misspelt level would log everything of a
        // module that does not exist.
        if let Some(word) = text.split(',').map(str::trim).find(|part| is_stray_word(part)) {
            return bad(format!("`{word}` is not a level"));
        }
        match EnvFilter::try_new(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => bad(format!("`{text}` is not a filter: {error}")),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_stray_word(directive: &str) -> bool {
    directive.chars().all(|letter| letter.is_ascii_alphanumeric()) && !LEVELS.contains(&directive)
}

pub(crate) const SECTION: Section =
    Section { name: "log", about: "The log, on standard error", keys: &[LEVEL, FORMAT] };

const LEVEL: Key = Key {
    name: "level",
    kind: Kind::Text("level or directives"),
    example: r#""info""#,
    meaning: "`off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as `warn,causeway::consul=debug`",
    more: "A bare `info`, `debug` or `trace` is about Causeway's own lines, libraries stay at `warn`",
    effect: Effect::Reload(|running, new| running.log.level = new.log.level.clone()),
    value: |config| Value::text(&config.log.level),
    ..Key::TEXT
};
const FORMAT: Key = Key {
    name: "format",
    kind: Kind::Choice(&["text", "json"]),
    example: r#""text""#,
    meaning: "`text` for people, `json` for one object per line",
    more: "Text has no time of its own under systemd, whose journal has one, and colours on a terminal only",
    value: |config| match config.log.format {
        LogFormat::Text => Value::text("text"),
        LogFormat::Json => Value::text("json"),
    },
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>, env: Env<'_>) -> LogSettings {
    let default = LogSettings::default();
    let mut section = document.section("log");
    let level = section.parsed(&LEVEL, |text| {
        text.parse().map_err(|error: BadFilter| Refusal::from(format!("cannot be used: {}", error.problem)))
    });
    let format = section.choice(&FORMAT).map(|word| match word {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    });
    let level = match env(LOG_VARIABLE).filter(|text| !text.is_empty()).map(|text| text.parse()) {
        Some(Ok(filter)) => Some(filter),
        Some(Err(BadFilter { problem })) => {
            document.environment(
                LOG_VARIABLE,
                format!("{LOG_VARIABLE}: {problem}"),
                "set it to a level such as info",
            );
            level
        }
        None => level,
    };
    LogSettings { level: level.unwrap_or(default.level), format: format.unwrap_or(default.format) }
}
