//! A Connect-native instance: an application that speaks the mesh's TLS itself, without a sidecar.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use causeway::{
    lab::demo::counting::Count,
    lifecycle::{self, Task},
};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::lab::{
    actors::Api,
    features::{settled, told},
    rig::Rig,
};

const NODE: &str = "primary-services";

/// It is dialled as a sidecar is, and asked for the identity of its service.
pub(super) async fn an_instance_without_a_sidecar_answers(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let address = rig.lab.node(NODE)?.address;
    let listener = TcpListener::bind((address, 0)).await?;
    let port = listener.local_addr()?.port();
    let _application = serve(listener, identity(rig).await.context("its leaf")?);
    let service = json!({
        "ID": "native-1", "Name": "native", "Address": address, "Port": port, "Connect": { "Native": true },
    });
    rig.put(NODE, "/v1/agent/service/register", Some(service)).await?;
    api.reach(rig, json!({ "DestinationName": "native" })).await?;
    told("a Connect-native instance", settled(api, &["native-1"]).await?)?;
    api.reach(rig, json!({})).await?;
    rig.put(NODE, "/v1/agent/service/deregister/native-1", None).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// What such an application asks its agent for.
async fn identity(rig: &Rig) -> anyhow::Result<TlsAcceptor> {
    const ASK: Duration = Duration::from_secs(10);
    let leaf = rig.consul(NODE)?.get("/v1/agent/connect/ca/leaf/native", &[], ASK).await?;
    let leaf: Value = leaf.ok()?.json()?;
    let pem = |field: &str| leaf[field].as_str().map(str::as_bytes).context("a PEM");
    let chain = CertificateDer::pem_slice_iter(pem("CertPEM")?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(pem("PrivateKeyPEM")?)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn serve(listener: TcpListener, identity: TlsAcceptor) -> Task<()> {
    lifecycle::spawn("test.native", async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(lifecycle::spawn("test.native.connection", answer(socket, identity.clone())));
        }
    })
}

/// As the demo's counter does. Who does not speak TLS is not answered.
async fn answer(socket: TcpStream, identity: TlsAcceptor) {
    let Ok(stream) = identity.accept(socket).await else { return };
    let service = service_fn(async |_: Request<Incoming>| {
        let count = Count { count: 1, instance: "native-1".to_owned(), datacenter: "primary".to_owned() };
        Ok::<_, Infallible>(Response::new(json!(count).to_string()))
    });
    // It ends when the client goes.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
