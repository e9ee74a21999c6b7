//! The keys of `[sync]` and of its tables `[[sync.prefix]]`, and how they are read.

mod bounds;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use crate::{
    config::{
        key::{Key, Kind, Section, Value},
        reader::{Document, Reading, Refusal},
        sync::{
            Advertised, SyncSettings,
            section::bounds::{
                DELETE_GUARD_KEYS, DELETE_GUARD_PERCENT, JOURNAL_MAX_AGE_S, JOURNAL_MAX_ENTRIES,
                LOCK_DELAY_S, LOCK_TTL_S, MAX_VALUE_BYTES,
            },
        },
        xds,
    },
    model::{
        chain::GatewayMode,
        name::Datacenter,
        sync::{Mode, Prefix, PrefixTable},
    },
};

pub(crate) const SECTION: Section = Section {
    name: "sync",
    about: "Keys and locks that stay consistent between datacenters (docs/sync.md)",
    keys: &[
        ENABLED,
        DATACENTERS,
        SESSIONS_HOME,
        LISTEN,
        ADVERTISE,
        GATEWAY_MODE,
        FORWARD_DEADLINE_MS,
        COMMIT_DEADLINE_MS,
        COMMIT_LINGER_MS,
        AUDIT_INTERVAL_S,
        MAX_STALENESS_S,
        MAX_VALUE_BYTES,
        JOURNAL_MAX_ENTRIES,
        JOURNAL_MAX_AGE_S,
        DELETE_GUARD_KEYS,
        DELETE_GUARD_PERCENT,
        LOCK_TTL_S,
        LOCK_DELAY_S,
        PREFIX,
    ],
};

const DAY_S: u64 = 86_400;

