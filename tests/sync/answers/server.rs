//! Consul's HTTP API on loopback over a model of one, and answers that say less than the truth, on order.

mod reply;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::Method,
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

use self::reply::{cut, good, plain, told, with};
use super::{
    asking::{Asking, Clock, elsewhere},
    world::{PATIENCE, PREFIX},
};
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
    /// The same of few keys, while the rights are still told as they were: Consul's agents remember them for 30 s.
    Narrowed,
    /// 403
    Denied,
    /// 500
    Failed,
    /// It ends in the middle.
    Cut,
    /// An old one of a server that has lost its leader.
    Stale,
    /// The session that is asked about is gone.
    Gone,
}

/// Of which a list that is narrowed lacks one.
const NARROWED: usize = 4096;

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) is_read: bool,
    /// Behind `/v1/`.
    pub(super) path: &'a str,
    pub(super) is_list: bool,
    /// Whether all data was listed since answers became bad.
    pub(super) is_behind_list: bool,
    body: Bytes,
}

impl Asked<'_> {
    /// Whether it is a transaction that has all of these in its text.
    pub(super) fn is_txn_with(&self, texts: &[&str]) -> bool {
        self.path == "txn" && {
            let body = String::from_utf8_lossy(&self.body);
            texts.iter().all(|text| body.contains(text))
        }
    }

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
    /// How many were.
    met: usize,
}

/// By index, length and what they lack.
type Lists = BTreeMap<(u64, usize, Option<usize>), Bytes>;

struct Inner {
    consul: Shared,
    armed: Mutex<Vec<Armed>>,
    /// How many answers were bad since they were ordered.
    spoiled: watch::Sender<usize>,
    /// Whether lists of all keys wait before they are sent, and how many do.
    held: watch::Sender<(bool, usize)>,
    /// Lists of all keys, and without each so many-th: they rarely change.
    lists: Mutex<Lists>,
}

/// A Consul. Dropping it ends it.
pub(super) struct Server {
    inner: Arc<Inner>,
    consul: Shared,
    clock: Clock,
    address: String,
    _task: Task<()>,
}

impl Server {
    /// Serves this model.
    pub(super) async fn start(consul: Shared, clock: Clock) -> Self {
        match clock {
            Clock::Runs => Self::serve(consul, clock).await,
            Clock::Jumps => elsewhere(Self::serve(consul, clock)),
        }
    }

