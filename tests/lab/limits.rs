//! Limits of connections, of requests and of their time, seen by what becomes of those beyond them; and the balance of
//! connections.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use causeway::{fetch, lifecycle};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::lab::{
    actors::{Api, WORKERS, change_sidecar},
    change::clusters,
    features::{config, settled},
    live::restore,
    rig::{Rig, eventually},
    settings::{DEADLINE, ask, sum},
};

/// What is not seen so long after a change was written may never be: it is tried again.
const A_WHILE: Duration = Duration::from_secs(1);

/// A request after which the client keeps its connection.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: api\r\n\r\n";

/// So many requests in a row tell that none gets through.
const SOME: usize = 10;

/// Connections at each worker, added one by one: by chance they are as many at each about once in 2^20.
const STEPS: u64 = 20;

/// The times that are set, far below Envoy's and Consul's own.
const LIMIT: Duration = Duration::from_millis(300);

pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    limit_of_connections(rig, api).await.context("a limit of connections")?;
    // Of one instance: Envoy has a connection for each, whatever the limit.
    api.turn(rig, "api-2", "fail").await?;
    limit_of_inbound_connections(rig, api).await.context("a limit of inbound connections")?;
    balance_of_inbound_connections(rig, api).await.context("the balance of inbound connections")?;
    time_of_a_connection(rig, api).await.context("a connect timeout")?;
    limits_of_requests(rig, api).await.context("limits of requests")?;
    api.turn(rig, "api-2", "pass").await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)?;
    for (setting, status) in [("local_request_timeout_ms", 504), ("local_idle_timeout_ms", 504)] {
        time_of_a_request(rig, api, setting, status, Way::Open).await.context(setting)?;
    }
    let setting = "local_connect_timeout_ms";
    time_of_a_request(rig, api, setting, 503, Way::Full).await.context(setting)
}

/// The caller's own.
async fn limit_of_connections(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    api.reach(rig, json!({ "Config": { "limits": { "max_connections": 1 } } })).await?;
    let refused = async || sum(rig, r"api\.default\..*\.upstream_cx_overflow").await;
    let refused = one_connection(api, refused).await?;
    println!("  a limit of one connection: {refused} others refused while it was there");
    api.reach(rig, json!({})).await
}

/// That of the one instance.
async fn limit_of_inbound_connections(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let limited = json!({ "max_inbound_connections": 1 });
    let plain = change_sidecar(rig, "api-1", |sidecar| sidecar["Proxy"]["Config"] = limited).await?;
    const REFUSED: &str = r"^connection_limit\.inbound_connection_limit\.limited_connections$";
    let refused =
        async || anyhow::Ok(api.envoy(rig, "api-1")?.stats(REFUSED).await?.into_values().sum::<u64>());
    let refused = one_connection(api, refused).await?;
    println!("  a limit of one inbound connection: {refused} others refused while it was there");
    restore(rig, plain).await
}