const ENABLED: Key = Key {
    name: "enabled",
    kind: Kind::Flag,
    example: "false",
    meaning: "whether this agent takes part; two or more agents of each datacenter should",
    more: "Agents that do not take part pass requests for keys, sessions and transactions on to one that does",
    value: |config| Value::Flag(config.sync.enabled),
    ..Key::TEXT
};
const DATACENTERS: Key = Key {
    name: "datacenters",
    kind: Kind::List("names of datacenters"),
    example: r#"["primary", "secondary"]"#,
    meaning: "all datacenters that take part, this one included; the same list in each",
    more: "Each holds a replica of every prefix; journals are kept until all of them have what is in them, within the limits below",
    value: |config| Value::list(&config.sync.datacenters),
    ..Key::TEXT
};
const SESSIONS_HOME: Key = Key {
    name: "sessions_home",
    kind: Kind::Text("name of a datacenter"),
    example: r#""primary""#,
    unset: "the home of all prefixes, where they have one",
    meaning: "where a session is made that names no datacenter with `?dc=`: that of the prefixes with locks",
    more: "A session can hold keys of its own datacenter only. It must be given where prefixes have several homes",
    value: |config| Value::optional(config.sync.sessions_home.as_ref()),
    ..Key::TEXT
};
pub(crate) const LISTEN: Key = Key {
    name: "listen",
    kind: Kind::Text("IP address and port"),
    example: r#""0.0.0.0:18443""#,
    meaning: "where sync agents of all datacenters are served, over mutual TLS with certificates of the mesh",
    more: "The mesh gateways of this datacenter must reach it, and the other sync agents in it",
    value: |config| Value::text(config.sync.listen),
    ..Key::TEXT
};
const ADVERTISE: Key = Key {
    name: "advertise",
    kind: Kind::Text("IP address, with a port if it is another than that of `listen`"),
    example: r#""10.0.0.7""#,
    unset: "the address of `listen`; where that is all addresses, the one of the local Consul agent",
    meaning: "the address at which the catalog shows the service `causeway-sync` of this agent",
    value: |config| {
        Value::optional(
            config
                .sync
                .advertise
                .map(|it| match it.port {
                    Some(port) => SocketAddr::new(it.address, port).to_string(),
                    None => it.address.to_string(),
                })
                .as_ref(),
        )
    },
    ..Key::TEXT
};
const GATEWAY_MODE: Key = Key {
    name: "gateway_mode",
    kind: Kind::Choice(&["local", "remote", "none"]),
    example: r#""local""#,
    meaning: "the way to other datacenters: through a mesh gateway of this one, through one of theirs, or directly",
    value: |config| {
        Value::text(match config.sync.gateway_mode {
            GatewayMode::Local => "local",
            GatewayMode::Remote => "remote",
            GatewayMode::None => "none",
        })
    },
    ..Key::TEXT
};
const FORWARD_DEADLINE_MS: Key = Key {
    name: "forward_deadline_ms",
    kind: Kind::Number("milliseconds", 100..=60_000),
    example: "2000",
    meaning: "how long a write waits to learn that its home cannot be reached (503); also how long it waits for its own replica",
    value: |config| milliseconds(config.sync.forward_deadline),
    ..Key::TEXT
};
const COMMIT_DEADLINE_MS: Key = Key {
    name: "commit_deadline_ms",
    kind: Kind::Number("milliseconds", 100..=60_000),
    example: "5000",
    meaning: "how long a write that reached its home waits for its commit (504 with a request id, by which it can be sent again safely)",
    value: |config| milliseconds(config.sync.commit_deadline),
    ..Key::TEXT
};
const COMMIT_LINGER_MS: Key = Key {
    name: "commit_linger_ms",
    kind: Kind::Number("milliseconds", 0..=1_000),
    example: "2",
    meaning: "how long a transaction at home waits for more writes, while many come; the first after quiet never waits",
    more: "More makes fewer and larger transactions, and each write slower",
    value: |config| milliseconds(config.sync.commit_linger),
    ..Key::TEXT
};
const AUDIT_INTERVAL_S: Key = Key {
    name: "audit_interval_s",
    kind: Kind::Number("seconds", 1..=DAY_S),
    example: "30",
    meaning: "how often a replica compares its keys with what it applied, and takes back what somebody else changed there",
    value: |config| seconds(config.sync.audit_interval),
    ..Key::TEXT
};
const MAX_STALENESS_S: Key = Key {
    name: "max_staleness_s",
    kind: Kind::Number("seconds", 0..=7 * DAY_S),
    example: "0",
    meaning: "the age beyond which a replica that is cut off from its home answers reads with 503; `0` for never",
    more: "Until then they are answered with `X-Sync-Stale: true`",
    value: |config| seconds(config.sync.max_staleness.unwrap_or_default()),
    ..Key::TEXT
};
const PREFIX: Key = Key {
    name: "prefix",
    kind: Kind::Tables(&[TEXT, HOME, MODE]),
    example: r#"[{ prefix = "config/", home = "primary" }]"#,
    meaning: "the prefixes and their homes, one table for each; the same ones in every agent that takes part",
    value: |config| {
        Value::list(
            config.sync.prefixes.iter().map(|it| format!("{} {} {}", it.text, it.home, mode(it.mode))),
        )
    },
    ..Key::TEXT
};
const TEXT: Key = Key {
    name: "prefix",
    kind: Kind::Text("the start of keys"),
    example: r#""config/""#,
    unset: "must be given",
    meaning: "what the keys begin with; no prefix begins with another, and none with `_sync/`",
    ..Key::TEXT
};
const HOME: Key = Key {
    name: "home",
    kind: Kind::Text("name of a datacenter"),
    example: r#""primary""#,
    unset: "must be given",
    meaning: "the datacenter where these keys are written, one of `datacenters`",
    ..Key::TEXT
};
const MODE: Key = Key {
    name: "mode",
    kind: Kind::Choice(&["journaled"]),
    example: r#""journaled""#,
    unset: "`\"journaled\"`",
    meaning: "how they are replicated; all writes go through sync agents",
    ..Key::TEXT
};

