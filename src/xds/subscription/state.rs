//! One type of resource on one stream: what is subscribed, what the client was given, what it answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use crate::xds::{snapshot::Entry, subscription::look::Look, version::Version};

#[derive(Debug, Default)]
pub(super) struct TypeState {
    /// The client has asked for this type at least once.
    pub(super) known: bool,
    pub(super) wildcard: bool,
    /// Subscribed by name, letter by letter as the client writes it (rule 10), whether there is such a resource or not: it is
    /// sent when it appears (rule 11).
    pub(super) names: BTreeSet<Arc<str>>,
    /// By name, as the names above in the text of the entry that bears it where there is one: a stream has hundreds,
    /// and there are thousands of streams.
    pub(super) records: BTreeMap<Arc<str>, Record>,
    /// Named in a request and not answered yet: answered at once, changed or not.
    pub(super) asked: BTreeSet<String>,
    /// To be sent again although unchanged, because what names it was sent.
    pub(super) owed: BTreeSet<String>,
    /// A client without any resource waits for an answer, if only an empty one.
    pub(super) owes_first_answer: bool,
    /// The client has asked for something by name; an empty list then means nothing (rule 21).
    pub(super) ever_named: bool,
    /// State of the world: the client brought a version from an earlier stream, and is not answered yet.
    pub(super) is_returning: bool,
    /// State of the world: the client came back and has taken no whole response since, so that it may have from before
    /// what was offered here and refused.
    pub(super) has_more: bool,
    /// State of the world: the response that the client answered last.
    pub(super) answered: String,
    /// Versions the client refused.
    pub(super) rejected: BTreeMap<String, BTreeSet<Version>>,
    /// Responses not answered yet, oldest first.
    pub(super) outstanding: Vec<Outstanding>,
    pub(super) tally: Tally,
    /// Where to look for what is due; whatever makes a name due takes it into view.
    pub(super) look: Look,
}

/// What we know of one resource at the client.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) given: Given,
    pub(super) held: Held,
}

/// What the client was last given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It was told that there is no such resource (any more).
    Removed,
    /// This version, on this stream.
    Sent(Version),
    /// This version, on an earlier stream: it said so.
    Inherited(Version),
    /// It refused something; what it has now is unsure.
    Uncertain,
}

/// What the client last acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Nothing,
    Entry(Arc<Entry>),
    /// A version of an earlier stream, whose content is not known here.
    Inherited(Version),
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) nonce: String,
    pub(super) sent_at: Instant,
    pub(super) resources: Vec<Arc<Entry>>,
    /// It carries everything that the client should have of the type.
    pub(super) is_whole: bool,
    /// In the response only because it has to carry everything.
    pub(super) carried: Vec<Arc<Entry>>,
    pub(super) removed: Vec<String>,
}

/// What is counted and remembered for people.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent_at: Option<Instant>,
    pub(super) acked_at: Option<Instant>,
    pub(super) acks: u64,
    pub(super) nacks: u64,
    pub(super) last_nack: Option<Refusal>,
}

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) resources: Vec<String>,
    pub(super) at: Instant,
}

impl Outstanding {
    /// What the response has under a name, whether it is new or carried along.
    pub(super) fn entries_of(&self, name: &str) -> impl Iterator<Item = &Arc<Entry>> {
        self.resources.iter().chain(&self.carried).filter(move |entry| entry.key.name == name)
    }
}

impl Given {
    pub(super) fn version(&self) -> Option<&Version> {
        match self {
            Self::Sent(version) | Self::Inherited(version) => Some(version),
            Self::Removed | Self::Uncertain => None,
        }
    }
}

impl Record {
    /// The client may have it from an earlier stream, and was not given it on this one.
    pub(super) fn is_from_before(&self) -> bool {
        matches!((&self.given, &self.held), (Given::Inherited(_) | Given::Uncertain, Held::Inherited(_)))
    }

    pub(super) fn is_inherited(&self) -> bool {
        matches!(self.given, Given::Inherited(_))
    }

    /// Has the text of an equal version instead of its own.
    pub(super) fn share(&mut self, version: &Version) {
        let given = if let Given::Inherited(own) = &mut self.given { Some(own) } else { None };
        let held = if let Held::Inherited(own) = &mut self.held { Some(own) } else { None };
        for own in given.into_iter().chain(held).filter(|own| *own == version) {
            own.clone_from(version);
        }
    }
}

