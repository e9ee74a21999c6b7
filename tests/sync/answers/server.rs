//! Consul's HTTP API on loopback over a model of one, and answers that say less than the truth, on order.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
    lifecycle::{Task, spawn},
    sync::store::consul::ConsulStore,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::world::{PATIENCE, PREFIX};
use crate::sync::consul_model::{Ask, MAX_BODY_BYTES, Shared, Told, under};

const RIGHTS: &str = "/v1/internal/acl/authorize";

/// An answer that is not the truth. To a transaction those that say nothing of it come after it was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// 200, and nothing in it.
    Empty,
    /// 404 as Consul says that there are no such keys.
    Missing,
    /// 404 of somebody who does not know what is asked.
    Elsewhere,
    /// Without what the token may not see, and says so, as Consul does since 1.11.
    Filtered,
    /// The same without a word, as before; only the rights tell.
    Hidden,
    /// 403
    Denied,
    /// 500
    Failed,
    /// It ends in the middle.
    Cut,
    /// An old one of a server that has lost its leader.
    Stale,
}

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) is_read: bool,
    /// Behind `/v1/`.
    pub(super) path: &'a str,
    pub(super) is_list: bool,
    /// Whether all data was listed since answers became bad.
    pub(super) is_behind_list: bool,
}

impl Asked<'_> {
    fn is_list_of_all(&self) -> bool {
        self.is_list && self.path.strip_prefix("kv/") == Some(PREFIX)
    }
}

