//! Limits of connections, of requests and of their time, seen by what becomes of those beyond them.

use std::time::Duration;

use anyhow::{Context, ensure};
use causeway::lifecycle;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::lab::{
    actors::{Api, change_sidecar},
    features::settled,
    live::restore,
    rig::{Rig, eventually},
    settings::{ask, sum},
};

/// What is not seen so long after a change was written may never be: it is tried again.
const A_WHILE: Duration = Duration::from_secs(1);

/// A request after which the client keeps its connection.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: api\r\n\r\n";

/// So many requests in a row tell that none gets through.
const SOME: usize = 10;

pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    limit_of_connections(rig, api).await.context("a limit of connections")?;
    limit_of_requests(rig, api).await.context("a limit of requests")?;
    time_of_a_request(rig, api).await.context("a limit of time")
}

/// One connection is there: no other one is made, until it ends.
async fn limit_of_connections(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let at = api.address()?;
    let overflow = async || sum(rig, r"api\.default\..*\.upstream_cx_overflow").await;
    api.reach(rig, json!({ "Config": { "limits": { "max_connections": 1 } } })).await?;
    let first = eventually("a second connection is refused", async || {
        let mut first = TcpStream::connect(at).await?;
        first.write_all(REQUEST).await?;
        ensure!(first.read(&mut [0; 1024]).await? > 0, "the first is refused");
        Ok((ask(at).await.is_err() && overflow().await? > 0).then_some(first))
    })
    .await?;
    for _ in 0..SOME {
        ensure!(ask(at).await.is_err(), "a connection too many");
    }
    let refused = overflow().await?;
    ensure!(refused > u64::try_from(SOME)?, "{refused} refused for the limit");
    drop(first);
    eventually("a connection once the first is gone", async || Ok(ask(at).await.ok())).await?;
    println!("  a limit of one connection: {refused} others refused while it was there");
    api.reach(rig, json!({})).await
}

/// As many requests as allowed are under way: another one is answered at once, by Envoy.
async fn limit_of_requests(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let mute = Mute::start(rig, json!({})).await?;
    let limits = json!({ "max_concurrent_requests": 1 });
    api.reach(rig, json!({ "Config": { "protocol": "http", "limits": limits } })).await?;
    // A protocol of its own puts a hash before the cluster's name: over TCP nothing is counted here.
    let held = async || sum(rig, r"[^.]*~api\.default\..*\.upstream_rq_active").await;
    let at = api.address()?;
    let _first = eventually("a request is held", async || {
        ensure!(held().await? == 0, "one of before is still held");
        let mut first = TcpStream::connect(at).await?;
        first.write_all(REQUEST).await?;
        let counted = eventually("it", async || Ok((held().await? == 1).then_some(())));
        Ok(tokio::time::timeout(A_WHILE, counted).await.ok().map(|_| first))
    })
    .await?;
    for _ in 0..SOME {
        let answer = ask(at).await?;
        let is_overflow = answer.ends_with("reset reason: overflow");
        ensure!(answer.starts_with("HTTP/1.1 503 ") && is_overflow, "{answer}");
    }
    println!("  a limit of one request: {SOME} of {SOME} others answered 503 beside it");
    api.reach(rig, json!({})).await?;
    mute.stop(rig, api).await
}

/// The sidecar gives up on an application that does not answer.
async fn time_of_a_request(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_millis(300);
    let at = api.address()?;
    let limited = json!({ "protocol": "http", "local_request_timeout_ms": LIMIT.as_millis() });
    let mute = Mute::start(rig, limited).await?;
    let timed = async || {
        let began = lifecycle::now();
        let answer = tokio::time::timeout(A_WHILE, ask(at)).await??;
        anyhow::Ok((answer.starts_with("HTTP/1.1 504 "), began.elapsed()))
    };
    let mut last = [Duration::ZERO; 4];
    eventually("every request is answered 504 in its time", async || {
        for took in &mut last {
            let (is_504, elapsed) = timed().await?;
            if !is_504 || elapsed < LIMIT {
                return Ok(None);
            }
            *took = elapsed;
        }
        Ok(Some(()))
    })
    .await?;
    println!("  a request limited to {LIMIT:?}: 504 after {last:?}");
    mute.stop(rig, api).await
}

/// An application that takes connections and says nothing, behind both sidecars of the primary.
struct Mute {
    sidecars: Vec<Value>,
    /// The kernel takes its connections.
    listener: TcpListener,
}

impl Mute {
    /// Puts it there, and these settings into the sidecars.
    async fn start(rig: &Rig, settings: Value) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((rig.lab.node("primary-services")?.address, 0)).await?;
        let port = listener.local_addr()?.port();
        let mut sidecars = Vec::new();
        for id in ["api-1", "api-2"] {
            let change = |sidecar: &mut Value| {
                sidecar["Proxy"]["LocalServicePort"] = json!(port);
                sidecar["Proxy"]["Config"] = settings.clone();
            };
            sidecars.push(change_sidecar(rig, id, change).await?);
        }
        Ok(Self { sidecars, listener })
    }

    /// Has the sidecars as they were.
    async fn stop(self, rig: &Rig, api: &Api) -> anyhow::Result<()> {
        // From now on requests fail at once that still find it.
        drop(self.listener);
        for sidecar in self.sidecars {
            restore(rig, sidecar).await?;
        }
        settled(api, &["api-1", "api-2"]).await.map(drop)
    }
}
