//! Upstreams of each protocol: both Envoys follow `service-defaults`, each by itself, and a call of gRPC gets through.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use causeway::lifecycle::{self, Task};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{
    Code,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
    server::health_reporter,
};

use crate::lab::{
    actors::Api,
    features::{config, settled, told},
    kept,
    live::restore,
    rig::{Rig, eventually},
};

/// How the clusters of what speaks HTTP/2 differ from others.
const EXPLICIT: &str = r#""explicit_http_config":{"http2_protocol_options""#;

const NODE: &str = "primary-services";

/// Calls of gRPC in a row.
const CALLS: usize = 50;

/// A connection that Envoy drains is not kept in about one of ten cases.
const TRIES: usize = 5;

/// One after the other, and back to the first.
pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    // As they were registered: later Consul shows the protocol of `service-defaults` as if it were their own.
    let consul = rig.consul(NODE)?;
    let mut sidecars = Vec::new();
    for id in ["api-1-sidecar-proxy", "api-2-sidecar-proxy"] {
        sidecars.push(consul.agent_service(id).await?.with_context(|| id.to_owned())?);
    }
    for protocol in ["http", "http2", "grpc", "tcp"] {
        speaks(rig, api, protocol).await?;
        let load = settled(api, &["api-1", "api-2"]).await?;
        told(&format!("protocol {protocol}"), load)?;
        if protocol == "http" {
            kept::connections(rig, api).await.context("clients that keep their connections")?;
        }
        if protocol == "grpc" {
            calls_get_through(rig, api, &sidecars).await.context("calls of gRPC")?;
        }
    }
    rig.delete("primary-server", "/v1/config/service-defaults/api").await
}

/// Makes both sides speak it.
async fn speaks(rig: &Rig, api: &Api, protocol: &str) -> anyhow::Result<()> {
    eventually(&format!("Envoys speak {protocol} for api"), async || {
        // Written until it is seen: Consul's own merge of it into registrations can be one change behind (1.8.7).
        config(rig, json!({ "Kind": "service-defaults", "Name": "api", "Protocol": protocol })).await?;
        let mut speaking = 0;
        for envoy in [rig.envoy(NODE)?, api.envoy(rig, "api-1")?, api.envoy(rig, "api-2")?] {
            let listeners = envoy.json("/config_dump?resource=dynamic_listeners").await?;
            // Those before may still be draining.
            let active = listeners["configs"].as_array().into_iter().flatten().map(|it| &it["active_state"]);
            let text: String = active.map(|it| it.to_string()).collect();
            let spoken = if text.contains("grpc_stats") {
                "grpc"
            } else if text.contains("http_connection_manager") {
                "http"
            } else {
                "tcp"
            };
            let clusters = envoy.json("/config_dump?resource=dynamic_active_clusters").await?;
            let is_http2 = clusters.to_string().contains(EXPLICIT);
            let wanted = if protocol == "http2" { "http" } else { protocol };
            speaking += usize::from((spoken, is_http2) == (wanted, is_over_http2(protocol)));
        }
        Ok((speaking == 3).then_some(()))
    })
    .await
}

fn is_over_http2(protocol: &str) -> bool {
    ["http2", "grpc"].contains(&protocol)
}

/// For a while a server of the test's own stands behind the sidecars. The answer's status is in its trailers.
async fn calls_get_through(rig: &Rig, api: &Api, sidecars: &[Value]) -> anyhow::Result<()> {
    let (port, _server) = health_server(rig.lab.node(NODE)?.address).await?;
    for sidecar in sidecars {
        let mut moved = sidecar.clone();
        moved["Proxy"]["LocalServicePort"] = json!(port);
        restore(rig, moved).await?;
    }
    let channel = Endpoint::from_shared(api.url.clone())?.connect_lazy();
    let mut served = 0;
    eventually(&format!("{CALLS} calls in a row are answered"), async || {
        served = if is_serving(&channel).await { served + 1 } else { 0 };
        Ok((served >= CALLS).then_some(()))
    })
    .await?;
    let unknown = health_of(&channel, "nobody").await;
    let code = unknown.as_ref().err().map(tonic::Status::code);
    ensure!(code == Some(Code::NotFound), "the server's own status comes through: {unknown:?}");
    println!("  {CALLS} calls of gRPC in a row answered, one with a status of the server's own");
    let mut tries = 0..TRIES;
    while !calls_go_on_over_tcp(rig, api).await.context("over TCP")? {
        ensure!(tries.next().is_some(), "no connection outlived its listener, which became one over TCP");
        speaks(rig, api, "grpc").await?;
    }
    for sidecar in sidecars {
        restore(rig, sidecar.clone()).await?;
    }
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// What is between caller and server no longer knows of gRPC. The caller keeps its connection, and calls over it. Gives
/// whether it was kept until the end: Envoy may tell it to connect anew.
async fn calls_go_on_over_tcp(rig: &Rig, api: &Api) -> anyhow::Result<bool> {
    let channel = Endpoint::from_shared(api.url.clone())?.connect_lazy();
    let seen = Arc::new(Mutex::new((0, Vec::new())));
    let shared = seen.clone();
    let _calls = lifecycle::spawn("test.grpc.calls", async move {
        loop {
            let status = health_of(&channel, "").await;
            let (answered, failures) = &mut *shared.lock().unwrap();
            match status {
                Ok(ServingStatus::Serving) => *answered += 1,
                other => failures.push(format!("{other:?}")),
            }
        }
    });
    let over_http2 = r"^http\.upstream\.api\..*\.downstream_cx_http2_active$";
    let kept = async || anyhow::Ok(rig.envoy(NODE)?.stats(over_http2).await?.into_values().sum::<u64>());
    eventually("the connection is counted", async || Ok((kept().await? > 0).then_some(()))).await?;
    speaks(rig, api, "tcp").await?;
    let before = seen.lock().unwrap().0;
    eventually("more calls", async || Ok((seen.lock().unwrap().0 >= before + CALLS).then_some(()))).await?;
    let is_kept = kept().await? > 0;
    let (answered, failures) = &*seen.lock().unwrap();
    ensure!(failures.is_empty(), "{} of {answered} calls failed: {:?}", failures.len(), failures.first());
    println!("  gRPC became TCP: 0 of {answered} calls failed, over a connection that was kept: {is_kept}");
    Ok(is_kept)
}

async fn health_server(address: Ipv4Addr) -> anyhow::Result<(u16, Task<()>)> {
    let listener = TcpListener::bind((address, 0)).await?;
    let port = listener.local_addr()?.port();
    let (_, service) = health_reporter();
    let served = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    let task = lifecycle::spawn("test.grpc", async move {
        served.await.expect("the server of gRPC serves");
    });
    Ok((port, task))
}

async fn is_serving(channel: &Channel) -> bool {
    health_of(channel, "").await.is_ok_and(|status| status == ServingStatus::Serving)
}

async fn health_of(channel: &Channel, service: &str) -> Result<ServingStatus, tonic::Status> {
    let asked = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(channel.clone()).check(asked).await?.into_inner().status())
}
