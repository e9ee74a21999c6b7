//! The xDS server: moves requests and responses between gRPC streams and their state machines. Chooses nothing.
//!
//! Knows neither Consul nor what a proxy should have: a [`ProxySource`] offers snapshots, one
//! [`crate::xds::subscription::Subscription`] for each stream decides what to send of them.

mod accept;
mod agent_id;
mod bind;
mod board;
mod body;
mod connection;
pub mod convert;
mod csds;
mod entrance;
mod health;
mod scope;
mod services;
mod shared;
mod showing;
mod source;
mod stream;
mod wire;

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};
use tonic::service::Routes;

pub use self::{
    agent_id::AgentId,
    bind::{BindError, bind_tcp, bind_unix},
    board::StatusBoard,
    source::{Attached, Offer, ProxySource},
};
use self::{
    connection::{Connections, KEEPALIVE, Manners},
    services::Discovery,
    shared::Shared,
};
use crate::{lifecycle::Stop, xds::metrics::XdsMetrics};

/// A reconnecting Envoy names everything it holds with its version, in one request: tens of thousands of endpoints'
/// names go beyond gRPC's usual 4 MiB.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Responses are split well below 4 MiB where the protocol allows it; a single large resource, or all clusters in the
/// state of the world, exceed that and are sent anyway.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// See [`Limits::max_streams`].
const DEFAULT_MAX_STREAMS: usize = 10_000;

/// See [`Limits::new_streams_per_second`]: about half of what two cores can open and answer.
const DEFAULT_NEW_STREAMS_PER_SECOND: u32 = 1_000;

/// See [`Limits::tcp_max_age`].
const DEFAULT_TCP_MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// Where to accept connections; at least one, or there is nothing to serve.
#[derive(Debug, Default)]
pub struct Listeners {
    /// From [`bind_unix`].
    pub unix: Option<UnixListener>,
    /// From [`bind_tcp`].
    pub tcp: Option<TcpListener>,
}

/// What clients may use of this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Discovery streams at once. An Envoy has one over ADS, and one for each of its clusters, routes and secrets
    /// without.
    pub max_streams: usize,
    /// Streams that are let in each second while more of them come; the first second's worth at once. The others wait.
    pub new_streams_per_second: u32,
    /// How old a TCP connection grows, give or take a tenth, before its client is sent to connect anew; none for ever.
    pub tcp_max_age: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams: DEFAULT_MAX_STREAMS,
            new_streams_per_second: DEFAULT_NEW_STREAMS_PER_SECOND,
            tcp_max_age: Some(DEFAULT_TCP_MAX_AGE),
        }
    }
}

/// Everything the server is made of.
pub struct Server {
    /// Who this is, as its clients show it.
    pub id: AgentId,
    /// Offers each proxy what it should have.
    pub source: Arc<dyn ProxySource>,
    /// Where the state of each stream is shown.
    pub board: StatusBoard,
    /// Where things are counted.
    pub metrics: XdsMetrics,
    /// What clients may use.
    pub limits: Limits,
    /// Whether the agent is ready, as health checks are told; a closed channel stays at its last value.
    pub ready: watch::Receiver<bool>,
}

impl Server {
    /// Serves every discovery service, client status and health until `stop` is raised; then ends all streams and
    /// returns when their connections have closed, or after a second. Garbage on a connection closes that connection
    /// only.
    pub async fn serve(self, listeners: Listeners, stop: Stop) {
        let Self { id, source, board, metrics, limits, ready } = self;
        let routes = services(Shared::new(id, source, board, metrics, &limits), ready, &stop);
        let unix = async {
            let Some(listener) = listeners.unix else { return };
            let manners = Manners { max_age: None, max_streams: limits.max_streams, keepalive: KEEPALIVE };
            Connections::new(routes.clone(), manners, stop.clone()).serve(listener).await;
        };
        let tcp = async {
            let Some(listener) = listeners.tcp else { return };
            let (max_age, max_streams) = (limits.tcp_max_age, limits.max_streams);
            let manners = Manners { max_age, max_streams, keepalive: KEEPALIVE };
            Connections::new(routes.clone(), manners, stop.clone()).serve(listener).await;
        };
        tokio::join!(unix, tcp);
    }
}

fn services(shared: Shared, ready: watch::Receiver<bool>, stop: &Stop) -> Routes {
    let board = shared.board.clone();
    let routes = Discovery::new(shared).routes().add_service(csds::service(board));
    routes.add_service(health::service(ready, stop.clone())).prepare()
}
