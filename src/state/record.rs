//! The records of kept files, one JSON object a line. Pure.
//!
//! A record that is not understood costs only itself: the format's number tells of another container, not of every
//! field that a later version adds. A field that is not known here is not understood either, at any depth: it may be what
//! restricts the rest.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    model::{
        ca::Leaf,
        catalog::{Answer, Topic, Topics},
        name::ServiceName,
        note::{Note, without_values},
    },
    state::{
        keep::{Keep, from_disk, is_valid},
        tokens::{BYTES, TokenMark, Tokens},
    },
};

#[derive(Serialize)]
struct WrittenTopic<'a> {
    topic: &'a Topic,
    answer: &'a Answer,
    #[serde(skip_serializing_if = "<[Note]>::is_empty")]
    notes: &'a [Note],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadTopic {
    topic: Topic,
    answer: Answer,
    #[serde(default)]
    notes: Vec<Note>,
}

/// A leaf certificate with its key: the only place where one is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptLeaf {
    service: ServiceName,
    chain_pem: String,
    key_pem: String,
    valid_before_s: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptKey {
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptVerdict {
    mark: String,
    service: ServiceName,
    checked_at_s: u64,
}

/// What of a file was not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many records.
    pub count: usize,
    /// Why the first of them was not, without any value in it.
    pub first: String,
}

impl Skipped {
    fn add(&mut self, reason: &str) {
        if self.count == 0 {
            self.first = without_values(reason);
        }
        self.count += 1;
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records are not understood, the first for this reason: {}", self.count, self.first)
    }
}

/// The topics of the catalog's file.
pub fn write_topics(keep: &Keep<'_>) -> String {
    let mut body = String::new();
    for (topic, heard) in &keep.topics {
        write(&mut body, &WrittenTopic { topic, answer: &heard.answer, notes: &heard.notes });
    }
    body
}

/// The topics in it, marked as from disk.
pub fn read_topics(body: &str) -> (Topics, Skipped) {
    let mut skipped = Skipped::default();
    let mut topics = Topics::new();
    for ReadTopic { topic, answer, notes } in read::<ReadTopic>(body, &mut skipped) {
        match is_answer_to(&answer, &topic) {
            true => drop(topics.insert(topic, from_disk(answer, notes))),
            false => skipped.add("it is no answer to its topic"),
        }
    }
    (topics, skipped)
}

/// The leaves of the file of keys.
pub fn write_leaves(keep: &Keep<'_>) -> String {
    let mut body = String::new();
    for leaf in &keep.leaves {
        let Leaf { service, chain_pem, key_pem, valid_before_s } = leaf;
        write(
            &mut body,
            &KeptLeaf {
                service: service.clone(),
                chain_pem: chain_pem.clone(),
                key_pem: key_pem.expose().to_owned(),
                valid_before_s: *valid_before_s,
            },
        );
    }
    body
}

/// The leaves in it that are still valid, as topics.
pub fn read_leaves(body: &str, now_s: u64) -> (Topics, Skipped) {
    let mut skipped = Skipped::default();
    let leaves = read::<KeptLeaf>(body, &mut skipped).into_iter().map(|kept| Leaf {
        service: kept.service,
        chain_pem: kept.chain_pem,
        key_pem: kept.key_pem.into(),
        valid_before_s: kept.valid_before_s,
    });
    let valid = leaves.filter(|leaf| is_valid(leaf, now_s));
    let topics =
        valid.map(|leaf| (Topic::Leaf(leaf.service.clone()), from_disk(Answer::Leaf(leaf), Vec::new())));
    (topics.collect(), skipped)
}

/// The file of tokens.
pub fn write_tokens(tokens: &Tokens) -> String {
    let mut body = String::new();
    write(&mut body, &KeptKey { key: hex(&tokens.key) });
    for ((mark, service), checked_at_s) in &tokens.passed {
        let (mark, service) = (hex(&mark.0), service.clone());
        write(&mut body, &KeptVerdict { mark, service, checked_at_s: *checked_at_s });
    }
    body
}

/// The tokens in it; none without their key.
pub fn read_tokens(body: &str) -> (Option<Tokens>, Skipped) {
    let mut skipped = Skipped::default();
    let (first, rest) = body.split_once('\n').unwrap_or((body, ""));
    let key = serde_json::from_str::<KeptKey>(first).ok().and_then(|kept| unhex(&kept.key));
    let Some(key) = key else {
        skipped.add("its key is not readable");
        return (None, skipped);
    };
    let mut tokens = Tokens::new(key);
    for verdict in read::<KeptVerdict>(rest, &mut skipped) {
        match unhex(&verdict.mark) {
            Some(mark) => tokens.add(TokenMark(mark), verdict.service, verdict.checked_at_s),
            None => skipped.add("its mark is not readable"),
        }
    }
    (Some(tokens), skipped)
}

fn write(body: &mut String, record: &impl Serialize) {
    body.push_str(&serde_json::to_string(record).expect("all keys in these types are texts"));
    body.push('\n');
}

fn read<T: DeserializeOwned>(body: &str, skipped: &mut Skipped) -> Vec<T> {
    let mut records = Vec::new();
    for line in body.lines() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(error) => skipped.add(&error.to_string()),
        }
    }
    records
}

/// Whether the answer is of its topic's kind and is one that Consul gives: what trusts nobody, or somebody's secret,
/// is never taken from this file.
fn is_answer_to(answer: &Answer, topic: &Topic) -> bool {
    match (topic, answer) {
        (Topic::Roots, Answer::Roots(roots)) => {
            !roots.pem.is_empty() && !roots.trust_domain.as_str().is_empty()
        }
        (Topic::Agent, Answer::Agent(_))
        | (Topic::Registration(_), Answer::Registration(Some(_)))
        | (Topic::Chain(_), Answer::Chain(_))
        | (Topic::Connect { .. } | Topic::Health { .. }, Answer::Instances(_))
        | (Topic::Services { .. }, Answer::Services(_))
        | (Topic::Intentions | Topic::IntentionEntries, Answer::Intentions(_))
        | (Topic::Datacenters, Answer::Datacenters(_))
        | (Topic::FederationStates, Answer::FederationStates(_))
        | (Topic::ProxyDefaults | Topic::ServiceDefaults(_), Answer::Defaults(_))
        | (Topic::Resolvers, Answer::Resolvers(_))
        | (Topic::PreparedQuery { .. }, Answer::Query(_))
        | (Topic::Mesh, Answer::Mesh(_))
        | (Topic::ExportedServices, Answer::ExportedServices(_)) => true,
        _ => false,
    }
}

fn hex(bytes: &[u8; BYTES]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

fn unhex(text: &str) -> Option<[u8; BYTES]> {
    blake3::Hash::from_hex(text).ok().map(Into::into)
}

#[cfg(test)]
mod tests;
