//! Reads of a replica: what the local Consul holds, shown as the home would show it.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{
    lifecycle,
    model::{
        kv::Op,
        sync::{Position, Prefix, PrefixId},
    },
    sync::{
        endpoint::{
            Passed, Raw, Request, Response,
            ask::{Ask, What},
            translate::{self, Shown, Translated},
        },
        engine::{
            Engine, Role,
            serve::{Asked, whole},
        },
        layout::Layout,
        peer::{Peers, Target},
        record::{self, Phase, State},
        refusal::Refusal,
        replica::{Indexes, Replica},
        store::{Read, Store},
    },
};

/// The applier learns the indexes of what it wrote from Consul's answer, a moment after readers can see it.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// So often is looked again. After that the home is asked.
const LOOKS: usize = 40;

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    pub(super) async fn local(&self, asked: &Asked<'_>, prefix: &Prefix) -> Result<Response, Refusal> {
        let Some(Role::Replica(replica)) = self.0.parts.get(&prefix.text).map(|part| &part.role) else {
            return self.pass(asked.request).await;
        };
        self.recent_enough(asked, prefix, replica).await?;
        if is_held(replica, &asked.ask) {
            return self.ask_home(asked, prefix, replica).await;
        }
        // Known before the read, so that what is read is at least this old.
        let at = replica.known().map(|known| known.position);
        let plain = asked.request.clone().without_header("accept-encoding");
        let response = whole(self.read_here(&plain).await?, &plain).await?;
        // It may have become a lock while the query waited.
        if is_held(replica, &asked.ask) {
            return self.ask_home(asked, prefix, replica).await;
        }
        let Some(translated) = self.translated(asked, replica, &response).await? else {
            return Ok(marked(response, prefix, replica, at));
        };
        if translated.unknown.is_empty() {
            let response = Response { body: translated.body.into(), ..response };
            return Ok(marked(response, prefix, replica, at));
        }
        self.ask_home(asked, prefix, replica).await
    }

    /// Has the local Consul answer, waiting only for an index of its own. One of another datacenter's Consul may be beyond
    /// all that this one will reach, and a query that waits for it would see nothing until its time is over: clients of a
    /// replica come with the home's, as for a lock or while the applier changed, and are passed on to the home with the
    /// replica's.
    pub(super) async fn read_here(&self, request: &Request) -> Result<Passed, Refusal> {
        let waits_for = request.param("index").and_then(|index| index.parse::<u64>().ok());
        let Some(index) = waits_for.filter(|index| *index > self.0.seen_index.load(Ordering::Relaxed)) else {
            return self.open(request).await;
        };
        let now = self.open(&request.clone().without_param("index").without_param("wait")).await?;
        let reached = now.header("x-consul-index").and_then(|index| index.parse::<u64>().ok());
        if reached.is_some_and(|reached| reached < index) {
            return Ok(now);
        }
        drop(now);
        self.open(request).await
    }

    /// `X-Sync-Min-Seq` and the configured staleness.
    async fn recent_enough(
        &self,
        asked: &Asked<'_>,
        prefix: &Prefix,
        replica: &Replica<S, P>,
    ) -> Result<(), Refusal> {
        let times = &self.0.settings.times;
        if let Some(at) = asked.wishes.min_seq
            && !replica.applied(at, lifecycle::now() + times.applied).await
        {
            let known =
                replica.known().map_or_else(|| "not known".to_owned(), |known| known.position.to_string());
            return Err(Refusal::Deadline(format!(
                "the replica of `{}` in {} has not reached {at} within {} ms, it is at {known}; send it again, or with \
                 ?consistent",
                prefix.text,
                self.0.settings.datacenter,
                times.applied.as_millis()
            )));
        }
        self.fresh_enough(prefix, replica)
    }

    /// The configured staleness. What nobody here applies is of unknown age.
    fn fresh_enough(&self, prefix: &Prefix, replica: &Replica<S, P>) -> Result<(), Refusal> {
        let Some(most) = self.0.settings.times.max_staleness else { return Ok(()) };
        match replica.lag().ms {
            Some(ms) if u128::from(ms) <= most.as_millis() => Ok(()),
            ms => Err(Refusal::TooStale(format!(
                "the replica of `{}` in {} is {} behind its home {}, more than max_staleness allows",
                prefix.text,
                self.0.settings.datacenter,
                ms.map_or_else(|| "an unknown time".to_owned(), |ms| format!("{ms} ms")),
                prefix.home
            ))),
        }
    }

    /// What nobody here can show as the home would.
    pub(super) async fn home(&self, asked: &Asked<'_>, prefix: &Prefix) -> Result<Response, Refusal> {
        match self.0.parts.get(&prefix.text).map(|part| &part.role) {
            Some(Role::Replica(replica)) => self.ask_home(asked, prefix, replica).await,
            _ => self.forward(asked, &Target::Datacenter(prefix.home.clone())).await,
        }
    }

    /// From the home; when that cannot be reached, what is here, marked as stale, if it is whole.
    async fn ask_home(
        &self,
        asked: &Asked<'_>,
        prefix: &Prefix,
        replica: &Replica<S, P>,
    ) -> Result<Response, Refusal> {
        let refusal = match self.forward(asked, &Target::Datacenter(prefix.home.clone())).await {
            Err(refusal @ (Refusal::HomeUnreachable { .. } | Refusal::NotServing(_))) => refusal,
            answered => return answered,
        };
        let Some(at) = self.whole_without_locks(asked, prefix).await else { return Err(refusal) };
        if asked.wishes.min_seq.is_some_and(|wanted| wanted > at) {
            return Err(refusal);
        }
        self.fresh_enough(prefix, replica)?;
        let plain = asked.request.clone().without_header("accept-encoding");
        let response = whole(self.read_here(&plain).await?, &plain).await?;
        let translated = translation(asked, replica, &response)?;
        let body = translated.map_or_else(|| response.body.clone(), |translated| translated.body.into());
        let response = Response { body, ..response };
        Ok(marked(response, prefix, replica, Some(at)).with("x-sync-stale", "true"))
    }

    /// The position of the local data, if it is the home's at one position and none of what is asked for is a lock. Read
    /// from Consul: this agent knows less, or it would not have asked the home.
    async fn whole_without_locks(&self, asked: &Asked<'_>, prefix: &Prefix) -> Option<Position> {
        let layout = Layout::new(&PrefixId::of(&prefix.text));
        let pair = self.0.store.get(&layout.state(), Read::Default).await.ok()?.value?;
        let state: State = record::decode(&layout.state(), &pair.value).ok()?;
        if state.phase != Phase::Stream || state.home != prefix.home {
            return None;
        }
        for (key, is_tree) in asked_for(&asked.ask) {
            let marker = layout.held(key);
            let is_free = if is_tree {
                self.0.store.list(&marker, Read::Default).await.ok()?.value.is_empty()
            } else {
                self.0.store.get(&marker, Read::Default).await.ok()?.value.is_none()
            };
            if !is_free {
                return None;
            }
        }
        Some(state.position)
    }

    /// The answer with the home's indexes; none when it holds none.
    async fn translated(
        &self,
        asked: &Asked<'_>,
        replica: &Replica<S, P>,
        response: &Response,
    ) -> Result<Option<Translated>, Refusal> {
        for _ in 0..LOOKS {
            match translation(asked, replica, response)? {
                Some(translated) if !translated.unknown.is_empty() => tokio::time::sleep(LOOK_EVERY).await,
                known => return Ok(known),
            }
        }
        translation(asked, replica, response)
    }
}

