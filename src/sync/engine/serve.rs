//! The way of a request: what is asked, where that is executed, and a second look when nobody could be asked right now.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use crate::{
    lifecycle,
    model::{kv::Op, name::Datacenter, sync::Prefix},
    sync::{
        endpoint::{
            Passed, Raw, Request, Response, answer,
            ask::{self, Ask, Wishes},
            audit,
            route::{Route, Scene},
        },
        engine::{Engine, kin, local::asked_for},
        peer::{Peers, Target, convert},
        refusal::Refusal,
        store::{Store, StoreError},
    },
};

/// Between two looks at where a request can go, when it could go nowhere.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A look that failed after so long was not refused but had no answer.
const WAITED: Duration = Duration::from_millis(500);

/// For a connection to the local Consul to come free: a request takes some ms, so that only a Consul in trouble has none.
const ROOM: Duration = Duration::from_secs(5);

/// The longest answer of the local Consul's that is read as a whole, to be shown as the home would show it: a million
/// keys of 256 bytes.
const MAX_WHOLE_BYTES: usize = 512 << 20;

/// A request that was read.
pub(super) struct Asked<'r> {
    pub(super) request: &'r Request,
    pub(super) ask: Ask,
    pub(super) wishes: Wishes,
    pub(super) request_id: String,
    pub(super) arrived: Instant,
}