fn milliseconds(duration: Duration) -> Value {
    Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn seconds(duration: Duration) -> Value {
    Value::Number(duration.as_secs())
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Journaled => "journaled",
    }
}

pub(crate) fn read(document: &mut Document<'_>) -> SyncSettings {
    let mut section = document.section("sync");
    let mut settings = SyncSettings {
        enabled: section.flag(&ENABLED).unwrap_or(false),
        datacenters: section.list(&DATACENTERS, datacenter).unwrap_or_default(),
        sessions_home: section.parsed(&SESSIONS_HOME, datacenter),
        ..SyncSettings::default()
    };
    read_ways(&mut section, &mut settings);
    read_times(&mut section, &mut settings);
    read_limits(&mut section, &mut settings);
    settings.prefixes = read_prefixes(&mut section, &settings.datacenters);
    judge(&mut section, &settings);
    settings
}

fn read_ways(section: &mut Reading<'_, '_>, settings: &mut SyncSettings) {
    if let Some(listen) = section.parsed(&LISTEN, xds::address) {
        settings.listen = listen;
    }
    settings.advertise = section.parsed(&ADVERTISE, advertised);
    if let Some(word) = section.choice(&GATEWAY_MODE) {
        settings.gateway_mode = match word {
            "remote" => GatewayMode::Remote,
            "none" => GatewayMode::None,
            _ => GatewayMode::Local,
        };
    }
}

fn read_times(section: &mut Reading<'_, '_>, settings: &mut SyncSettings) {
    let mut set = |key: &Key, unit: fn(u64) -> Duration, to: &mut Duration| {
        if let Some(number) = section.number(key) {
            *to = unit(number);
        }
    };
    set(&FORWARD_DEADLINE_MS, Duration::from_millis, &mut settings.forward_deadline);
    set(&COMMIT_DEADLINE_MS, Duration::from_millis, &mut settings.commit_deadline);
    set(&COMMIT_LINGER_MS, Duration::from_millis, &mut settings.commit_linger);
    set(&LOCK_TTL_S, Duration::from_secs, &mut settings.lock_ttl);
    set(&LOCK_DELAY_S, Duration::from_secs, &mut settings.lock_delay);
    set(&AUDIT_INTERVAL_S, Duration::from_secs, &mut settings.audit_interval);
    set(&JOURNAL_MAX_AGE_S, Duration::from_secs, &mut settings.journal_max_age);
    let mut staleness = settings.max_staleness.unwrap_or_default();
    set(&MAX_STALENESS_S, Duration::from_secs, &mut staleness);
    settings.max_staleness = Some(staleness).filter(|it| !it.is_zero());
}

fn read_limits(section: &mut Reading<'_, '_>, settings: &mut SyncSettings) {
    let mut count = |key: &Key, to: &mut usize| {
        if let Some(number) = section.number(key) {
            *to = usize::try_from(number).unwrap_or(usize::MAX);
        }
    };
    count(&MAX_VALUE_BYTES, &mut settings.max_value_bytes);
    count(&DELETE_GUARD_KEYS, &mut settings.delete_guard_keys);
    count(&DELETE_GUARD_PERCENT, &mut settings.delete_guard_percent);
    let mut set = |key: &Key, to: &mut u64| *to = section.number(key).unwrap_or(*to);
    set(&JOURNAL_MAX_ENTRIES, &mut settings.journal_max_entries);
}