/// The instance's Envoy gives each of its workers as many as the others, however the kernel wakes them.
async fn balance_of_inbound_connections(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let balanced = json!({ "balance_inbound_connections": "exact_balance" });
    let plain = change_sidecar(rig, "api-1", |sidecar| sidecar["Proxy"]["Config"] = balanced).await?;
    let are_even = async |each: u64| {
        let of_workers = r"^listener\.public_listener\.worker_\d+\.downstream_cx_active$";
        let workers = api.envoy(rig, "api-1")?.stats(of_workers).await?;
        ensure!(workers.len() == WORKERS, "{workers:?}");
        Ok(workers.values().all(|has| *has == each).then_some(()))
    };
    eventually("as many connections at each worker, at each step", async || {
        let mut all = Vec::new();
        for each in 1..=STEPS {
            for _ in 0..WORKERS {
                let mut stream = TcpStream::connect(api.address()?).await?;
                stream.write_all(REQUEST).await?;
                ensure!(stream.read(&mut [0; 1024]).await? > 0, "a connection is refused");
                all.push(stream);
            }
            let even = eventually("as many at each", async || are_even(each).await);
            if tokio::time::timeout(A_WHILE, even).await.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    println!("  balanced inbound connections: as many at each of {WORKERS} workers, {STEPS} times");
    restore(rig, plain).await
}

/// One connection is there: no other one is made, until it ends. How many were refused is counted.
async fn one_connection(api: &Api, refused: impl AsyncFn() -> anyhow::Result<u64>) -> anyhow::Result<u64> {
    let at = api.address()?;
    let first = eventually("a second connection is refused", async || {
        let mut first = TcpStream::connect(at).await?;
        first.write_all(REQUEST).await?;
        ensure!(first.read(&mut [0; 1024]).await? > 0, "the first is refused");
        Ok((ask(at).await.is_err() && refused().await? > 0).then_some(first))
    })
    .await?;
    for _ in 0..SOME {
        ensure!(ask(at).await.is_err(), "a connection too many");
    }
    let refused = refused().await?;
    ensure!(refused > u64::try_from(SOME)?, "{refused} refused for the limit");
    drop(first);
    eventually("a connection once the first is gone", async || Ok(ask(at).await.ok())).await?;
    Ok(refused)
}

/// As many requests as allowed are under way or wait for a connection: another one is answered at once, by Envoy.
async fn limits_of_requests(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let mute = Mute::start(rig, json!({}), Way::Open).await?;
    let waiting = json!({ "max_connections": 1, "max_pending_requests": 1 });
    for (limits, pending) in [(json!({ "max_concurrent_requests": 1 }), 0), (waiting, 1)] {
        let told = limits.to_string();
        api.reach(rig, json!({ "Config": { "protocol": "http", "limits": limits } })).await?;
        let held = held(rig, api, pending).await?;
        for _ in 0..SOME {
            let answer = fetch::get(&api.url, DEADLINE).await.map_err(anyhow::Error::msg)?;
            let text = String::from_utf8_lossy(&answer.body);
            let is_overflow = answer.status == 503 && text.ends_with("reset reason: overflow");
            ensure!(is_overflow, "{}: {text}", answer.status);
        }
        println!("  limits {told}: {SOME} of {SOME} requests answered 503 beside {}", held.len());
        drop(held);
        api.reach(rig, json!({})).await?;
        eventually("the cluster is gone", async || {
            Ok((!clusters(rig).await?.iter().any(|name| name.contains('~'))).then_some(()))
        })
        .await?;
    }
    mute.stop(rig, api, &["api-1"]).await
}

/// One request that is under way, over HTTP, and so many that wait for its connection.
async fn held(rig: &Rig, api: &Api, pending: u64) -> anyhow::Result<Vec<TcpStream>> {
    // A protocol of its own puts a hash before the cluster's name: over TCP nothing is counted here.
    const CLUSTER: &str = r"[^.]*~api\.default\..*\.upstream_rq";
    let now = async || {
        let (active, pending) = (format!("{CLUSTER}_active"), format!("{CLUSTER}_pending_active"));
        anyhow::Ok((sum(rig, &active).await?, sum(rig, &pending).await?))
    };
    let at = api.address()?;
    eventually(&format!("a request is under way and {pending} wait"), async || {
        ensure!(now().await? == (0, 0), "some of before are still there");
        let mut held = Vec::new();
        for waiting in 0..=pending {
            let mut stream = TcpStream::connect(at).await?;
            stream.write_all(REQUEST).await?;
            held.push(stream);
            // Until it has its connection, a request is one that waits: the next one would be refused.
            let counted = eventually("it", async || Ok((now().await? == (1, waiting)).then_some(())));
            if tokio::time::timeout(A_WHILE, counted).await.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(held))
    })
    .await
}

/// The caller gives up on an instance that takes no connection: by its own setting, and by the service's resolver.
async fn time_of_a_connection(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let (full, _queue) = listening(rig.lab.node("primary-services")?.address.into(), Way::Full).await?;
    let port = full.local_addr()?.port();
    let plain = change_sidecar(rig, "api-1", |sidecar| {
        sidecar["Port"] = json!(port);
        sidecar["Proxy"]["Config"] = json!({ "bind_port": 21_101 });
    })
    .await?;
    let at = api.address()?;
    let is_given_up = async || Ok(tokio::time::timeout(A_WHILE, ask(at)).await?.is_err());
    api.reach(rig, json!({ "Config": { "connect_timeout_ms": LIMIT.as_millis() } })).await?;
    let last = in_its_time(is_given_up).await?;
    println!("  connect_timeout_ms of {LIMIT:?}: given up after {last:?}");
    api.reach(rig, json!({})).await?;
    eventually("none any more", async || Ok(is_given_up().await.is_err().then_some(()))).await?;
    let timeout = format!("{LIMIT:?}");
    config(rig, json!({ "Kind": "service-resolver", "Name": "api", "ConnectTimeout": timeout })).await?;
    let last = in_its_time(is_given_up).await?;
    println!("  a resolver's ConnectTimeout of {LIMIT:?}: given up after {last:?}");
    rig.delete("primary-server", "/v1/config/service-resolver/api").await?;
    restore(rig, plain).await?;
    settled(api, &["api-1"]).await.map(drop)
}

/// Waits until several times in a row something is given up, not before its time. What takes a while is not.
async fn in_its_time(is_given_up: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<[Duration; 4]> {
    let mut last = [Duration::ZERO; 4];
    eventually("it is given up in its time", async || {
        for took in &mut last {
            let began = lifecycle::now();
            let is_given_up = is_given_up().await.unwrap_or_default();
            *took = began.elapsed();
            if !is_given_up || *took < LIMIT {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    Ok(last)
}

/// The sidecar gives up on an application that does not answer, or does not even take a connection.
async fn time_of_a_request(rig: &Rig, api: &Api, setting: &str, status: u16, way: Way) -> anyhow::Result<()> {
    let at = api.address()?;
    let mute = Mute::start(rig, json!({ "protocol": "http", setting: LIMIT.as_millis() }), way).await?;
    let is_given_up = async || {
        let answer = tokio::time::timeout(A_WHILE, ask(at)).await??;
        Ok(answer.starts_with(&format!("HTTP/1.1 {status} ")))
    };
    let last = in_its_time(is_given_up).await?;
    println!("  {setting} of {LIMIT:?}: {status} after {last:?}");
    mute.stop(rig, api, &["api-1", "api-2"]).await
}

/// How an application that says nothing is reached.
#[derive(Clone, Copy)]
enum Way {
    /// The kernel takes its connections.
    Open,
    /// The kernel takes none any more: whoever connects waits.
    Full,
}

/// An application that says nothing, behind both sidecars of the primary.
struct Mute {
    sidecars: Vec<Value>,
    listener: TcpListener,
    /// Connections that it has not taken.
    queue: Vec<TcpStream>,
}

impl Mute {
    /// Puts it there, and these settings into the sidecars.
    async fn start(rig: &Rig, settings: Value, way: Way) -> anyhow::Result<Self> {
        let (listener, queue) = listening(rig.lab.node("primary-services")?.address.into(), way).await?;
        let port = listener.local_addr()?.port();
        let mut sidecars = Vec::new();
        for id in ["api-1", "api-2"] {
            let change = |sidecar: &mut Value| {
                sidecar["Proxy"]["LocalServicePort"] = json!(port);
                sidecar["Proxy"]["Config"] = settings.clone();
            };
            sidecars.push(change_sidecar(rig, id, change).await?);
        }
        Ok(Self { sidecars, listener, queue })
    }

    /// Has the sidecars as they were, until these answer.
    async fn stop(self, rig: &Rig, api: &Api, answer: &[&str]) -> anyhow::Result<()> {
        // From now on requests fail at once that still find it.
        drop((self.listener, self.queue));
        for sidecar in self.sidecars {
            restore(rig, sidecar).await?;
        }
        settled(api, answer).await.map(drop)
    }
}

async fn listening(ip: IpAddr, way: Way) -> anyhow::Result<(TcpListener, Vec<TcpStream>)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(ip, 0))?;
    let mut queue = Vec::new();
    let listener = match way {
        Way::Open => socket.listen(1024)?,
        Way::Full => {
            let listener = socket.listen(0)?;
            let at = listener.local_addr()?;
            while let Ok(taken) = tokio::time::timeout(LIMIT, TcpStream::connect(at)).await {
                queue.push(taken?);
            }
            listener
        }
    };
    Ok((listener, queue))
}
