//! Stands between an agent and its Consul, and spoils what Consul answers.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::anyhow;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use causeway::lifecycle::{self, Task};
use http::{StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, sync::watch};

const INDEX: &str = "x-consul-index";
/// More than the lab's Consul ever answers.
const MAX_BODY_BYTES: usize = 64 << 20;
/// Consul answers within milliseconds what it does not wait with.
const WAITED: Duration = Duration::from_secs(1);

/// What it does to Consul's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoil {
    /// Nothing.
    Not,
    /// This status, with the body that Consul has for such.
    Status(u16, &'static str),
    /// Lists are empty, and a header says that ACLs made them so.
    Filtered,
    /// Lists are empty, and nothing says why.
    Emptied,
    /// JSON that ends in its middle.
    Truncated,
    /// The connection ends in the middle of the body that was announced.
    Broken,
    /// Each index is below the one before of the same question, which waits at Consul all the same.
    IndexBack,
    /// Nothing at all.
    Silent,
}

#[derive(Clone)]
struct Shared {
    consul: String,
    client: Client<HttpConnector, Full<Bytes>>,
    spoil: watch::Receiver<Spoil>,
    seen: Arc<Seen>,
}

/// Since the proxy was last told what to do.
#[derive(Default)]
struct Seen {
    spoilt: AtomicUsize,
    waited: AtomicUsize,
    /// By path, query and body: all that tells one question from another, but what it waits on.
    indexes: Mutex<BTreeMap<(String, Bytes), Index>>,
}

/// A question's index: Consul's own, and what the agent was told.
#[derive(Clone, Copy)]
struct Index {
    real: u64,
    told: u64,
}

pub(super) struct Faulty {
    pub(super) address: SocketAddr,
    spoil: watch::Sender<Spoil>,
    seen: Arc<Seen>,
    _server: Task<()>,
}

impl Faulty {
    /// Passes everything to `consul` (`http://…`) until told otherwise.
    pub(super) async fn start(consul: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (spoil, spoil_receiver) = watch::channel(Spoil::Not);
        let seen = Arc::new(Seen::default());
        let shared = Shared {
            consul: consul.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            spoil: spoil_receiver,
            seen: seen.clone(),
        };
        let router = Router::new().fallback(answer).with_state(shared);
        let _server = lifecycle::spawn("test.faulty", async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, spoil, seen, _server })
    }

    /// From now on: also for what Consul is being asked.
    ///
    /// Errors: its server has ended.
    pub(super) fn set(&self, spoil: Spoil) -> anyhow::Result<()> {
        self.seen.spoilt.store(0, Ordering::SeqCst);
        self.seen.waited.store(0, Ordering::SeqCst);
        self.seen.indexes.lock().unwrap().clear();
        self.spoil.send(spoil).map_err(|_| anyhow!("the proxy before Consul has ended"))
    }

    /// How many answers were spoilt since it was last told.
    pub(super) fn spoilt(&self) -> usize {
        self.seen.spoilt.load(Ordering::SeqCst)
    }

    /// How many of these Consul had kept waiting.
    pub(super) fn waited(&self) -> usize {
        self.seen.waited.load(Ordering::SeqCst)
    }
}

/// A question that hangs at Consul is answered anew once answers begin to be spoilt.
async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else { return plain(StatusCode::BAD_REQUEST, "") };
    let mut spoils = shared.spoil.clone();
    let mut is_open = false;
    loop {
        let spoil = *spoils.borrow_and_update();
        let question =
            Question { path: parts.uri.path(), query: parts.uri.query().unwrap_or_default(), body: &body };
        // What hung when indexes began to go back is answered at once, as by a Consul whose state was restored.
        let waits = spoil == Spoil::Not || (spoil == Spoil::IndexBack && !is_open);
        let uri = format!("{}{}", shared.consul, question.asked(waits, &shared.seen));
        let mut asked = http::Request::builder().method(parts.method.clone()).uri(uri);
        for (name, value) in parts.headers.iter().filter(|(name, _)| **name != header::HOST) {
            asked = asked.header(name, value);
        }
        let Ok(asked) = asked.body(Full::new(body.clone())) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        let exchange = async {
            match spoil {
                Spoil::Silent => std::future::pending().await,
                Spoil::Status(status, text) => Ok(plain(StatusCode::from_u16(status)?, text)),
                _ => forward(&shared, asked, &question, spoil).await,
            }
        };
        let began = lifecycle::now();
        tokio::select! {
            answer = exchange => {
                if spoil != Spoil::Not {
                    shared.seen.spoilt.fetch_add(1, Ordering::SeqCst);
                    shared.seen.waited.fetch_add(usize::from(began.elapsed() >= WAITED), Ordering::SeqCst);
                }
                return answer.unwrap_or_else(|_| plain(StatusCode::BAD_GATEWAY, "no Consul behind the test"));
            }
            Ok(()) = spoils.changed() => is_open = true,
        }
    }
}