/// Which requests are meant.
pub(super) type Spot = fn(&Asked<'_>) -> bool;

struct Armed {
    spot: Spot,
    bad: Bad,
    /// How often; for ever without a number.
    times: Option<usize>,
    has_listed: bool,
}

struct Inner {
    consul: Shared,
    armed: Mutex<Option<Armed>>,
    /// How many answers were bad since they were ordered.
    spoiled: watch::Sender<usize>,
    /// Lists of all keys, and of half of them, by their index and length: they rarely change.
    lists: Mutex<BTreeMap<(u64, usize, bool), Bytes>>,
}

/// A Consul. Dropping it ends it.
pub(super) struct Server {
    inner: Arc<Inner>,
    address: String,
    _task: Task<()>,
}

impl Server {
    /// Serves this model.
    pub(super) async fn start(consul: Shared) -> Self {
        let inner = Arc::new(Inner {
            consul,
            armed: Mutex::default(),
            spoiled: watch::Sender::new(0),
            lists: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(serve).with_state(inner.clone());
        let task = spawn("test.consul", async move { axum::serve(listener, router).await.unwrap() });
        Self { inner, address, _task: task }
    }

    /// The model.
    pub(super) fn consul(&self) -> &Shared {
        &self.inner.consul
    }

    /// A store over it, as the agent has one.
    pub(super) fn store(&self) -> ConsulStore {
        let address = ConsulAddress::Http { authority: self.address.clone() };
        ConsulStore::new(Client::new(ConsulSettings { address, ..ConsulSettings::default() }).unwrap())
    }

    /// From now on these requests get bad answers, so many or all of them.
    pub(super) fn spoil(&self, spot: Spot, bad: Bad, times: Option<usize>) {
        self.inner.spoiled.send_replace(0);
        *self.inner.armed.lock().unwrap() = Some(Armed { spot, bad, times, has_listed: false });
    }

    /// From now on all answers are good.
    pub(super) fn mend(&self) {
        *self.inner.armed.lock().unwrap() = None;
    }

    /// Waits until an answer was bad.
    pub(super) async fn has_spoiled(&self) {
        let mut spoiled = self.inner.spoiled.subscribe();
        let spoiled = timeout(PATIENCE, spoiled.wait_for(|spoiled| *spoiled > 0)).await;
        assert!(spoiled.is_ok(), "nobody asked what was to be answered badly");
    }
}

async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let names: BTreeMap<String, String> = query
        .split('&')
        .filter(|name| !name.is_empty())
        .map(|name| (name.to_owned(), String::new()))
        .collect();
    let path = parts.uri.path();
    assert!(!path.contains('%') && !names.contains_key("index"), "not served here: {}", parts.uri);
    let mut asked = Asked {
        is_read: parts.method == Method::GET,
        path: path.strip_prefix("/v1/").unwrap_or(path),
        is_list: names.contains_key("recurse"),
        is_behind_list: false,
    };
    let bad = inner.bad(&mut asked);
    if path == RIGHTS {
        return inner.rights(&body, bad);
    }
    let ask = Ask { method: parts.method.to_string(), path: path.to_owned(), query: names, body };
    match bad {
        None => good(inner.answer(&asked, &ask, false)),
        Some(bad) if asked.is_read => inner.bad_read(bad, &asked, &ask),
        Some(bad) => inner.bad_write(bad, &ask),
    }
}

impl Inner {
    /// Whether this request gets a bad answer.
    fn bad(&self, asked: &mut Asked<'_>) -> Option<Bad> {
        let mut armed = self.armed.lock().unwrap();
        let Armed { spot, bad, times, has_listed } = armed.as_mut()?;
        asked.is_behind_list = *has_listed;
        *has_listed |= asked.is_list_of_all();
        let is_meant = spot(asked) || (*bad == Bad::Hidden && asked.path == "internal/acl/authorize");
        if !is_meant || *times == Some(0) {
            return None;
        }
        if let Some(times) = times {
            *times -= 1;
        }
        self.spoiled.send_modify(|spoiled| *spoiled += 1);
        Some(*bad)
    }

    fn answer(&self, asked: &Asked<'_>, ask: &Ask, is_half: bool) -> Told {
        if asked.is_list_of_all() {
            return self.list(is_half);
        }
        self.consul.with(|model| model.answer(ask))
    }

    /// All keys of the prefix, or every other one.
    fn list(&self, is_half: bool) -> Told {
        let (index, body) = self.consul.look(|model| {
            let pairs = || under(model.pairs(), PREFIX).map(|(_, pair)| pair);
            let index = pairs().map(|pair| pair.modify_index).max().unwrap_or(1);
            let place = (index, pairs().count(), is_half);
            let mut lists = self.lists.lock().unwrap();
            let body = lists.entry(place).or_insert_with(|| {
                let mut text = String::from("[");
                for pair in pairs().step_by(if is_half { 2 } else { 1 }) {
                    let comma = if text.len() > 1 { "," } else { "" };
                    let (value, session) = (BASE64_STANDARD.encode(&pair.value), &pair.session);
                    let session = session.as_ref().map(|id| format!(r#","Session":"{id}""#)).unwrap_or_default();
                    let (key, flags, lock) = (&pair.key, pair.flags, pair.lock_index);
                    let (created, modified) = (pair.create_index, pair.modify_index);
                    write!(text, r#"{comma}{{"LockIndex":{lock},"Key":"{key}","Flags":{flags},"Value":"{value}","CreateIndex":{created},"ModifyIndex":{modified}{session}}}"#).unwrap();
                }
                (text + "]").into()
            });
            (index, body.clone())
        });
        Told { status: 200, index: Some(index), body }
    }

    fn rights(&self, body: &Bytes, bad: Option<Bad>) -> Response {
        match bad {
            None => plain(401, "ACL support disabled"),
            Some(Bad::Hidden) => {
                let mut asked: Value = serde_json::from_slice(body).unwrap();
                for right in asked.as_array_mut().unwrap() {
                    right["Allow"] = json!(false);
                }
                plain(200, asked.to_string())
            }
            Some(Bad::Empty) => plain(200, "[]"),
            Some(Bad::Cut) => cut(plain(200, ""), &Bytes::from_static(b"[{\"Resource\":\"key\",")),
            Some(bad) => told(bad),
        }
    }

    fn bad_read(&self, bad: Bad, asked: &Asked<'_>, ask: &Ask) -> Response {
        let is_partial = matches!(bad, Bad::Filtered | Bad::Hidden | Bad::Stale);
        let truth = self.answer(asked, ask, is_partial);
        let index = truth.index.unwrap_or(1);
        match bad {
            Bad::Empty => good(Told { status: 200, index: Some(index), body: "[]".into() }),
            Bad::Missing => good(Told { status: 404, index: Some(index), body: Bytes::new() }),
            Bad::Filtered => {
                let shown = if asked.is_list {
                    truth
                } else {
                    Told { status: 404, index: Some(index), body: Bytes::new() }
                };
                with(good(shown), "x-consul-results-filtered-by-acls", "true")
            }
            Bad::Hidden => good(truth),
            Bad::Cut => cut(good(Told { body: Bytes::new(), ..truth.clone() }), &truth.body),
            Bad::Stale => {
                let old = with(good(truth), "x-consul-knownleader", "false");
                with(old, "x-consul-lastcontact", "60000")
            }
            Bad::Elsewhere | Bad::Denied | Bad::Failed => told(bad),
        }
    }

    fn bad_write(&self, bad: Bad, ask: &Ask) -> Response {
        let execute = || self.consul.with(|model| model.answer(ask));
        match bad {
            Bad::Empty => {
                execute();
                plain(200, "")
            }
            Bad::Failed => {
                execute();
                told(bad)
            }
            Bad::Cut => {
                let truth = execute();
                cut(plain(truth.status, ""), &truth.body)
            }
            Bad::Filtered | Bad::Hidden => {
                let error = json!({"Errors": [{"OpIndex": 0, "What": "Permission denied"}], "Results": null});
                plain(409, error.to_string())
            }
            Bad::Missing | Bad::Elsewhere | Bad::Denied | Bad::Stale => told(bad),
        }
    }
}

/// What says no by its status.
fn told(bad: Bad) -> Response {
    match bad {
        Bad::Missing => plain(404, ""),
        Bad::Elsewhere => plain(404, "404 page not found"),
        Bad::Denied => plain(403, "Permission denied"),
        _ => plain(500, "rpc error making call: EOF"),
    }
}

fn plain(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn with(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

/// As Consul answers.
fn good(told: Told) -> Response {
    let response = with(plain(told.status, told.body), "x-consul-knownleader", "true");
    let response = with(response, "x-consul-lastcontact", "0");
    match told.index {
        Some(index) => with(response, "x-consul-index", &index.to_string()),
        None => response,
    }
}

/// The same with half of the body, and then the connection ends.
fn cut(response: Response, body: &Bytes) -> Response {
    let half = body.slice(..body.len() / 2);
    let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
    response.map(|_| Body::from_stream(futures_util::stream::iter(pieces)))
}