    async fn serve(consul: Shared, clock: Clock) -> Self {
        let inner = Arc::new(Inner {
            consul: consul.timeless(),
            armed: Mutex::default(),
            spoiled: watch::Sender::new(0),
            held: watch::Sender::new((false, 0)),
            lists: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(serve).with_state(inner.clone());
        let task = spawn("test.consul", async move { axum::serve(listener, router).await.unwrap() });
        Self { inner, consul, clock, address, _task: task }
    }

    /// The model.
    pub(super) fn consul(&self) -> &Shared {
        &self.consul
    }

    /// A store over it, as the agent has one.
    pub(super) fn store(&self) -> Asking {
        let address = ConsulAddress::Http { authority: self.address.clone() };
        let client = Client::new(ConsulSettings { address, ..ConsulSettings::default() }).unwrap();
        Asking::new(ConsulStore::new(client), self.consul.clone(), self.clock)
    }

    /// From now on these requests get bad answers, so many or all of them.
    pub(super) fn spoil(&self, spot: Spot, bad: Bad, times: Option<usize>) {
        self.mend();
        self.inner.spoiled.send_replace(0);
        self.spoil_too(spot, bad, times);
    }

    /// And these.
    pub(super) fn spoil_too(&self, spot: Spot, bad: Bad, times: Option<usize>) {
        self.inner.armed.lock().unwrap().push(Armed { spot, bad, times, has_listed: false, met: 0 });
    }

    /// From now on all answers are good.
    pub(super) fn mend(&self) {
        self.inner.armed.lock().unwrap().clear();
    }

    /// How many answers were bad since it was ordered.
    pub(super) fn spoiled(&self) -> usize {
        *self.inner.spoiled.borrow()
    }

    /// How often the requests that were named first met a bad answer.
    pub(super) fn met(&self) -> usize {
        self.inner.armed.lock().unwrap().first().map_or(0, |armed| armed.met)
    }

    /// Whether all did that were named.
    pub(super) fn all_met(&self) -> bool {
        self.inner.armed.lock().unwrap().iter().all(|armed| armed.met > 0)
    }

    /// From now on a list of all keys is read, and then waits until it is let go.
    pub(super) fn hold(&self) {
        self.inner.held.send_replace((true, 0));
    }

    /// Waits until a list waits.
    pub(super) async fn has_held(&self) {
        let mut held = self.inner.held.subscribe();
        let held = timeout(PATIENCE, held.wait_for(|(_, waiting)| *waiting > 0)).await;
        assert!(held.is_ok(), "nobody asked for a list of all keys");
    }

    pub(super) fn let_go(&self) {
        self.inner.held.send_replace((false, 0));
    }

    /// Waits until an answer was bad.
    pub(super) async fn has_spoiled(&self) {
        assert!(self.has_spoiled_within(PATIENCE).await, "nobody asked what was to be answered badly");
    }

    /// The same, not for ever.
    pub(super) async fn has_spoiled_within(&self, limit: Duration) -> bool {
        let mut spoiled = self.inner.spoiled.subscribe();
        timeout(limit, spoiled.wait_for(|spoiled| *spoiled > 0)).await.is_ok()
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
        body: body.clone(),
    };
    let bad = inner.bad(&mut asked);
    if path == RIGHTS {
        return inner.rights(&body, bad);
    }
    let ask = Ask { method: parts.method.to_string(), path: path.to_owned(), query: names, body };
    match bad {
        None => {
            let told = inner.answer(&asked, &ask, None);
            if asked.is_list_of_all() {
                inner.let_through().await;
            }
            good(told)
        }
        Some(bad) if asked.is_read => inner.bad_read(bad, &asked, &ask),
        Some(bad) => inner.bad_write(bad, &ask),
    }
}

impl Inner {
    /// Whether this request gets a bad answer.
    fn bad(&self, asked: &mut Asked<'_>) -> Option<Bad> {
        let mut found = None;
        for Armed { spot, bad, times, has_listed, met } in self.armed.lock().unwrap().iter_mut() {
            asked.is_behind_list = *has_listed;
            *has_listed |= asked.is_list_of_all();
            let is_meant = spot(asked) || (*bad == Bad::Hidden && asked.path == "internal/acl/authorize");
            if !is_meant || *times == Some(0) || found.is_some() {
                continue;
            }
            if let Some(times) = times {
                *times -= 1;
            }
            *met += 1;
            self.spoiled.send_modify(|spoiled| *spoiled += 1);
            found = Some(*bad);
        }
        found
    }

    async fn let_through(&self) {
        let mut held = self.held.subscribe();
        if !held.borrow().0 {
            return;
        }
        self.held.send_modify(|(_, waiting)| *waiting += 1);
        // A closed channel means that the test is over.
        let _ = held.wait_for(|(is_held, _)| !is_held).await;
    }

    fn answer(&self, asked: &Asked<'_>, ask: &Ask, without: Option<usize>) -> Told {
        if asked.is_list_of_all() {
            return self.list(without);
        }
        self.consul.with(|model| model.answer(ask))
    }

    /// All keys of the prefix, or all without each so many-th.
    fn list(&self, without: Option<usize>) -> Told {
        let (index, body) = self.consul.look(|model| {
            let pairs = || under(model.pairs(), PREFIX).map(|(_, pair)| pair);
            let index = pairs().map(|pair| pair.modify_index).max().unwrap_or(1);
            let place = (index, pairs().count(), without);
            let mut lists = self.lists.lock().unwrap();
            let body = lists.entry(place).or_insert_with(|| {
                let mut text = String::from("[");
                let is_shown = |at: usize| without.is_none_or(|nth| !(at + 1).is_multiple_of(nth));
                for (_, pair) in pairs().enumerate().filter(|(at, _)| is_shown(*at)) {
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
        let without = match bad {
            Bad::Filtered | Bad::Hidden | Bad::Stale => Some(2),
            Bad::Narrowed => Some(NARROWED),
            _ => None,
        };
        let truth = self.answer(asked, ask, without);
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
            Bad::Hidden | Bad::Narrowed => good(truth),
            Bad::Cut => cut(good(Told { body: Bytes::new(), ..truth.clone() }), &truth.body),
            Bad::Stale => {
                let old = with(good(truth), "x-consul-knownleader", "false");
                with(old, "x-consul-lastcontact", "60000")
            }
            Bad::Elsewhere | Bad::Denied | Bad::Failed | Bad::Gone => told(bad),
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
            Bad::Filtered | Bad::Hidden | Bad::Narrowed => {
                let error = json!({"Errors": [{"OpIndex": 0, "What": "Permission denied"}], "Results": null});
                plain(409, error.to_string())
            }
            Bad::Gone => {
                let id = ask.path.rsplit('/').next().unwrap_or_default();
                plain(404, format!("Session id '{id}' not found"))
            }
            Bad::Missing | Bad::Elsewhere | Bad::Denied | Bad::Stale => told(bad),
        }
    }
}
