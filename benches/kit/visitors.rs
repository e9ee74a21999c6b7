//! Clients of the xDS server that are refused or vanish.

use std::path::Path;

use causeway::xds::resource::Kind;
use envoy_types::pb::envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest};
use tokio::{io::AsyncWriteExt as _, net::UnixStream, task::JoinSet};

use crate::http2::{ADS, Call};

/// Connections at once.
const AT_ONCE: usize = 64;

/// So many of them, in five manners by turns.
pub(crate) async fn come_and_go(socket: &Path, connects: usize) {
    let mut all = JoinSet::new();
    for number in 0..connects {
        if all.len() >= AT_ONCE {
            all.join_next().await.unwrap().unwrap();
        }
        let socket = socket.to_owned();
        all.spawn(async move { one(&socket, number).await });
    }
    while let Some(one) = all.join_next().await {
        one.unwrap();
    }
}

async fn one(socket: &Path, number: usize) {
    let node = |id: &str| Some(Node { id: id.to_owned(), ..Node::default() });
    let asks = |id: &str| DeltaDiscoveryRequest {
        node: node(id),
        type_url: Kind::Cluster.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    match number % 5 {
        // Gone before it said anything.
        0 => drop(UnixStream::connect(socket).await.unwrap()),
        1 => {
            let mut unix = UnixStream::connect(socket).await.unwrap();
            // The server may have closed it already.
            let _ = unix.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        }
        // Refused: it does not say who it is.
        2 => Call::open(socket, ADS).await.send(&asks("")).await,
        // Gone before it is answered.
        3 => Call::open(socket, ADS).await.send(&asks(&new_name())).await,
        // Gone once it is answered: refused, where nobody is known by that name.
        _ => {
            let mut call = Call::open(socket, ADS).await;
            call.send(&asks(&new_name())).await;
            call.hears().await;
        }
    }
}

/// A name that nobody had before.
fn new_name() -> String {
    format!("vanishing-{:016x}", fastrand::u64(..))
}