fn read_prefixes(section: &mut Reading<'_, '_>, datacenters: &[Datacenter]) -> PrefixTable {
    let mut table = PrefixTable::default();
    section.tables(&PREFIX, |entry| {
        [&TEXT, &HOME].into_iter().for_each(|key| entry.require(key));
        let text = entry.text(&TEXT);
        let home = entry.parsed(&HOME, |text| member(text, datacenters));
        // A word that is none was told; there is only one.
        let _ = entry.choice(&MODE);
        // A home that is none was told: the text is judged all the same, so that all problems come at once.
        let (text, home) = (text?, home.unwrap_or_else(|| Datacenter::from("")));
        if let Err(problem) = table.add(Prefix { text: text.clone(), home, mode: Mode::Journaled }) {
            entry.refuse(&TEXT, &format!("`{text}` {problem}"), "choose other starts of keys, or remove one");
        }
        Some(())
    });
    table
}

/// What single keys cannot tell.
fn judge(section: &mut Reading<'_, '_>, settings: &SyncSettings) {
    let datacenters = &settings.datacenters;
    let repeated = datacenters.iter().enumerate().find(|(at, name)| datacenters[..*at].contains(name));
    if let Some((_, name)) = repeated {
        section.refuse(&DATACENTERS, &format!("names `{name}` twice"), "name each once");
    }
    if let Some(home) = settings.sessions_home.as_ref().filter(|home| !is_member(home, datacenters)) {
        let problem = format!("is `{home}`, which is not one of datacenters");
        section.refuse(&SESSIONS_HOME, &problem, "name one of them, or add it there");
    }
    if !settings.enabled {
        return;
    }
    if datacenters.is_empty() && !section.has(&DATACENTERS) {
        let remedy = "name all datacenters that take part, this one included, such as datacenters = [\"primary\", \"secondary\"]";
        section.refuse(&ENABLED, "is true, and no datacenters are given", remedy);
    }
    if settings.prefixes.is_empty() && !section.has(&PREFIX) {
        let remedy = "add a table [[sync.prefix]] with prefix and home for each";
        section.refuse(&ENABLED, "is true, and no prefix is given", remedy);
    }
    if settings.sessions_home.is_none()
        && !section.has(&SESSIONS_HOME)
        && settings.home_of_sessions().is_none()
        && !settings.prefixes.is_empty()
    {
        let remedy = "add sessions_home, the home of the prefixes with locks";
        section.refuse(
            &ENABLED,
            "is true, prefixes have several homes, and no sessions_home is given",
            remedy,
        );
    }
}

/// While no list is given there is nothing to compare with: then that is the problem.
fn is_member(name: &Datacenter, datacenters: &[Datacenter]) -> bool {
    datacenters.is_empty() || datacenters.contains(name)
}

fn member(text: &str, datacenters: &[Datacenter]) -> Result<Datacenter, Refusal> {
    let name = datacenter(text)?;
    if is_member(&name, datacenters) {
        return Ok(name);
    }
    let known: BTreeSet<&str> = datacenters.iter().map(Datacenter::as_str).collect();
    let known: Vec<&str> = known.into_iter().collect();
    Err(Refusal {
        problem: format!("is `{text}`, which is not one of datacenters"),
        remedy: Some(format!("name one of {}, or add it there", known.join(", "))),
    })
}

/// Consul's rule for the names of datacenters, which it compares in lower case.
fn datacenter(text: &str) -> Result<Datacenter, Refusal> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if text.is_empty() || !text.chars().all(is_good) {
        let problem =
            format!("is `{text}`, which is no name of a datacenter: lower-case letters, digits, - and _");
        return Err(problem.into());
    }
    Ok(Datacenter::from(text))
}

fn advertised(text: &str) -> Result<Advertised, Refusal> {
    let by_port = text.parse().map(|it: SocketAddr| Advertised { address: it.ip(), port: Some(it.port()) });
    let advertised = by_port.or_else(|_| text.parse().map(|address| Advertised { address, port: None }));
    let wrong = |what: &str| Refusal::from(format!("is `{text}`, {what}"));
    match advertised {
        Err(_) => Err(wrong("and must be an IP address, with a port or without")),
        Ok(it) if it.address.is_unspecified() => Err(wrong("at which nobody can be reached")),
        Ok(it) => Ok(it),
    }
}
