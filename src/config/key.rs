//! What is said of a key, once: the reader takes its type and limits from here, a reload what to compare and what to
//! take over, [`reference`](crate::config::reference) the tables of the documentation and the example file.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf};

use crate::{
    config::{Config, consul, http, log, mesh, shutdown, state, sync, telemetry, xds},
    model::secret::SecretText,
};

/// All sections, in the order in which they are told.
pub(crate) const SECTIONS: &[Section] = &[
    consul::SECTION,
    xds::SECTION,
    http::SECTION,
    log::SECTION,
    telemetry::SECTION,
    mesh::SECTION,
    shutdown::SECTION,
    state::SECTION,
    sync::SECTION,
];

/// A section of the file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    /// What it is about, as a heading of the example.
    pub(crate) about: &'static str,
    /// In the order in which they are told.
    pub(crate) keys: &'static [Key],
}

/// A key of a section. Texts are Markdown, of which the example shows the source.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// A value that it takes, as one writes it.
    pub(crate) example: &'static str,
    /// What holds when it is not set and has no value of its own then.
    pub(crate) unset: &'static str,
    /// What it means, in one sentence without a full stop.
    pub(crate) meaning: &'static str,
    /// What else a reader of the documentation should know: sentences, or nothing.
    pub(crate) more: &'static str,
    pub(crate) effect: Effect,
    /// It is good only beside another key: the example has it commented out, whatever its default.
    pub(crate) needs_another: bool,
    /// The variable of Consul's own tools that stands for it.
    pub(crate) variable: Option<&'static str>,
    /// What it is set to.
    pub(crate) value: fn(&Config) -> Value,
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Text; what it must be, in a few words.
    Text(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number of this unit, within limits.
    Number(&'static str, RangeInclusive<u64>),
    /// A list of texts; what each must be, in a few words.
    List(&'static str),
    /// Any number of tables `[[section.key]]` with these keys. It stands last in its section, as it must in a file.
    Tables(&'static [Key]),
}

/// When a changed file changes what runs.
#[derive(Debug)]
pub(crate) enum Effect {
    /// At the next start.
    Restart,
    /// The name at the next start; what is in the file it names, whenever that changes.
    RestartContentsAtOnce,
    /// With SIGHUP: takes the new value over into the running settings.
    Reload(fn(&mut Config, &Config)),
}

/// What a key is set to: compared by a reload, shown as a default. A secret is compared and never shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Unset,
    Text(String),
    Flag(bool),
    Number(u64),
    /// Texts, or one text for each table.
    List(Vec<String>),
    Secret(SecretText),
}

impl Key {
    /// What most keys are: text that is not set by default and waits for a restart. Others say what differs.
    pub(crate) const TEXT: Self = Self {
        name: "",
        kind: Kind::Text("text"),
        example: "",
        unset: "none",
        meaning: "",
        more: "",
        effect: Effect::Restart,
        needs_another: false,
        variable: None,
        value: |_| Value::Unset,
    };

    /// The limits of a number; none for what is no number.
    pub(crate) fn limits(&self) -> RangeInclusive<u64> {
        match &self.kind {
            Kind::Number(_, limits) => limits.clone(),
            Kind::Text(_) | Kind::Choice(_) | Kind::Flag | Kind::List(_) | Kind::Tables(_) => 0..=u64::MAX,
        }
    }
}

/// Every key with the name of its section.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static Key)> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.name, key)))
}

impl Value {
    pub(crate) fn text(text: impl Display) -> Self {
        Self::Text(text.to_string())
    }

    pub(crate) fn path(path: Option<&PathBuf>) -> Self {
        path.map_or(Self::Unset, |path| Self::text(path.display()))
    }

    pub(crate) fn optional(text: Option<&impl Display>) -> Self {
        text.map_or(Self::Unset, Self::text)
    }

    pub(crate) fn count(count: usize) -> Self {
        Self::Number(u64::try_from(count).unwrap_or(u64::MAX))
    }

    pub(crate) fn list(texts: impl IntoIterator<Item = impl Display>) -> Self {
        let texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
        if texts.is_empty() { Self::Unset } else { Self::List(texts) }
    }

    pub(crate) fn secret(secret: Option<&SecretText>) -> Self {
        secret.map_or(Self::Unset, |secret| Self::Secret(secret.clone()))
    }

    /// As one writes it in the file; nothing for what is not set or secret.
    pub(crate) fn written(&self) -> Option<String> {
        match self {
            Self::Unset | Self::Secret(_) => None,
            Self::Text(text) => Some(format!("\"{text}\"")),
            Self::Flag(flag) => Some(flag.to_string()),
            Self::Number(number) => Some(number.to_string()),
            Self::List(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
                Some(format!("[{}]", texts.join(", ")))
            }
        }
    }
}
