//! What registrations and central configuration ask of sidecars and upstreams, each seen by what becomes of requests.
//! The areas are in files of their own; here is an upstream's own protocol.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::lab::{
    actors::Api,
    addresses,
    features::{settled, told},
    hatches, health,
    kept::Kept,
    limits, native,
    rig::{Rig, eventually},
};

const NODE: &str = "primary-services";

/// What takes this long has failed.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// All of it, with an `api` of its own.
pub(super) async fn traffic_shows_each(rig: &mut Rig) -> anyhow::Result<()> {
    let api = Api::start(rig).await?;
    let outcome = all(rig, &api).await;
    let stopped = api.stop(rig).await;
    let mut removed = Ok(());
    for kind in ["service-resolver", "service-defaults"] {
        removed = removed.and(rig.delete("primary-server", &format!("/v1/config/{kind}/api")).await);
    }
    outcome.and(stopped).and(removed)
}

async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    health::all(rig, api).await?;
    addresses::all(rig, api).await?;
    native::an_instance_without_a_sidecar_answers(rig, api).await.context("a Connect-native instance")?;
    protocol_of_an_upstream(rig, api).await.context("an upstream's own protocol")?;
    limits::all(rig, api).await?;
    hatches::all(rig, api).await.context("escape hatches")
}

/// Only an Envoy that speaks HTTP says in an answer that it was there. Its listener becomes one over TCP and back, each time
/// with a cluster of another name: clients of the one before go on over the connections that they keep.
async fn protocol_of_an_upstream(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let at = api.address()?;
    let is_through_http = async |wanted: bool| {
        eventually(&format!("requests through HTTP: {wanted}"), async || {
            let answer = ask(at).await?;
            ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let is_http = ["server: envoy", "x-envoy-upstream-service-time: "]
                .map(|header| answer.contains(&format!("\r\n{header}")));
            Ok((is_http == [wanted; 2]).then_some(()))
        })
        .await
    };
    let (mut kept, mut goes_on_over_http) = (Vec::new(), false);
    let load = settled(api, &["api-1", "api-2"]).await?;
    for is_http in [true, false, true, false] {
        is_through_http(!is_http).await?;
        kept.push(Kept::start(at));
        kept.last().context("the one just started")?.goes_on().await?;
        let settings = if is_http { json!({ "protocol": "http" }) } else { json!({}) };
        api.reach(rig, json!({ "Config": settings })).await?;
        is_through_http(is_http).await?;
        for kept in &kept {
            let before = kept.over_http();
            kept.goes_on().await?;
            goes_on_over_http |= !is_http && kept.over_http() > before;
        }
    }
    // Envoy may tell any one of them to connect anew.
    ensure!(goes_on_over_http, "no connection outlived its listener, which became one over TCP");
    told("an upstream over HTTP by its own word and back", load)?;
    kept.into_iter().try_for_each(|kept| kept.none_failed("the same", 4))
}

/// The whole answer to a request over a connection of its own, its head included.
pub(super) async fn ask(at: SocketAddr) -> anyhow::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(!answer.is_empty(), "the connection ends without an answer");
        Ok(answer)
    };
    tokio::time::timeout(DEADLINE, asking).await.context("no answer in time")?
}

/// A statistic of the dashboard's Envoy over all clusters whose name and its own match.
pub(super) async fn sum(rig: &Rig, names: &str) -> anyhow::Result<u64> {
    Ok(rig.envoy(NODE)?.stats(&format!(r"^cluster\.{names}$")).await?.values().sum())
}