impl TypeState {
    pub(super) fn is_subscribed(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_rejected(&self, name: &str, version: &Version) -> bool {
        self.rejected.get(name).is_some_and(|versions| versions.contains(version))
    }

    /// Asked for, or to follow what names it: not held up by an unanswered response.
    pub(super) fn is_urgent(&self, name: &str) -> bool {
        self.asked.contains(name) || self.owed.contains(name)
    }

    pub(super) fn is_inherited(&self, name: &str) -> bool {
        self.records.get(name).is_some_and(Record::is_inherited)
    }

    /// Whether a name is in a response that is not answered yet.
    pub(super) fn is_in_flight(&self, name: &str) -> bool {
        let holds = |o: &Outstanding| {
            o.resources.iter().any(|e| e.key.name == name) || o.removed.iter().any(|removed| removed == name)
        };
        self.outstanding.iter().any(holds)
    }

    /// The names in responses that are not answered yet.
    pub(super) fn in_flight(&self) -> BTreeSet<&str> {
        let outstanding = self.outstanding.iter();
        let names = outstanding.flat_map(|o| o.resources.iter().map(|e| &e.key.name).chain(&o.removed));
        names.map(String::as_str).collect()
    }

    /// The client has it in some version, and is not about to lose it.
    pub(super) fn is_held(&self, name: &str) -> bool {
        let record = self.records.get(name);
        record.is_some_and(|r| r.given != Given::Removed && !matches!(r.held, Held::Nothing))
    }

    /// Whether an entry is due: changed, asked for, or owed; and not refused before.
    pub(super) fn is_due(&self, entry: &Entry) -> bool {
        self.is_due_beside(self.records.get(&entry.name), entry)
    }

    /// The same, beside what is recorded of its name.
    pub(super) fn is_due_beside(&self, record: Option<&Record>, entry: &Entry) -> bool {
        let name = &entry.name;
        let given = record.and_then(|record| record.given.version());
        let wanted = given != Some(&entry.version) || self.is_urgent(name);
        wanted && self.is_subscribed(name) && !self.is_rejected(name, &entry.version)
    }

    /// Whether the client holds, or may hold, something under a name that is now to be removed.
    pub(super) fn may_hold(&self, name: &str) -> bool {
        self.records.get(name).is_some_and(|record| record.given != Given::Removed)
    }

    /// Whether the client asked for a name and was not told yet that there is nothing.
    pub(super) fn awaits_absence(&self, name: &str) -> bool {
        self.is_urgent(name) || (self.names.contains(name) && !self.records.contains_key(name))
    }

    pub(super) fn note_sent(&mut self, outstanding: Outstanding) {
        for entry in &outstanding.resources {
            self.note_given(&entry.name, Given::Sent(entry.version.clone()));
        }
        for entry in &outstanding.carried {
            self.note_given(&entry.name, Given::Sent(entry.version.clone()));
        }
        for name in &outstanding.removed {
            self.note_told_absent(name);
        }
        self.owes_first_answer = false;
        self.is_returning = false;
        self.tally.sent_at = Some(outstanding.sent_at);
        self.outstanding.push(outstanding);
    }

    /// The response that a nonce answers, which is then answered.
    pub(super) fn take_outstanding(&mut self, nonce: &str) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(|outstanding| outstanding.nonce == nonce)?;
        let answered = self.outstanding.remove(at);
        if self.outstanding.is_empty() {
            // A stream rests far longer than it waits for an answer: meanwhile it keeps no room for any.
            self.outstanding = Vec::new();
        }
        Some(answered)
    }

    pub(super) fn note_told_absent(&mut self, name: &str) {
        self.note_given(&name.into(), Given::Removed);
    }

    fn note_given(&mut self, name: &Arc<str>, given: Given) {
        self.asked.remove(&**name);
        self.owed.remove(&**name);
        match self.records.get_mut(name) {
            Some(record) => record.given = given,
            None => {
                self.records.insert(name.clone(), Record { given, held: Held::Nothing });
            }
        }
    }

    pub(super) fn note_acked(&mut self, outstanding: Outstanding, now: Instant) {
        if outstanding.is_whole {
            self.has_more = false;
            self.note_lost(&outstanding);
        }
        for entry in outstanding.resources.into_iter().chain(outstanding.carried) {
            if let Some(record) = self.records.get_mut(&entry.name) {
                record.held = Held::Entry(entry);
            }
        }
        for name in outstanding.removed {
            self.forget_removed(&name);
        }
        self.tally.acks += 1;
        self.tally.acked_at = Some(now);
        self.tally.last_nack = None;
    }

    /// What a response that carries everything lacks, the client has lost by taking it.
    fn note_lost(&mut self, whole: &Outstanding) {
        let entries = whole.resources.iter().chain(&whole.carried);
        let kept: BTreeSet<&Arc<str>> = entries.map(|entry| &entry.name).collect();
        for (_, record) in self.records.iter_mut().filter(|(name, _)| !kept.contains(name)) {
            record.held = Held::Nothing;
        }
    }

    pub(super) fn forget_removed(&mut self, name: &str) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.held = Held::Nothing;
        // A name asked for stays on record as "told that it is absent".
        if record.given == Given::Removed && !self.names.contains(name) {
            self.records.remove(name);
        }
    }

    /// The client no longer wants a name and forgets what it had.
    pub(super) fn drop_name(&mut self, name: &str) {
        self.records.remove(name);
        self.asked.remove(name);
    }
}
