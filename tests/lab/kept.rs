//! Clients that keep their connections, as HTTP clients do: what changes behind them fails none of their requests.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::ensure;
use causeway::lifecycle::{self, Task};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::lab::{
    actors::Api,
    change::{clusters, resolver},
    features::settled,
    rig::{Rig, eventually},
};

/// Requests over one connection for as long as the other side keeps it.
pub(super) struct Kept {
    seen: Arc<Mutex<Seen>>,
    _client: Task<()>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    answers: usize,
    /// Those in which an Envoy says that it was there.
    over_http: usize,
    failures: Vec<String>,
}

/// So many answers tell that the client goes on.
const SOME: usize = 100;

impl Kept {
    pub(super) fn start(address: SocketAddr) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let client = lifecycle::spawn("test.kept", async move {
            loop {
                shared.lock().unwrap().connections += 1;
                if let Err(error) = converse(address, &shared).await {
                    shared.lock().unwrap().failures.push(format!("{error:#}"));
                }
            }
        });
        Self { seen, _client: client }
    }

    /// Waits for more answers.
    pub(super) async fn goes_on(&self) -> anyhow::Result<()> {
        let before = self.seen.lock().unwrap().answers;
        eventually("answers over kept connections", async || {
            Ok((self.seen.lock().unwrap().answers >= before + SOME).then_some(()))
        })
        .await
    }

    /// So many answers came by way of an Envoy that spoke HTTP with its client.
    pub(super) fn over_http(&self) -> usize {
        self.seen.lock().unwrap().over_http
    }

    /// Requires that no request failed, and that some connection outlived one of so many changes.
    pub(super) fn none_failed(self, what: &str, changes: usize) -> anyhow::Result<()> {
        let seen = self.seen.lock().unwrap();
        let Seen { connections, answers, failures, .. } = &*seen;
        let first: Vec<_> = failures.iter().take(3).collect();
        ensure!(failures.is_empty(), "{what}: {} of {answers} requests failed: {first:?}", failures.len());
        ensure!(*connections <= changes, "{what}: no connection was kept over a change: {connections}");
        println!("  {what}: 0 of {answers} requests failed over {connections} kept connections");
        Ok(())
    }
}

/// One connection, until the other side says that it ends.
async fn converse(address: SocketAddr, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::handshake(io).await?;
    let _connection = lifecycle::spawn("test.kept.connection", async move {
        let _ = connection.await;
    });
    while sender.ready().await.is_ok() {
        let request = Request::get("/").header(header::HOST, "api").body(Empty::<Bytes>::new())?;
        let mut answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            // It ended before the request was sent: clients send it again over another one.
            Err(error) if error.message().is_some() => return Ok(()),
            Err(error) => return Err(error.into_error().into()),
        };
        let body = answer.body_mut().collect().await?.to_bytes();
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), String::from_utf8_lossy(&body));
        let is_over_http = answer.headers().get(header::SERVER).is_some_and(|server| server == "envoy");
        let mut seen = seen.lock().unwrap();
        seen.answers += 1;
        seen.over_http += usize::from(is_over_http);
    }
    Ok(())
}

/// `api` speaks HTTP: its clusters are renamed, its listener becomes another, and its resolver changes.
pub(super) async fn connections(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let address = api.address()?;
    let kept = Kept::start(address);
    kept.goes_on().await?;
    for timeout_ms in [1000, 2000, 3000] {
        let before = clusters(rig).await?;
        api.reach(rig, json!({ "Config": { "connect_timeout_ms": timeout_ms } })).await?;
        eventually("the cluster has another name", async || {
            let now = clusters(rig).await?;
            Ok((now.len() == 1 && now.is_disjoint(&before)).then_some(()))
        })
        .await?;
        kept.goes_on().await?;
    }
    kept.none_failed("a cluster renamed", 3)?;

    api.reach(rig, json!({})).await?;
    // Once without them: the other datacenter may not have heard yet of what the resolver was before.
    there_and_back(rig, api).await?;
    let kept = Kept::start(address);
    kept.goes_on().await?;
    there_and_back(rig, api).await?;
    kept.goes_on().await?;
    kept.none_failed("a listener renamed on its address", 2)?;

    let kept = Kept::start(address);
    for default in ["v1", "v2"] {
        let filter = format!("Service.Meta.version == {}", &default[1..]);
        let subsets = json!({ default: { "Filter": filter } });
        resolver(rig, json!({ "DefaultSubset": default, "Subsets": subsets })).await?;
        eventually("the subset's cluster", async || {
            let now = clusters(rig).await?;
            Ok((now.len() == 1 && now.iter().all(|name| name.contains(default))).then_some(()))
        })
        .await?;
        kept.goes_on().await?;
    }
    resolver(rig, json!({})).await?;
    drop(settled(api, &["api-1", "api-2"]).await?);
    kept.goes_on().await?;
    kept.none_failed("a resolver changed", 3)
}

/// The upstream becomes that of the other datacenter, on the same address, and again what it was.
async fn there_and_back(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    api.reach(rig, json!({ "Datacenter": "secondary" })).await?;
    drop(settled(api, &["api-3"]).await?);
    api.reach(rig, json!({})).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}
