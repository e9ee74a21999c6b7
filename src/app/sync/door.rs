//! Who answers below `/v1/`: the engine of this agent, or a sync agent of the datacenter for one that takes no part.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use tokio::{
    sync::{OnceCell, watch},
    time::timeout,
};

use crate::{
    api::{Body, Kv},
    app::sync::LocalEngine,
    config::{
        consul::{ConsulAddress, ConsulSettings},
        http::HttpSettings,
    },
    consul::{client::Client, watch::Watches},
    model::{
        catalog::{Catalog, Topic},
        instance::Instance,
        name::{Datacenter, ServiceName},
    },
    sync::{
        endpoint::{PASSED, Passed, Raw, Request, Response, ask},
        peer,
        store::{StoreError, consul::ConsulStore},
    },
};

/// Where an instance of the peer service says how its HTTP interface is reached.
const HTTP_ADDRESS: &str = "http_address";
/// Who wants the list of agents.
const OWNER: &str = "sync.pass";
/// For Consul to tell them, the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// Said where none of them is known.
const NOBODY: &str = "no agent of this datacenter that other machines reach takes part in replication: turn [sync] enabled \
                      on in two of them, and give their [http] listen an address that other machines reach";
/// Paths that a sync agent answers; all else is the local Consul's.
const REPLICATED: [&str; 5] = ["/v1/kv", "/v1/session", "/v1/txn", "/v1/lock", "/v1/sync"];

/// The door to Consul's API.
pub(in crate::app) struct Door {
    http: HttpSettings,
    inside: Inside,
}

enum Inside {
    /// This agent takes part.
    Engine(watch::Receiver<Option<LocalEngine>>),
    /// Another one does.
    Others(Arc<Others>),
}

struct Others {
    watches: Watches,
    /// What is watched from the first request on: an agent that nobody asks needs no list of agents.
    wanted: OnceCell<Datacenter>,
    local: ConsulStore,
    /// By address, so that connections are used again.
    agents: Mutex<BTreeMap<String, ConsulStore>>,
}

impl Door {
    /// To the engine of this agent, whenever it runs.
    pub(in crate::app) fn to_engine(
        http: HttpSettings,
        engine: watch::Receiver<Option<LocalEngine>>,
    ) -> Self {
        Self { http, inside: Inside::Engine(engine) }
    }

    /// To the sync agents that the catalog shows. `local` is this machine's Consul.
    pub(in crate::app) fn to_others(http: HttpSettings, watches: Watches, local: Client) -> Self {
        let others = Others {
            watches,
            wanted: OnceCell::new(),
            local: ConsulStore::new(local),
            agents: Mutex::default(),
        };
        Self { http, inside: Inside::Others(Arc::new(others)) }
    }
}

impl Kv for Door {
    fn may_write(&self, client: IpAddr) -> bool {
        self.http.may_write(client)
    }

    fn serve(&self, request: http::Request<Bytes>) -> BoxFuture<'static, http::Response<Body>> {
        let request = Request::from(request);
        match &self.inside {
            Inside::Engine(engine) => {
                let engine = engine.borrow().clone();
                Box::pin(async move {
                    let Some(engine) = engine else { return http(Passed::Whole(not_running())) };
                    http(engine.answer(request).await)
                })
            }
            Inside::Others(others) => {
                let others = others.clone();
                Box::pin(async move { http(others.answer(request).await) })
            }
        }
    }
}

fn http(passed: Passed) -> http::Response<Body> {
    let (head, pieces) = match passed {
        Passed::Whole(whole) => return http::Response::<Bytes>::from(whole).map(Body::from),
        Passed::Coming(head, pieces) => (head, pieces),
    };
    // So that a client knows how much there is, and a body that breaks off is told by breaking off.
    let length = head.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let mut response = http::Response::<Bytes>::from(head).map(|_| Body::from_stream(pieces));
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    response
}

