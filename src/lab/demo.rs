//! The lab's two demo services: a counter, and a dashboard that shows it from the other datacenter. They know
//! nothing of Consul: the dashboard reaches the counter through its sidecar's upstream listener.

pub mod counting;
pub mod dashboard;
pub mod link;
pub mod path;

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use crate::lifecycle::Stop;

/// A demo service could not listen.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {reason}; choose another with --listen")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system says.
    pub reason: std::io::Error,
}

/// Serves until the stop signal; open requests are finished first.
async fn serve(address: SocketAddr, router: Router, stop: Stop) -> Result<(), ListenError> {
    let failed = |reason| ListenError { address, reason };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.wait().await });
    served.await.map_err(failed)
}