impl Asked<'_> {
    pub(super) fn dc(&self) -> Option<&str> {
        self.request.param("dc").filter(|dc| !dc.is_empty())
    }

    pub(super) fn is_pretty(&self) -> bool {
        self.request.has("pretty")
    }

    /// Whether it changes nothing, so that it may be sent again whatever became of it.
    pub(super) fn is_read(&self) -> bool {
        match &self.ask {
            Ask::Read(_) | Ask::Other => self.request.method.is_safe(),
            Ask::Txn(txn) => !txn.is_write(),
            Ask::Write(_) | Ask::Session(_) | Ask::Lock(_) | Ask::Sync(_) => self.request.method.is_safe(),
        }
    }
}

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    /// Answers a request of a client, or one that another agent passed on, as a whole.
    pub async fn serve(&self, request: Request) -> Response {
        const LIMIT: usize = convert::MAX_BODY_BYTES;
        let is_read = request.method.is_safe();
        match self.answer(request).await {
            Passed::Whole(response) if response.body.len() > LIMIT => carried_out(response, LIMIT),
            passed => told(passed.whole(LIMIT, is_read).await, is_read)
                .unwrap_or_else(|refusal| answer::refusal(&refusal)),
        }
    }

    /// Answers a request of a client. What is the local Consul's own answer is passed on while it comes.
    pub async fn answer(&self, request: Request) -> Passed {
        let read = ask::ask(&request).and_then(|ask| {
            let wishes = ask::wishes(&request, &ask)?;
            Ok((ask, wishes))
        });
        let (ask, wishes) = match read {
            Ok(read) => read,
            Err(response) => return Passed::Whole(response),
        };
        let request = wishes.recent(request);
        let given = request.origin.as_ref().map(|origin| origin.request_id.clone());
        let request_id =
            given.or_else(|| wishes.request_id.clone()).unwrap_or_else(|| self.0.new_request_id());
        let arrived = lifecycle::now();
        let asked = Asked { request: &request, ask, wishes, request_id, arrived };
        match &asked.ask {
            Ask::Session(session) => Passed::Whole(self.session(&asked, session).await),
            // Another agent's word is good for what replication is about, and opens nothing else of Consul's.
            Ask::Other if request.origin.is_some() => {
                Passed::Whole(Response::text(403, "another agent passes on keys, sessions and locks only"))
            }
            Ask::Other => {
                let opened = self.open(&request).await;
                opened.unwrap_or_else(|refusal| Passed::Whole(answer::refusal(&refusal)))
            }
            _ => self.routed(&asked).await,
        }
    }

    async fn routed(&self, asked: &Asked<'_>) -> Passed {
        let give_up = asked.arrived + self.0.settings.times.forward;
        loop {
            let began = lifecycle::now();
            let refusal = match self.once(asked).await {
                Ok(response) => return response,
                Err(refusal) => refusal,
            };
            let is_passing = matches!(refusal, Refusal::NotServing(_) | Refusal::HomeUnreachable { .. });
            // Whoever asked first looks again; those who only pass on tell at once.
            // What was waited for would be waited for again, here or at the agent that it was passed to.
            let was_waited_for = began + WAITED <= lifecycle::now();
            let is_over = was_waited_for || lifecycle::now() + LOOK_EVERY >= give_up;
            if !is_passing || asked.request.origin.is_some() || is_over {
                let response = answer::refusal(&refusal);
                self.tell(asked, &response).await;
                return Passed::Whole(response);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn once(&self, asked: &Asked<'_>) -> Result<Passed, Refusal> {
        let route = self.route(asked);
        let Route::Forward(Target::Doer(doer)) = &route else { return self.by(asked, route).await };
        let doer = doer.clone();
        let done = self.by(asked, route).await;
        let is_unsent = matches!(done, Err(Refusal::NotServing(_))) && self.0.doers.is_silent(&doer);
        if !is_unsent {
            return done;
        }
        // It is passed by from now on, if there is another way.
        match self.route(asked) {
            Route::Forward(Target::Doer(same)) if same == doer => done,
            other => self.by(asked, other).await,
        }
    }

    async fn by(&self, asked: &Asked<'_>, route: Route) -> Result<Passed, Refusal> {
        let done = match route {
            Route::Pass => {
                self.is_ours_to_pass(asked)?;
                self.is_nobodys(asked)?;
                return match &asked.ask {
                    // Another agent's client may wait for an index of its own Consul.
                    Ask::Read(_) if asked.request.origin.is_some() => self.read_here(asked.request).await,
                    _ => self.open(asked.request).await,
                };
            }
            Route::Local(prefix) => self.local(asked, &prefix).await,
            Route::Above(prefixes) => self.above(asked, &prefixes).await,
            Route::Execute(prefix) => self.execute(asked, prefix.as_ref()).await,
            Route::Home(prefix) => self.home(asked, &prefix).await,
            Route::Forward(target) => self.forward(asked, &target).await,
            Route::Refuse(refusal) => Err(refusal),
        };
        done.map(Passed::Whole)
    }

    fn route(&self, asked: &Asked<'_>) -> Route {
        let inner = &*self.0;
        Scene {
            own: &inner.settings.datacenter,
            datacenters: &inner.settings.datacenters,
            prefixes: &inner.settings.prefixes,
            standing: &|prefix: &Prefix| inner.standing(prefix),
            misfit: &|prefix: &Prefix| inner.misfit(prefix),
            dc: asked.request.param("dc"),
            is_consistent: asked.request.has("consistent"),
            origin: asked.request.origin.as_ref(),
        }
        .route(&asked.ask)
    }

    /// A write that another agent sent here as one of a prefix must not reach Consul without a journal, and one with a
    /// guard must not reach it at all: Consul knows nothing of guards.
    fn is_ours_to_pass(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        if is_guarded_write(&asked.ask, &asked.wishes) {
            let text = "X-Lock guards writes in replicated prefixes only; leave out X-Lock and X-Lock-Token";
            return Err(Refusal::Bad(text.into()));
        }
        let key = match &asked.ask {
            Ask::Write(op) => op.key(),
            Ask::Txn(txn) if txn.is_write() => txn.ops.first().map_or("", Op::key),
            _ => return Ok(()),
        };
        if asked.request.origin.is_none() {
            return Ok(());
        }
        Err(Refusal::Misfit(format!(
            "`{key}` is in no replicated prefix for {} in {}; give all sync agents the same prefixes",
            self.0.settings.node, self.0.settings.datacenter
        )))
    }

    /// What another agent of our datacenter replicates is not passed to Consul past it.
    fn is_nobodys(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let settings = &self.0.settings;
        let kin = kin::known(&settings.kin);
        let foreign = |(key, is_tree): (&str, bool)| {
            let takes_all_below = is_tree && !asked.is_read();
            kin::foreign(&settings.node, &settings.prefixes, &kin, key, takes_all_below)
        };
        asked_for(&asked.ask).into_iter().find_map(foreign).map_or(Ok(()), Err)
    }

    /// Has the local Consul answer, and waits for all of it.
    pub(super) async fn pass(&self, request: &Request) -> Result<Response, Refusal> {
        whole(self.open(request).await?, request).await
    }

    /// Has the local Consul answer. The place among the connections to it is taken until the body has come.
    pub(super) async fn open(&self, request: &Request) -> Result<Passed, Refusal> {
        let room = self.room(request).await?;
        let opened = self.0.store.open(request).await;
        if let Ok(passed) = &opened
            && is_of(request, &self.0.settings.datacenter)
            && let Some(index) = passed.header("x-consul-index").and_then(|index| index.parse().ok())
        {
            self.0.seen_index.fetch_max(index, Ordering::Relaxed);
        }
        match opened {
            Ok(passed) => Ok(passed.keeping(room)),
            Err(error) => told(Err(error), request.method.is_safe()).map(Passed::Whole),
        }
    }

    /// A place among the connections to the local Consul.
    async fn room(&self, request: &Request) -> Result<OwnedSemaphorePermit, Refusal> {
        if request.is_waiting() {
            let text = "too many blocking queries wait at this agent; end some, or ask another one";
            return self.0.watches.clone().try_acquire_owned().map_err(|_| Refusal::Busy(text.into()));
        }
        match timeout(ROOM, self.0.exchanges.clone().acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            _ => {
                let text = "too many requests wait for the local Consul; send it again, or ask another agent";
                Err(Refusal::Busy(text.into()))
            }
        }
    }

    /// Leaves a line for what was done or refused here.
    pub(super) async fn tell(&self, asked: &Asked<'_>, response: &Response) {
        let lines = audit::lines(&asked.ask, response);
        if lines.is_empty() {
            return;
        }
        let accessor = self.accessor(asked.request.token.as_ref()).await;
        let from =
            asked.request.origin.as_ref().map_or(&self.0.settings.datacenter, |origin| &origin.datacenter);
        for line in lines {
            tracing::info!(
                target: "causeway::audit",
                accessor,
                act = line.act,
                key = line.key,
                outcome = line.outcome.as_str(),
                %from,
                request_id = asked.request_id,
                "audit"
            );
        }
    }
}

/// In place of an answer that is too long for another agent: what it was the answer to is done.
fn carried_out(response: Response, limit: usize) -> Response {
    let text = format!(
        "the request was carried out with status {}, and its answer of {} bytes is longer than the {limit} that agents pass \
         on to each other; read less at once",
        response.status,
        response.body.len()
    );
    let own = response.headers.into_iter().filter(|(name, _)| name.starts_with("x-"));
    let mut told = Response::text(502, text);
    told.headers.extend(own);
    told
}

/// Waits for all of an answer of the local Consul's.
pub(super) async fn whole(passed: Passed, request: &Request) -> Result<Response, Refusal> {
    let is_read = request.method.is_safe();
    told(passed.whole(MAX_WHOLE_BYTES, is_read).await, is_read)
}

/// What a client is told of the local Consul's answer, or of the lack of one.
fn told(answer: Result<Response, StoreError>, is_read: bool) -> Result<Response, Refusal> {
    answer.or_else(|error| match error {
        StoreError::Refused { status, reason } => Ok(Response::text(status, reason)),
        StoreError::NotSent(reason) => Err(Refusal::NotServing(reason)),
        StoreError::Unknown(reason) | StoreError::Unusable(reason) if is_read => {
            Ok(Response::text(500, reason))
        }
        StoreError::Unknown(reason) | StoreError::Unusable(reason) => {
            Ok(Response::text(504, format!("outcome=unknown: {reason}")))
        }
    })
}

/// Whether it may change something and wants a guard checked first.
fn is_guarded_write(ask: &Ask, wishes: &Wishes) -> bool {
    let is_write = match ask {
        Ask::Write(_) => true,
        Ask::Txn(txn) => txn.is_write() || txn.has_others,
        _ => false,
    };
    is_write && wishes.guard.is_some()
}

/// Whether the Consul of this datacenter answers it itself: indexes of another say nothing of ours.
fn is_of(request: &Request, own: &Datacenter) -> bool {
    request.param("dc").is_none_or(|dc| dc.is_empty() || dc == own.as_str())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Method;

    use super::*;

    fn request(method: Method, target: &str, body: &'static str) -> Request {
        let headers = [("X-Lock", "locks/a"), ("X-Lock-Token", "1.1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Request::new(method, target, headers, Bytes::from(body))
    }

    #[test]
    fn a_guard_counts_for_whatever_writes() {
        let is_guarded = |method, target, body| {
            let request = request(method, target, body);
            let ask = ask::ask(&request).unwrap();
            let wishes = ask::wishes(&request, &ask).unwrap();
            assert!(!is_guarded_write(&ask, &Wishes::default()), "{target}");
            is_guarded_write(&ask, &wishes)
        };
        assert!(is_guarded(Method::PUT, "/v1/kv/plain/a", "v"));
        assert!(is_guarded(Method::DELETE, "/v1/kv/plain/a", ""));
        assert!(is_guarded(Method::PUT, "/v1/txn", r#"[{"KV":{"Verb":"set","Key":"plain/a"}}]"#));
        assert!(is_guarded(Method::PUT, "/v1/txn", r#"[{"Node":{"Verb":"delete"}}]"#));
        assert!(!is_guarded(Method::PUT, "/v1/txn", r#"[{"KV":{"Verb":"get","Key":"plain/a"}}]"#));
        assert!(!is_guarded(Method::GET, "/v1/kv/plain/a", ""));
    }

    #[test]
    fn indexes_of_another_datacenter_are_not_ours() {
        let is_ours = |target| is_of(&request(Method::GET, target, ""), &"a".into());
        assert!(["/v1/kv/k", "/v1/kv/k?dc=", "/v1/kv/k?dc=a"].into_iter().all(is_ours));
        assert!(!is_ours("/v1/kv/k?dc=b"));
    }
}