impl Others {
    async fn answer(&self, request: Request) -> Passed {
        // What is passed on has its token in a header: a `;` beside it in the query would be gone.
        if let Some(response) = ask::ambiguous(&request) {
            return Passed::Whole(response);
        }
        let Some(agents) = self.agents().await else { return not_known() };
        match (is_replicated(&request.path), agents.is_empty()) {
            // Where nothing is replicated, this is no door to Consul.
            (false, true) => return Passed::Whole(Response::text(404, NOBODY)),
            (false, false) => return told(self.local.open(&request).await),
            // Not 404, which says that a key is not there.
            (true, true) => return unavailable(NOBODY),
            (true, false) if request.header(PASSED).is_some() => {
                return unavailable(
                    "the agent that was asked takes no part in replication any more; ask again",
                );
            }
            (true, false) => {}
        }
        let mut passed = request;
        passed.headers.push((PASSED.to_owned(), "1".to_owned()));
        let mut last = unavailable(NOBODY);
        for agent in agents {
            let answer = agent.open(&passed).await;
            // Only what never left is given to another: it was executed by nobody.
            let is_over = !matches!(answer, Err(StoreError::NotSent(_)));
            last = told(answer);
            if is_over {
                break;
            }
        }
        last
    }

    /// The agents of this datacenter that can be asked, those that are well first; none while Consul has not told.
    async fn agents(&self) -> Option<Vec<ConsulStore>> {
        let mut catalog = self.watches.catalog();
        let datacenter = catalog.borrow().agent().known()?.datacenter.clone();
        let datacenter = self.wanted.get_or_init(|| self.want(datacenter)).await;
        let service = ServiceName::from(peer::SERVICE);
        let is_told = |catalog: &Arc<Catalog>| catalog.connect(datacenter, &service).known().is_some();
        let told = timeout(FIRST_ANSWER, catalog.wait_for(is_told)).await.ok()?.ok()?.clone();
        let mut instances: Vec<&Instance> = told.connect(datacenter, &service).known()?.iter().collect();
        // Those whose check fails are asked when all others could not be.
        instances.sort_by_key(|it| it.health);
        Some(self.doors(instances.iter().filter_map(|it| it.meta.get(HTTP_ADDRESS))))
    }

    async fn want(&self, dc: Datacenter) -> Datacenter {
        let topic = Topic::Connect { dc: dc.clone(), service: ServiceName::from(peer::SERVICE) };
        self.watches.want(OWNER, [topic].into()).await;
        dc
    }

    fn doors<'a>(&self, addresses: impl Iterator<Item = &'a String>) -> Vec<ConsulStore> {
        let mut known = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let door = |address: &String| known.get(address).cloned().or_else(|| store(address));
        let doors: Vec<_> = addresses.filter_map(|address| Some((address.clone(), door(address)?))).collect();
        *known = doors.iter().cloned().collect();
        doors.into_iter().map(|(_, door)| door).collect()
    }
}

/// A client without a token of its own: each request has its client's.
fn store(address: &str) -> Option<ConsulStore> {
    let address = ConsulAddress::parse(address).ok()?;
    let client = Client::new(ConsulSettings { address, ..ConsulSettings::default() }).ok()?;
    Some(ConsulStore::new(client))
}

fn is_replicated(path: &str) -> bool {
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    REPLICATED.into_iter().any(|root| path.strip_prefix(root).is_some_and(is_below))
}

fn told(answer: Result<Passed, StoreError>) -> Passed {
    answer.unwrap_or_else(|error| match error {
        StoreError::Unknown(reason) => {
            Passed::Whole(Response::text(504, format!("outcome=unknown: {reason}")))
        }
        StoreError::Refused { status, reason } => Passed::Whole(Response::text(status, reason)),
        StoreError::NotSent(reason) | StoreError::Unusable(reason) => unavailable(reason),
    })
}

fn not_running() -> Response {
    Response::text(503, "replication is starting, or could not be started; the agent's log says why")
}

fn not_known() -> Passed {
    unavailable("the local Consul has not told yet which agents take part in replication; ask again")
}

fn unavailable(text: impl Into<String>) -> Passed {
    Passed::Whole(Response::text(503, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replicated_is_told_by_whole_names() {
        assert!(
            ["/v1/kv/a", "/v1/kv", "/v1/txn", "/v1/session/create", "/v1/lock/a/renew"]
                .iter()
                .all(|it| is_replicated(it))
        );
        assert!(!["/v1/kvs", "/v1/agent/self", "/v1/", "/v1/sessions/x"].iter().any(|it| is_replicated(it)));
    }
}
