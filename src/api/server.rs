//! The listening half: binds, takes connections within limits, and lets open requests end when it is told to stop.
//! What a request means is not known here.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tower_service::Service;

use crate::{
    api::{
        Kv, Sources, kv,
        patient::Patient,
        routes::{self, Peer},
    },
    lifecycle::Stop,
};

/// Scrapers, dashboards and people of one machine; whoever comes beyond waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 128;

/// The same with Consul's API, whose watches hold a connection each.
const MAX_KV_CONNECTIONS: usize = 1024;

/// A client that says nothing for so long, before or between requests, is cut.
const HEADER_READ_DEADLINE: Duration = Duration::from_secs(10);

/// No answer takes long here, so that a longer request is one whose body does not come.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Under `/v1/` the longest is a blocking query: 10 minutes, the sixteenth that Consul adds, and time for the way.
const KV_DEADLINE: Duration = Duration::from_secs(660);

/// A client that takes nothing of its answer for so long is cut.
const TAKE_DEADLINE: Duration = Duration::from_secs(60);

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;

/// Room for the head of a request, which may name a long key; the least that hyper takes is 8 KiB.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// After the stop an open request has so long; an idle connection ends at once.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// When the process has no descriptors left, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen for HTTP on {address}: {source}; {}", remedy(*address, source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn remedy(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "`ss -ltnp sport = :{}` names who holds it; stop that, or give [http] listen another port",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => "no interface has this address; correct [http] listen".into(),
        io::ErrorKind::PermissionDenied => "give [http] listen a port above 1023".into(),
        _ => "correct [http] listen".into(),
    }
}

/// Takes an address. Off loopback a warning tells that the status can be read from there.
///
/// # Errors
/// The address is taken, not there, or not allowed; says what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = listen(address).map_err(|source| BindError { address, source })?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "HTTP interface is not on loopback: whoever reaches it can read the status");
    }
    Ok(listener)
}

/// Connections have the listener's keepalive: an answer that goes on in silence ends with a client's machine too.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As `TcpListener::bind` does: connections that are closing do not keep a new start from its port.
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the stop, then lets open requests end. Without `kv` there is nothing below `/v1/`.
pub async fn serve(listener: TcpListener, sources: Arc<dyn Sources>, kv: Option<Arc<dyn Kv>>, stop: Stop) {
    let room = Arc::new(Semaphore::new(if kv.is_some() { MAX_KV_CONNECTIONS } else { MAX_CONNECTIONS }));
    let router = routes::router(sources, kv);
    let mut connections = JoinSet::new();
    while let Some((stream, peer, permit)) = next(&listener, &room, &mut connections, &stop).await {
        connections.spawn(converse(stream, peer, permit, router.clone(), stop.clone()));
    }
    drop(listener);
    let drained = timeout(DRAIN_DEADLINE, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "HTTP connections cut at the end of the drain");
    }
}

async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
    stop: &Stop,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let mut is_lacking = false;
    loop {
        while connections.try_join_next().is_some() {}
        let taken = async {
            let permit = Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        tokio::select! {
            biased;
            () = stop.wait() => return None,
            (accepted, permit) = taken => match accepted {
                Ok((stream, peer)) => return Some((stream, peer, permit)),
                Err(error) => {
                    // Until one is accepted again it is the same trouble, every tenth of a second.
                    if !is_lacking {
                        tracing::warn!(%error, "no HTTP connection can be accepted for now; if files are too many, raise LimitNOFILE");
                    }
                    is_lacking = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
    router: Router,
    stop: Stop,
) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        answer(router.clone(), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, TAKE_DEADLINE)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "HTTP connection closed");
    }
}

async fn answer(mut router: Router, request: http::Request<Incoming>) -> Result<Response, Infallible> {
    let deadline = if request.uri().path().starts_with(kv::PATH) { KV_DEADLINE } else { REQUEST_DEADLINE };
    match timeout(deadline, router.call(request)).await {
        Ok(response) => response,
        Err(_) => Ok(routes::too_slow()),
    }
}
