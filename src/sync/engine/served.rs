//! What this agent answers to others.

use http::Method;
use tokio::sync::{mpsc, watch};

use crate::{
    model::{
        name::Datacenter,
        sync::{Position, PrefixId},
    },
    sync::{
        endpoint::{Origin, Raw, Request},
        engine::{Engine, Part, Role},
        home::Home,
        layout::Layout,
        peer::{
            Absent, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, Known, MIN_VERSION,
            PeerError, Peers, Served, Target, VERSION,
        },
        record::{self, Head, State},
        store::{Read, Store},
    },
};

impl<S: Store + Raw, P: Peers> Served for Engine<S, P> {
    async fn hello(&self, _from: &Datacenter, hello: Hello) -> Result<HelloReply, PeerError> {
        let settings = &self.0.settings;
        let (oldest, newest) = hello.versions;
        let version = newest.min(VERSION);
        if version < oldest.max(MIN_VERSION) {
            return Err(PeerError::Misfit(format!(
                "{} speaks versions {MIN_VERSION} to {VERSION} of the sync protocol and {} versions {oldest} to {newest}; \
                 update the older one",
                settings.datacenter, hello.datacenter
            )));
        }
        self.0.neighbours.greeted_by(&hello);
        let mut known = Vec::new();
        for part in self.0.parts.values() {
            // An agent of our own datacenter has the same Consul, and wants to know at once who is there.
            if hello.datacenter != settings.datacenter {
                known.extend(self.known(part).await);
            }
            // A restored Consul of ours has forgotten what was committed; that makes it no less true.
            known.extend(settings.positions.known(&part.prefix.text));
        }
        let own = settings.hello();
        Ok(HelloReply {
            version,
            datacenter: own.datacenter,
            node: own.node,
            prefixes: own.prefixes,
            max_txn_ops: own.max_txn_ops,
            max_value_bytes: own.max_value_bytes,
            known,
        })
    }

    async fn forward(&self, _from: &Datacenter, request: Forward) -> Result<Forwarded, PeerError> {
        let method: Method =
            request.method.parse().map_err(|_| PeerError::Refused("the method is none of HTTP's".into()))?;
        let mut asked = Request::new(method, &request.path_and_query, request.headers, request.body);
        asked.token = request.token.filter(|token| !token.is_empty());
        asked.origin =
            Some(Origin { datacenter: request.origin, request_id: request.request_id, hops: request.hops });
        let response = self.serve(asked).await;
        Ok(Forwarded { status: response.status, headers: response.headers, body: response.body })
    }

    async fn follow(
        &self,
        from: &Datacenter,
        start: FollowStart,
        acks: watch::Receiver<Position>,
        items: mpsc::Sender<Result<FollowItem, PeerError>>,
    ) {
        let no = |text: String| PeerError::Refused(text);
        let (part, home) = match self.home_of(&start.prefix) {
            Ok(found) => found,
            Err(error) => {
                let _ = items.send(Err(error)).await;
                return;
            }
        };
        if part.holding.borrow().session.is_some() {
            let passed_on = start.origin.clone().filter(|_| *from == self.0.settings.datacenter);
            return home.follow(passed_on.as_ref().unwrap_or(from), start, acks, items).await;
        }
        // What an agent of our own datacenter passes on is not passed on again.
        let doer =
            self.0.doer(part).filter(|doer| *doer != self.0.me() && *from != self.0.settings.datacenter);
        let Some(doer) = doer else {
            let text =
                format!("no sync agent of {} is active for `{}`", self.0.settings.datacenter, start.prefix);
            let _ = items.send(Err(no(text))).await;
            return;
        };
        let start = FollowStart { origin: Some(from.clone()), ..start };
        match self.0.peers.follow(&Target::Doer(doer), start, acks).await {
            Err(error) => {
                let _ = items.send(Err(error)).await;
            }
            Ok(mut passed) => {
                let pass_on = async {
                    while let Some(item) = passed.recv().await {
                        if items.send(item).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = pass_on => {}
                    () = items.closed() => {}
                }
            }
        }
    }

    /// Any agent of the home's datacenter can tell: it takes its Consul, and no duty.
    async fn absent(&self, _from: &Datacenter, absent: Absent) -> Result<(), PeerError> {
        let (_, home) = self.home_of(&absent.prefix)?;
        home.absent(&absent.keys, absent.at).await
    }
}

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    fn home_of(&self, prefix: &str) -> Result<(&Part<S, P>, &Home<S>), PeerError> {
        match self.0.parts.get(prefix).map(|part| (part, &part.role)) {
            Some((part, Role::Home(home, _))) => Ok((part, home)),
            _ => Err(PeerError::Misfit(format!(
                "{} is not the home of `{prefix}`; give all sync agents the same prefixes",
                self.0.settings.datacenter
            ))),
        }
    }

    /// How far our datacenter knows a prefix: where this agent does not do the work, its Consul tells.
    pub(super) async fn known(&self, part: &Part<S, P>) -> Option<Known> {
        if let Some(known) = part.known() {
            return Some(known);
        }
        let layout = Layout::new(&PrefixId::of(&part.prefix.text));
        let key = match &part.role {
            Role::Home(..) => layout.head(),
            Role::Replica(_) => layout.state(),
        };
        let pair = self.0.store.get(&key, Read::Default).await.ok()?.value?;
        let (position, hash) = match &part.role {
            Role::Home(..) => {
                let head: Head = record::decode(&key, &pair.value).ok()?;
                (head.position, head.hash)
            }
            Role::Replica(_) => {
                let state: State = record::decode(&key, &pair.value).ok()?;
                (state.position, state.hash)
            }
        };
        Some(Known { prefix: part.prefix.text.clone(), position, hash })
    }
}
