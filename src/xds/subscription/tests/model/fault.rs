//! Known bugs of other servers, planted one at a time around the machine: what it hears or says is altered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::{Entry, Snapshot},
    subscription::{
        Action, Event, Request, Response, SotwRequest, Subscription, Variant,
        tests::rig::{key, request},
    },
    version::Version,
};

const DELTA: &[Variant] = &[Variant::Delta];
const SOTW: &[Variant] = &[Variant::StateOfTheWorld];
const BOTH: &[Variant] = &[Variant::Delta, Variant::StateOfTheWorld];

/// The bugs, with the issues that tell of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// envoy#13009, gcp#245: a changed cluster is not followed by its unchanged endpoints.
    EndpointsDoNotFollow,
    /// gcp#1035: the same on reconnect, because the client has the endpoints.
    EndpointsSkippedOnReconnect,
    /// gcp#46, gcp#794, istio#8471: what was refused is sent again.
    RefusedIsRepeated,
    /// gcp#564: after a refusal the last good version is not kept.
    RefusedLosesLastGood,
    /// envoy#10363, java-control-plane#70: a request with a stale nonce is dropped, its subscriptions too.
    StaleNonceIsDropped,
    /// gcp's delta cache: subscribing again to a name whose version has not changed is not answered.
    SubscribedAgainIsIgnored,
    /// kuma#11602: what was sent at this version before is not sent again to a name that is added.
    SupersetIsSilent,
    /// gcp#565: an unknown name is not answered.
    UnknownNameIsIgnored,
    /// consul#10379: a cluster goes before what names it does.
    BrokenBeforeMade,
    /// Listeners do not wait for the ACK of their clusters.
    ClustersAreNotAwaited,
    /// istio#27877: what a client says that it has is ignored.
    InitialVersionsIgnored,
    /// What is gone since the client was here last is not removed.
    GoneWhileAwayIsKept,
    /// istio#54997: removals are never told.
    RemovalsAreForgotten,
    /// A name comes twice in a response.
    NamesComeTwice,
    /// Unsubscribing from a name under a wildcard is not answered.
    UnsubscribedUnderWildcardIsIgnored,
    /// gcp#1498: a response computed for an older subscription is still sent.
    SupersededIsSent,
    /// What is sent is of the catalog before, and names what that had.
    OutdatedIsSent,
    /// Naming one more ends a legacy wildcard in delta.
    NameEndsLegacyWildcard,
    /// An empty list means everything although names were told before.
    EmptyListMeansEverything,
    /// Clusters and listeners of state of the world carry only what changed.
    WorldIsPartial,
    /// consul#17283: what waits is never looked at again.
    GatesNeverEnd,
    /// envoy#32266: everything is sent again on each change.
    UnchangedIsRepeated,
    /// What changed is not taken into view: our own shortcut, gone wrong.
    ChangeIsOverlooked,
}

impl Fault {
    pub(super) const ALL: [Self; 23] = [
        Self::EndpointsDoNotFollow,
        Self::EndpointsSkippedOnReconnect,
        Self::RefusedIsRepeated,
        Self::RefusedLosesLastGood,
        Self::StaleNonceIsDropped,
        Self::SubscribedAgainIsIgnored,
        Self::SupersetIsSilent,
        Self::UnknownNameIsIgnored,
        Self::BrokenBeforeMade,
        Self::ClustersAreNotAwaited,
        Self::InitialVersionsIgnored,
        Self::GoneWhileAwayIsKept,
        Self::RemovalsAreForgotten,
        Self::NamesComeTwice,
        Self::UnsubscribedUnderWildcardIsIgnored,
        Self::SupersededIsSent,
        Self::OutdatedIsSent,
        Self::NameEndsLegacyWildcard,
        Self::EmptyListMeansEverything,
        Self::WorldIsPartial,
        Self::GatesNeverEnd,
        Self::UnchangedIsRepeated,
        Self::ChangeIsOverlooked,
    ];

