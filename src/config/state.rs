//! `[state]`: what is kept on disk for a start while Consul is away.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::{
    Env,
    key::{Key, Kind, Section, Value},
    reader::{Document, Refusal},
};

/// Set by systemd for units with `StateDirectory=`: absolute paths with colons between them.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// A week: nobody's rights are the same after it.
const TOKEN_MAX_AGE_LIMIT_S: u64 = 7 * 24 * 60 * 60;

/// The last known good on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// The directory; none keeps nothing.
    pub dir: Option<PathBuf>,
    /// Whether private keys are kept too.
    pub persist_keys: bool,
    /// How long a token that passed Consul's check passes without one while Consul cannot be asked.
    pub token_max_age: Duration,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self { dir: None, persist_keys: true, token_max_age: Duration::from_secs(86_400) }
    }
}

pub(crate) const SECTION: Section = Section {
    name: "state",
    about: "What is kept on disk for a start while Consul is away",
    keys: &[DIR, PERSIST_KEYS, TOKEN_MAX_AGE_S],
};

const DIR: Key = Key {
    name: "dir",
    kind: Kind::Text("absolute path"),
    example: r#""/var/lib/causeway""#,
    unset: "the first of `$STATE_DIRECTORY`, which systemd sets by `StateDirectory=`; else none",
    meaning: "the directory, made with mode 0700; without one, or with `\"\"`, nothing is kept",
    more: "It holds `catalog.state`, `keys.state`, `tokens.state` and `positions.state`, each 0600",
    value: |config| Value::path(config.state.dir.as_ref()),
    ..Key::TEXT
};
const PERSIST_KEYS: Key = Key {
    name: "persist_keys",
    kind: Kind::Flag,
    example: "true",
    meaning: "whether leaf certificates are kept, with their private keys, until they expire",
    more: "Without them an Envoy that starts during an outage is given only what needs no certificate: it listens neither \
           for its service nor for upstreams until Consul answers. One that runs keeps all it has. `false` removes what was kept",
    value: |config| Value::Flag(config.state.persist_keys),
    ..Key::TEXT
};
const TOKEN_MAX_AGE_S: Key = Key {
    name: "token_max_age_s",
    kind: Kind::Number("seconds", 0..=TOKEN_MAX_AGE_LIMIT_S),
    example: "86400",
    meaning: "with Consul's ACLs on: for how long after Consul last accepted a token it is accepted again while Consul \
              cannot be asked; `0` for never",
    more: "Not the token is kept but a keyed hash of it. This holds without `dir` too, as long as the agent runs",
    value: |config| Value::Number(config.state.token_max_age.as_secs()),
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>, env: Env<'_>) -> StateSettings {
    let default = StateSettings::default();
    let mut section = document.section("state");
    let dir = section.parsed(&DIR, directory).unwrap_or_else(|| {
        let by_systemd = env(STATE_DIRECTORY)?;
        by_systemd.split(':').find(|path| !path.is_empty()).map(PathBuf::from)
    });
    let persist_keys = section.flag(&PERSIST_KEYS).unwrap_or(default.persist_keys);
    let token_max_age = section.number(&TOKEN_MAX_AGE_S).map_or(default.token_max_age, Duration::from_secs);
    StateSettings { dir, persist_keys, token_max_age }
}

fn directory(text: &str) -> Result<Option<PathBuf>, Refusal> {
    match Path::new(text) {
        path if text.is_empty() || path.is_absolute() => {
            Ok(Some(path.to_owned()).filter(|_| !text.is_empty()))
        }
        _ => Err(format!("is `{text}`, and must be an absolute path").into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn systemd_names_the_directory_and_the_file_wins() {
        let env = |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/a:/var/lib/b".to_owned());
        let dir = |text: &str| parse(text, &env).unwrap().state.dir;
        assert_eq!(dir(""), Some("/var/lib/a".into()));
        assert_eq!(dir("state.dir = \"/srv/c\""), Some("/srv/c".into()));
        assert_eq!(dir("state.dir = \"\""), None, "switched off");
        assert_eq!(parse("", &|_| None).unwrap().state.dir, None);
        let problems = parse("state.dir = \"state\"", &env).unwrap_err();
        assert!(problems[0].to_string().contains("absolute"), "{problems:?}");
    }
}
