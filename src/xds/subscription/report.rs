//! What the stream looks like to people.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use crate::xds::{
    resource::{Key, Kind},
    status::{Nack, ResourceState, ResourceStatus, TypeStatus},
    subscription::{
        Subscription,
        state::{Given, TypeState},
    },
    version::Version,
};

impl Subscription {
    /// Where each type and resource stands, types never asked for left out. `ms` tells a moment in milliseconds
    /// since the Unix epoch.
    pub fn status(&self, ms: impl Fn(Instant) -> u64) -> Vec<TypeStatus> {
        let asked_for = self.types.iter().filter(|(_, state)| state.known);
        asked_for.map(|(kind, state)| self.type_status(kind, state, &ms)).collect()
    }

    fn type_status(&self, kind: Kind, state: &TypeState, ms: &impl Fn(Instant) -> u64) -> TypeStatus {
        let offered = self.snapshot.of_kind(kind).map(|entry| &entry.name).filter(|_| state.wildcard);
        let names: BTreeSet<&Arc<str>> = state
            .names
            .iter()
            .chain(offered)
            .chain(state.records.keys())
            .filter(|n| state.is_subscribed(n))
            .collect();
        let in_flight = state.in_flight();
        let standing = |name: &Arc<str>| self.resource_status(kind, state, name, in_flight.contains(&**name));
        let resources = names.into_iter().map(standing).collect();
        let tally = &state.tally;
        TypeStatus {
            kind: kind.short().to_owned(),
            resources,
            sent_at_ms: tally.sent_at.map(ms),
            acked_at_ms: tally.acked_at.map(ms),
            acks: tally.acks,
            nacks: tally.nacks,
            last_nack: tally.last_nack.as_ref().map(|refusal| Nack {
                message: refusal.message.clone(),
                resources: refusal.resources.clone(),
                at_ms: ms(refusal.at),
            }),
        }
    }

    fn resource_status(&self, kind: Kind, state: &TypeState, name: &str, in_flight: bool) -> ResourceStatus {
        let intended = self.snapshot.get(&Key::new(kind, name)).map(|entry| &entry.version);
        let given = state.records.get(name).map(|record| &record.given);
        let (sent, standing) = match intended {
            Some(version) if state.is_rejected(name, version) => (Some(version), ResourceState::Rejected),
            Some(version) => {
                let sent = given.and_then(Given::version);
                (sent, present(version, sent, in_flight))
            }
            None => {
                let sent = given.and_then(Given::version);
                let told = given.is_none_or(|given| *given == Given::Removed);
                let absent = told && self.snapshot.is_complete();
                (sent, if absent { ResourceState::Absent } else { ResourceState::Waiting })
            }
        };
        ResourceStatus {
            name: name.to_owned(),
            intended: intended.map(Version::to_string),
            sent: sent.map(Version::to_string),
            state: standing,
        }
    }
}

fn present(intended: &Version, sent: Option<&Version>, in_flight: bool) -> ResourceState {
    if sent != Some(intended) {
        ResourceState::Waiting
    } else if in_flight {
        ResourceState::Sent
    } else {
        ResourceState::Synced
    }
}