    /// Whether a failure is what this bug leads to.
    pub(super) fn explains(self, error: &str) -> bool {
        let words: &[&str] = match self {
            Self::EndpointsDoNotFollow => &["no endpoints behind"],
            Self::EndpointsSkippedOnReconnect => &["no endpoints", "did not follow", "not answered"],
            Self::RefusedIsRepeated => &["offered again although refused"],
            Self::RefusedLosesLastGood => &["loses its last good version"],
            Self::StaleNonceIsDropped | Self::RemovalsAreForgotten => {
                &[" is ", "not answered", "not asked for"]
            }
            Self::SubscribedAgainIsIgnored
            | Self::UnknownNameIsIgnored
            | Self::UnsubscribedUnderWildcardIsIgnored => &["asked for and not answered"],
            Self::BrokenBeforeMade => &["is removed while"],
            Self::ClustersAreNotAwaited => &["is sent before"],
            Self::InitialVersionsIgnored | Self::UnchangedIsRepeated => &["twice without cause"],
            Self::GoneWhileAwayIsKept => &[", not None"],
            Self::NamesComeTwice => &["a name twice"],
            Self::SupersededIsSent | Self::EmptyListMeansEverything => &["not asked for"],
            Self::OutdatedIsSent => &["which is not to be had"],
            Self::NameEndsLegacyWildcard | Self::WorldIsPartial | Self::SupersetIsSilent => {
                &["is None, not Some"]
            }
            Self::GatesNeverEnd => &["a gate never ends"],
            Self::ChangeIsOverlooked => &["due and out of view"],
        };
        words.iter().any(|word| error.contains(word))
    }

    /// Where it can be.
    pub(super) fn variants(self) -> &'static [Variant] {
        match self {
            Self::SubscribedAgainIsIgnored
            | Self::InitialVersionsIgnored
            | Self::GoneWhileAwayIsKept
            | Self::RemovalsAreForgotten
            | Self::UnsubscribedUnderWildcardIsIgnored
            | Self::NameEndsLegacyWildcard
            // State of the world always looks at everything.
            | Self::ChangeIsOverlooked
            // In state of the world every wait ends by an answer as well.
            | Self::GatesNeverEnd => DELTA,
            Self::RefusedLosesLastGood
            | Self::SupersetIsSilent
            | Self::EmptyListMeansEverything
            | Self::WorldIsPartial => SOTW,
            _ => BOTH,
        }
    }
}

/// The machine, and what a fault remembers.
pub(super) struct Server {
    machine: Subscription,
    variant: Variant,
    fault: Option<Fault>,
    snapshot: Arc<Snapshot>,
    before: Arc<Snapshot>,
    sent: BTreeMap<String, Response>,
    last_nonce: BTreeMap<Kind, String>,
    versions: BTreeMap<Key, Version>,
    brought: BTreeSet<(Key, Version)>,
    names: BTreeSet<Key>,
    legacy: BTreeSet<Kind>,
    late: Vec<Action>,
    copies: u64,
    /// The type that the client asks for just now.
    asking: Option<Kind>,
}

impl Server {
    pub(super) fn new(stream: u64, variant: Variant, fault: Option<Fault>) -> Self {
        Self {
            machine: Subscription::new(stream, variant),
            variant,
            fault,
            snapshot: Arc::new(Snapshot::empty()),
            before: Arc::new(Snapshot::empty()),
            sent: BTreeMap::new(),
            last_nonce: BTreeMap::new(),
            versions: BTreeMap::new(),
            brought: BTreeSet::new(),
            names: BTreeSet::new(),
            legacy: BTreeSet::new(),
            late: Vec::new(),
            copies: 0,
            asking: None,
        }
    }

    pub(super) fn reconnect(&mut self, stream: u64) {
        let versions = std::mem::take(&mut self.versions);
        let copies = self.copies;
        *self = Self::new(stream, self.variant, self.fault);
        // A server of state of the world cannot know what the client has; this one guesses.
        self.brought = versions.into_iter().collect();
        self.copies = copies;
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.machine.next_deadline()
    }

