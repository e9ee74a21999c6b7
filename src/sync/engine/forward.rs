//! Takes a request to where it is executed, and knows of each failure whether anything was.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    lifecycle,
    model::{name::Datacenter, settings::duration_ms, sync::Position},
    sync::{
        endpoint::{
            Raw, Request, Response,
            ask::{Ask, LockAct},
        },
        engine::{Engine, MAX_WAITING_AWAY, Role, serve::Asked},
        peer::{Forward, Forwarded, PeerError, Peers, Target},
        refusal::Refusal,
        store::Store,
    },
};

/// What Consul waits when a blocking query does not say how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// The longest wait that Consul grants.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// For the way there and back, beyond what a request waits for.
const WAY: Duration = Duration::from_secs(10);

/// What a greeting takes to be told.
const GREETING: Duration = Duration::from_millis(100);

/// Headers that mean something where the request is executed.
const CARRIED: &[&str] = &["x-lock", "x-lock-token", "x-sync-min-seq", "cache-control", "content-type"];

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    /// Has it executed there. A refusal of which nothing is certain is [`Refusal::OutcomeUnknown`].
    pub(super) async fn forward(&self, asked: &Asked<'_>, target: &Target) -> Result<Response, Refusal> {
        let response = self.sent(asked, target).await?;
        match target {
            Target::Datacenter(home) if response.status < 300 => {
                Ok(self.having_applied(asked, home, response).await)
            }
            Target::Datacenter(_) | Target::Doer(_) => Ok(response),
        }
    }

    async fn sent(&self, asked: &Asked<'_>, target: &Target) -> Result<Response, Refusal> {
        let inner = &*self.0;
        let _place = waiting(asked).map(|_| inner.waiting_away.try_acquire()).transpose().map_err(|_| {
            Refusal::Busy(format!(
                "{MAX_WAITING_AWAY} requests wait at other agents for this one already; end some, or ask another agent"
            ))
        })?;
        // Certainty first: what was sent into a cut is neither done nor undone.
        Box::pin(self.reach(asked, target)).await.map_err(|error| self.unsent(target, error))?;
        match Box::pin(self.asked_of(asked, target)).await {
            Ok(answer) => {
                match target {
                    Target::Datacenter(datacenter) => inner.neighbours.heard(datacenter),
                    Target::Doer(doer) => inner.doers.heard(doer),
                }
                let response = Response { status: answer.status, headers: answer.headers, body: answer.body };
                // The other end says that nothing was done and that it is worth another look.
                if response.status == 503 && response.header("retry-after").is_some() {
                    let text = String::from_utf8_lossy(&response.body).into_owned();
                    return Err(Refusal::NotServing(text));
                }
                Ok(response)
            }
            Err(PeerError::Unknown(reason)) => {
                self.lost(target);
                if asked.is_read() {
                    return Err(self.unsent(target, PeerError::Unreached(reason)));
                }
                Err(Refusal::OutcomeUnknown { request_id: asked.request_id.clone(), reason })
            }
            Err(error) => {
                self.lost(target);
                Err(self.unsent(target, error))
            }
        }
    }

    /// The answer. A read is given up once who should answer it hangs: another one can.
    async fn asked_of(&self, asked: &Asked<'_>, target: &Target) -> Result<Forwarded, PeerError> {
        let inner = &*self.0;
        let answer = inner.peers.forward(target, self.as_forward(asked), self.patience(asked));
        let Target::Doer(doer) = target else { return answer.await };
        if !asked.is_read() {
            return answer.await;
        }
        let hello = inner.settings.hello();
        tokio::select! {
            answer = answer => answer,
            error = inner.doers.falls_silent(&inner.peers, &hello, doer, self.greeting()) => Err(error),
        }
    }

    /// How long an agent of our own datacenter may take to answer a greeting: there is time left to ask elsewhere.
    fn greeting(&self) -> Duration {
        self.0.settings.times.forward / 2
    }

    async fn reach(&self, asked: &Asked<'_>, target: &Target) -> Result<(), PeerError> {
        let inner = &*self.0;
        match target {
            Target::Datacenter(datacenter) => {
                let reached = timeout_at(self.reached_by(asked), inner.neighbours.reach(datacenter)).await;
                let silent =
                    || PeerError::Unreached(format!("no answer within {:?}", inner.settings.times.forward));
                reached.unwrap_or_else(|_| Err(silent()))
            }
            Target::Doer(doer) => {
                inner.doers.reach(&inner.peers, inner.settings.hello(), doer, self.greeting()).await
            }
        }
    }

    /// There was no answer: the next one who wants to know asks.
    fn lost(&self, target: &Target) {
        match target {
            Target::Datacenter(datacenter) => self.0.neighbours.lost(datacenter),
            Target::Doer(doer) => self.0.doers.lost(doer),
        }
    }

    /// By when the other datacenter must have answered. A request that looks again does not wait anew, and one that comes
    /// to need the home only after a long wait of its own does.
    fn reached_by(&self, asked: &Asked<'_>) -> Instant {
        let (now, forward) = (lifecycle::now(), self.0.settings.times.forward);
        let first = asked.arrived + forward;
        let by = if now < first { first } else { now + forward };
        // A greeting that began with the request ends by itself, and tells others too.
        by + GREETING
    }

    /// The refusal of a request that was executed nowhere.
    fn unsent(&self, target: &Target, error: PeerError) -> Refusal {
        match (error, target) {
            (PeerError::Misfit(text), _) => Refusal::Misfit(text),
            (error, Target::Datacenter(home)) => {
                Refusal::HomeUnreachable { home: home.clone(), reason: error.to_string() }
            }
            (error, Target::Doer(doer)) => Refusal::NotServing(format!(
                "the active sync agent, on node {}, does not answer: {error}; send it again in a few seconds",
                doer.node
            )),
        }
    }

    fn as_forward(&self, asked: &Asked<'_>) -> Forward {
        let request = asked.request;
        let origin = request.origin.as_ref();
        Forward {
            request_id: asked.request_id.clone(),
            method: request.method.to_string(),
            path_and_query: request.target.clone(),
            headers: carried(request),
            body: request.body.clone(),
            token: request.token.clone(),
            origin: origin.map_or_else(|| self.0.settings.datacenter.clone(), |it| it.datacenter.clone()),
            hops: origin.map_or(0, |origin| origin.hops) + 1,
        }
    }

    /// How long an answer may take.
    fn patience(&self, asked: &Asked<'_>) -> Duration {
        let times = &self.0.settings.times;
        waiting(asked).map_or(times.forward + times.commit, |wait| wait + WAY)
    }

    /// Read your writes: the answer to a write waits until the replica here has it, for a while.
    async fn having_applied(&self, asked: &Asked<'_>, home: &Datacenter, response: Response) -> Response {
        let is_write = matches!(&asked.ask, Ask::Write(_) | Ask::Txn(_)) && !asked.is_read();
        let at = response.header("x-sync-seq").and_then(|text| text.parse::<Position>().ok());
        let (true, Some(at), Some(key)) = (is_write, at, first_key(&asked.ask)) else { return response };
        let part = self.0.settings.prefixes.of_key(key).and_then(|prefix| self.0.parts.get(&prefix.text));
        let Some(part) = part.filter(|part| part.prefix.home == *home) else { return response };
        let is_active = part.holding.borrow().session.is_some();
        let applied = match &part.role {
            Role::Replica(replica) if is_active => {
                replica.applied(at, lifecycle::now() + self.0.settings.times.applied).await
            }
            // Nobody applies right now, or another agent begins to: nothing can be waited for here.
            Role::Replica(_) | Role::Home(..) => false,
        };
        if applied { response } else { response.with("x-sync-applied", "false") }
    }
}

fn first_key(ask: &Ask) -> Option<&str> {
    match ask {
        Ask::Write(op) => Some(op.key()),
        Ask::Txn(txn) => txn.ops.first().map(|op| op.key()),
        Ask::Read(read) => Some(&read.key),
        Ask::Lock(lock) => Some(&lock.key),
        Ask::Other | Ask::Session(_) | Ask::Sync(_) => None,
    }
}

fn carried(request: &Request) -> Vec<(String, String)> {
    let is_carried = |(name, _): &&(String, String)| CARRIED.contains(&name.as_str());
    request.headers.iter().filter(is_carried).cloned().collect()
}

/// How long it waits for something to happen; none where it is carried out at once.
fn waiting(asked: &Asked<'_>) -> Option<Duration> {
    match &asked.ask {
        Ask::Lock(lock) if lock.act == LockAct::Acquire => Some(MAX_WAIT),
        _ => blocking(asked.request).map(|wait| wait + wait / 16),
    }
}

/// How long a blocking query waits; none for other requests.
fn blocking(request: &Request) -> Option<Duration> {
    request.param("index").filter(|index| !index.is_empty() && *index != "0")?;
    let asked = request.param("wait").and_then(duration_ms).map(Duration::from_millis);
    Some(asked.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT))
}