fn translation<S: Store, P: Peers>(
    asked: &Asked<'_>,
    replica: &Replica<S, P>,
    response: &Response,
) -> Result<Option<Translated>, Refusal> {
    let shown = |key: &str, local: u64| match replica.indexes(key, local) {
        Indexes::Known { create, modify, lock } => Shown::As { create, modify, lock },
        Indexes::Unknown => Shown::Unknown,
    };
    let translated = match &asked.ask {
        _ if response.status != 200 => return Ok(None),
        Ask::Read(read) if matches!(read.what, What::Pair | What::Tree) => {
            translate::pairs(&response.body, shown)
        }
        Ask::Txn(_) => translate::txn(&response.body, shown),
        _ => return Ok(None),
    };
    translated.map(Some).map_err(|error| Refusal::NotServing(error.to_string()))
}

/// The keys that are named, and whether with all below them.
pub(super) fn asked_for(ask: &Ask) -> Vec<(&str, bool)> {
    match ask {
        Ask::Read(read) => vec![(&read.key, read.is_tree())],
        Ask::Write(op) => vec![(op.key(), op.is_tree())],
        Ask::Txn(txn) => txn.ops.iter().map(|op: &Op| (op.key(), op.is_tree())).collect(),
        _ => Vec::new(),
    }
}

fn is_held<S: Store, P: Peers>(replica: &Replica<S, P>, ask: &Ask) -> bool {
    let is_held = |(key, is_tree): &(&str, bool)| {
        if *is_tree { replica.has_held_below(key) } else { replica.is_held(key) }
    };
    asked_for(ask).iter().any(is_held)
}

/// How old the answer may be.
fn marked<S: Store, P: Peers>(
    response: Response,
    prefix: &Prefix,
    replica: &Replica<S, P>,
    at: Option<Position>,
) -> Response {
    let lag = replica.lag();
    let mut response = response.with("x-sync-home", prefix.home.as_str());
    if let Some(at) = at {
        response = response.with("x-sync-seq", at.to_string());
    }
    if let Some(ms) = lag.ms {
        response = response.with("x-sync-lag", ms.to_string());
    }
    if lag.is_connected { response } else { response.with("x-sync-stale", "true") }
}