/// What an agent asks.
struct Question<'a> {
    path: &'a str,
    query: &'a str,
    body: &'a Bytes,
}

impl Question<'_> {
    /// The path with its query. What `waits` does so on Consul's own index, whatever the agent was told; the rest does
    /// not wait for a change.
    fn asked(&self, waits: bool, seen: &Seen) -> String {
        if !waits {
            return format!("{}?{}", self.path, self.apart_from(&["index", "wait", "hash"]));
        }
        match seen.indexes.lock().unwrap().get(&self.key()) {
            Some(Index { real, .. }) if self.query.split('&').any(|part| name(part) == "index") => {
                format!("{}?{}&index={real}", self.path, self.apart_from(&["index"]))
            }
            _ => format!("{}?{}", self.path, self.query),
        }
    }

    fn key(&self) -> (String, Bytes) {
        let query = self.apart_from(&["index", "wait", "hash", "consistent"]);
        (format!("{}?{query}", self.path), self.body.clone())
    }

    fn apart_from(&self, names: &[&str]) -> String {
        let parts = self.query.split('&').filter(|part| !part.is_empty() && !names.contains(&name(part)));
        parts.collect::<Vec<_>>().join("&")
    }

    /// Whether tokens decide what of the answer is shown, and not whether there is one.
    fn is_filtered(&self) -> bool {
        !["/v1/kv/", "/v1/session/"].iter().any(|it| self.path.starts_with(it))
    }
}

fn name(part: &str) -> &str {
    part.split('=').next().unwrap_or(part)
}

impl Seen {
    /// An index below the one that was told last.
    fn below(&self, question: &Question<'_>, real: u64) -> u64 {
        let mut indexes = self.indexes.lock().unwrap();
        let last = indexes.get(&question.key()).map_or(real, |index| index.told.min(real));
        let told = last.saturating_sub(1).max(1);
        indexes.insert(question.key(), Index { real, told });
        told
    }
}

async fn forward(
    shared: &Shared,
    request: http::Request<Full<Bytes>>,
    question: &Question<'_>,
    spoil: Spoil,
) -> anyhow::Result<Response> {
    let answer = shared.client.request(request).await?;
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    let half = body.slice(..body.len() / 2);
    // The names of datacenters are a list too, and no ACL is about them.
    let is_list = body.starts_with(b"[{");
    let body = match spoil {
        Spoil::Filtered if is_list => {
            head.headers.insert("x-consul-results-filtered-by-acls", "true".parse()?);
            Body::from("[]")
        }
        Spoil::Emptied if is_list && question.is_filtered() => Body::from("[]"),
        Spoil::Truncated => Body::from(half),
        Spoil::Broken => {
            head.headers.insert(header::CONTENT_LENGTH, body.len().max(1).into());
            let ended = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Body::from_stream(tokio_stream::iter([Ok(half), Err(ended)]))
        }
        Spoil::IndexBack => {
            let index = head.headers.get(INDEX).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
            if let Some(index) = index {
                head.headers.insert(INDEX, shared.seen.below(question, index).into());
            }
            Body::from(body)
        }
        _ => Body::from(body),
    };
    Ok(Response::from_parts(head, body))
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

#[test]
fn a_question_waits_on_the_index_that_consul_gave() {
    let (seen, body) = (Seen::default(), Bytes::new());
    let ask = |query| Question { path: "/v1/health/connect/api", query, body: &body };
    let waiting = "dc=primary&index=70&wait=5000ms";
    assert_eq!(ask(waiting).asked(true, &seen), format!("/v1/health/connect/api?{waiting}"));
    assert_eq!(ask(waiting).asked(false, &seen), "/v1/health/connect/api?dc=primary");
    assert_eq!(seen.below(&ask(waiting), 80), 79);
    assert_eq!(seen.below(&ask("dc=primary&consistent="), 90), 78);
    assert_eq!(ask(waiting).asked(true, &seen), "/v1/health/connect/api?dc=primary&wait=5000ms&index=90");
    assert_eq!(ask("dc=primary").asked(true, &seen), "/v1/health/connect/api?dc=primary");
    assert_eq!(seen.below(&ask("dc=secondary"), 1), 1, "never zero");
}