    /// What the machine itself would not look at although it is due.
    pub(super) fn overlooked(&mut self) -> Vec<Key> {
        match self.fault {
            None | Some(Fault::ChangeIsOverlooked) => self.machine.overlooked(),
            Some(_) => Vec::new(),
        }
    }

    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let Some(fault) = self.fault else { return self.machine.step(event, now) };
        let Some(event) = self.hear(fault, event) else { return Vec::new() };
        if let Event::Offer(snapshot) = &event {
            self.before = std::mem::replace(&mut self.snapshot, snapshot.clone());
        }
        let mut said = self.repeat(fault, &event);
        let superseded = std::mem::take(&mut self.late);
        let is_offer = matches!(event, Event::Offer(_));
        let unsubscribed = unsubscribed(&event);
        self.asking = match &event {
            Event::Sotw(request) => Kind::of_type_url(&request.type_url),
            _ => None,
        };
        let mut open = self.machine.step(event, now);
        while !open.is_empty() {
            match open.remove(0) {
                Action::Send(response) => {
                    let nonce = response.nonce.clone();
                    let (kind, altered) = (response.kind, self.alter(fault, response, &unsubscribed));
                    match altered {
                        Some(response) => {
                            self.remember(&response);
                            if fault == Fault::ClustersAreNotAwaited && kind == Kind::Cluster {
                                open.extend(self.machine.step(self.taken(kind, nonce), now));
                            }
                            said.push(Action::Send(response));
                        }
                        None => open.extend(self.machine.step(self.taken(kind, nonce), now)),
                    }
                }
                other => said.push(other),
            }
        }
        if fault == Fault::SupersededIsSent && is_offer {
            self.late = said;
            return superseded;
        }
        superseded.into_iter().chain(said).collect()
    }

    /// As if the client had taken a response.
    fn taken(&self, kind: Kind, nonce: String) -> Event {
        match self.variant {
            Variant::Delta => Event::Request(Request { nonce, ..request(kind) }),
            Variant::StateOfTheWorld => {
                let of_kind = self.names.iter().filter(|key| key.kind == kind);
                let names = of_kind.map(|key| key.name.clone()).collect();
                Event::Sotw(SotwRequest {
                    type_url: kind.type_url().into(),
                    names,
                    nonce,
                    ..SotwRequest::default()
                })
            }
        }
    }

    fn remember(&mut self, response: &Response) {
        self.last_nonce.insert(response.kind, response.nonce.clone());
        self.sent.insert(response.nonce.clone(), response.clone());
        for entry in &response.resources {
            self.versions.insert(entry.key.clone(), entry.version.clone());
        }
        for name in &response.removed {
            self.versions.remove(&key(response.kind, name));
        }
    }

    fn hear(&mut self, fault: Fault, event: Event) -> Option<Event> {
        match event {
            Event::Tick if fault == Fault::GatesNeverEnd => None,
            Event::Offer(snapshot) if fault == Fault::ChangeIsOverlooked => {
                self.machine.overlook(snapshot);
                Some(Event::Tick)
            }
            Event::Request(request) => self.hear_delta(fault, request).map(Event::Request),
            Event::Sotw(request) => self.hear_sotw(fault, request).map(Event::Sotw),
            other => Some(other),
        }
    }

    fn is_stale(&self, kind: Kind, nonce: &str) -> bool {
        !nonce.is_empty() && self.last_nonce.get(&kind).is_none_or(|last| last != nonce)
    }

    fn hear_delta(&mut self, fault: Fault, mut request: Request) -> Option<Request> {
        let kind = Kind::of_type_url(&request.type_url)?;
        if fault == Fault::StaleNonceIsDropped && self.is_stale(kind, &request.nonce) {
            return None;
        }
        let is_first = !self.last_nonce.contains_key(&kind) && request.nonce.is_empty();
        match fault {
            Fault::EndpointsSkippedOnReconnect => {
                let versions = request.initial_versions.iter();
                self.brought =
                    versions.map(|(n, v)| (key(kind, n), v.clone())).chain(self.brought.clone()).collect();
            }
            Fault::SubscribedAgainIsIgnored => {
                request.subscribe.retain(|name| !self.versions.contains_key(&key(kind, name)));
            }
            Fault::InitialVersionsIgnored => request.initial_versions.clear(),
            Fault::GoneWhileAwayIsKept => {
                request.initial_versions.retain(|name, _| self.snapshot.get(&key(kind, name)).is_some());
            }
            Fault::NameEndsLegacyWildcard => {
                if is_first && request.subscribe.is_empty() {
                    self.legacy.insert(kind);
                } else if !request.subscribe.is_empty() && self.legacy.remove(&kind) {
                    request.unsubscribe.push("*".into());
                }
            }
            _ => {}
        }
        Some(request)
    }

    fn hear_sotw(&mut self, fault: Fault, mut request: SotwRequest) -> Option<SotwRequest> {
        let kind = Kind::of_type_url(&request.type_url)?;
        if fault == Fault::StaleNonceIsDropped && self.is_stale(kind, &request.nonce) {
            return None;
        }
        let is_world = matches!(kind, Kind::Cluster | Kind::Listener);
        if fault == Fault::EmptyListMeansEverything && is_world && request.names.is_empty() {
            request.names.push("*".into());
        }
        self.names.retain(|key| key.kind != kind);
        self.names.extend(request.names.iter().map(|name| key(kind, name)));
        Some(request)
    }

    /// Responses of the fault's own making.
    fn repeat(&mut self, fault: Fault, event: &Event) -> Vec<Action> {
        let refused = match event {
            Event::Request(Request { nonce, error: Some(_), .. })
            | Event::Sotw(SotwRequest { nonce, error: Some(_), .. }) => self.sent.get(nonce).cloned(),
            _ => None,
        };
        let again = match (fault, event) {
            (Fault::RefusedIsRepeated, _) => refused,
            (Fault::UnchangedIsRepeated, Event::Offer(_)) => {
                self.sent.values().find(|r| r.kind == Kind::Secret && !r.resources.is_empty()).cloned()
            }
            (Fault::BrokenBeforeMade, Event::Offer(snapshot)) if self.variant == Variant::Delta => {
                let clusters = self.versions.keys().filter(|key| key.kind == Kind::Cluster);
                let gone = clusters.filter(|key| snapshot.get(key).is_none());
                let removed: Vec<String> = gone.map(|key| key.name.clone()).collect();
                let some = self.sent.values().next().filter(|_| !removed.is_empty()).cloned();
                some.map(|r| Response {
                    kind: Kind::Cluster,
                    resources: vec![],
                    removed,
                    not_found: vec![],
                    ..r
                })
            }
            _ => None,
        };
        self.copies += 1;
        let nonce = format!("again-{}", self.copies);
        again.map(|response| Action::Send(Response { nonce, ..response })).into_iter().collect()
    }

    /// What becomes of a response; nothing if it is swallowed.
    fn alter(
        &mut self,
        fault: Fault,
        mut response: Response,
        unsubscribed: &BTreeSet<Key>,
    ) -> Option<Response> {
        let had_any =
            !response.resources.is_empty() || !response.removed.is_empty() || !response.not_found.is_empty();
        let is_world = self.variant == Variant::StateOfTheWorld
            && matches!(response.kind, Kind::Cluster | Kind::Listener);
        let is_unchanged = |e: &Arc<Entry>| self.versions.get(&e.key) == Some(&e.version);
        let intended = |e: &Arc<Entry>| self.snapshot.get(&e.key).map(|i| &i.version);
        match fault {
            Fault::EndpointsDoNotFollow if response.kind == Kind::Endpoints => {
                response.resources.retain(|e| !is_unchanged(e));
            }
            Fault::EndpointsSkippedOnReconnect if response.kind == Kind::Endpoints => {
                response.resources.retain(|e| !self.brought.contains(&(e.key.clone(), e.version.clone())));
            }
            Fault::RefusedLosesLastGood if is_world => {
                response.resources.retain(|e| intended(e).is_none_or(|version| *version == e.version));
            }
            Fault::SupersetIsSilent if !is_world && self.asking == Some(response.kind) => {
                response.resources.retain(|e| !is_unchanged(e))
            }
            Fault::UnknownNameIsIgnored => {
                let (kind, versions) = (response.kind, &self.versions);
                response.removed.retain(|name| versions.contains_key(&key(kind, name)));
                response.not_found.clear();
            }
            Fault::BrokenBeforeMade if is_world => response.resources.retain(|e| intended(e).is_some()),
            Fault::RemovalsAreForgotten => {
                response.removed.clear();
                response.not_found.clear();
            }
            Fault::OutdatedIsSent => {
                for entry in &mut response.resources {
                    *entry = self.before.get(&entry.key).unwrap_or(entry).clone();
                }
            }
            Fault::NamesComeTwice => response.resources.extend(response.resources.first().cloned()),
            Fault::UnsubscribedUnderWildcardIsIgnored => {
                response.resources.retain(|e| !unsubscribed.contains(&e.key));
                let kind = response.kind;
                response.removed.retain(|name| !unsubscribed.contains(&key(kind, name)));
            }
            Fault::WorldIsPartial if is_world => response.resources.retain(|e| !is_unchanged(e)),
            _ => return Some(response),
        }
        let has_any =
            !response.resources.is_empty() || !response.removed.is_empty() || !response.not_found.is_empty();
        (has_any || !had_any || is_world).then_some(response)
    }
}

fn unsubscribed(event: &Event) -> BTreeSet<Key> {
    let Event::Request(request) = event else { return BTreeSet::new() };
    let Some(kind) = Kind::of_type_url(&request.type_url) else { return BTreeSet::new() };
    request.unsubscribe.iter().map(|name| key(kind, name)).collect()
}
