//! The other end: accepts connections of sync agents and answers by a [`Served`].
//!
//! Who connects is known from the certificate before a byte of HTTP is read; whether its datacenter may, from Consul's
//! intentions: those that are denied are told so, and connections that were open when that changed are closed.

mod deadline;
mod follow;
mod service;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Status, body::Body};
use tower_service::Service as _;
use tracing::{debug, info, warn};

use crate::{
    lifecycle::{self, Stop},
    model::name::Datacenter,
    sync::peer::{
        Served, convert,
        facts::Facts,
        intentions::{Verdict, Verdicts},
        limits::{CONNECTION_WINDOW_BYTES, MAX_CALLS, PING_EVERY, PING_PATIENCE, STREAM_WINDOW_BYTES},
        serve::service::{Caller, SyncService},
        wire::sync_server::SyncServer,
    },
};

/// Who has not proved itself by then is let go.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Connections that are proving themselves at once; further ones wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// Connections of peers at once: agents of a dozen datacenters, each with a dozen prefixes to follow.
const CONNECTIONS: usize = 1024;
/// Without descriptors left, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Anybody can connect, and must not fill the log: of strangers one line in so long, the others only for debugging.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);
/// At the stop, for answers that are under way.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until `stop`, then lets calls that are under way end within a short time.
pub async fn serve<S: Served>(listener: TcpListener, facts: Facts, served: S, stop: Stop) {
    let server = Server {
        facts,
        service: SyncServer::new(SyncService::new(served))
            .max_decoding_message_size(convert::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(convert::MAX_MESSAGE_BYTES),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        told_of_stranger: Arc::default(),
        stop: stop.clone(),
    };
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stop.wait() => break,
            accepted = next(&listener, &handshakes) => accepted,
        };
        open.spawn(server.clone().converse(accepted));
    }
    // New callers are refused at once instead of waiting for nobody.
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// The next connection, with its permit to prove itself. Cancel-safe.
async fn next(listener: &TcpListener, handshakes: &Arc<Semaphore>) -> Accepted {
    let permit = handshakes.clone().acquire_owned().await.expect("this semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let _ = stream.set_nodelay(true);
                return Accepted { stream, from: from.to_string(), permit };
            }
            Err(error) => {
                debug!(%error, "no peer's connection can be accepted for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Accepted {
    stream: TcpStream,
    /// For logs: mostly a gateway's address.
    from: String,
    permit: OwnedSemaphorePermit,
}

struct Server<S> {
    facts: Facts,
    service: SyncServer<SyncService<S>>,
    connections: Arc<Semaphore>,
    told_of_stranger: Arc<Mutex<Option<Instant>>>,
    stop: Stop,
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            facts: self.facts.clone(),
            service: self.service.clone(),
            connections: self.connections.clone(),
            told_of_stranger: self.told_of_stranger.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<S: Served> Server<S> {
    async fn converse(self, accepted: Accepted) {
        let Accepted { stream, from, permit } = accepted;
        let shaken = tokio::select! {
            biased;
            () = self.stop.wait() => return,
            shaken = timeout(HANDSHAKE_LIMIT, self.shake_hands(stream)) => shaken,
        };
        drop(permit);
        let (stream, dc) = match shaken {
            Ok(Ok(shaken)) => shaken,
            // Checks of the port and callers that changed their minds are ordinary.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return debug!(from, %error, "connection ended before its handshake did");
            }
            Ok(Err(error)) => return self.tell_of_stranger(&from, &error),
            Err(_) => return debug!(from, "connection without a handshake closed"),
        };
        let Ok(_place) = self.connections.clone().try_acquire_owned() else {
            return warn!(from, %dc, limit = CONNECTIONS, "connection of a peer closed: too many are open already");
        };
        self.talk(stream, dc, &from).await;
    }

    fn tell_of_stranger(&self, from: &str, error: &io::Error) {
        let mut told = self.told_of_stranger.lock().unwrap_or_else(PoisonError::into_inner);
        let now = lifecycle::now();
        if told.is_some_and(|at| now < at + STRANGERS_EVERY) {
            return debug!(from, %error, "connection of a stranger refused");
        }
        *told = Some(now);
        warn!(from, %error, "connection of a stranger refused");
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Datacenter)> {
        let identity = self.facts.identity.borrow().clone();
        let identity = identity.ok_or_else(|| io::Error::other("this agent has no certificate yet"))?;
        let stream = TlsAcceptor::from(identity.server()).accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| io::Error::other("no certificate"))?;
        let dc = identity.names().datacenter(certificate).map_err(io::Error::other)?;
        Ok((stream, dc))
    }

    async fn talk(self, stream: TlsStream<TcpStream>, dc: Datacenter, from: &str) {
        let Self { facts, service, stop, .. } = self;
        let caller = Caller { dc: dc.clone(), has_greeted: Arc::new(AtomicBool::new(false)) };
        let verdicts = facts.verdicts.clone();
        let answer = service_fn(move |request| {
            let verdict = verdict(&verdicts.borrow(), &caller.dc);
            answer(service.clone(), caller.clone(), verdict, request)
        });
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(MAX_CALLS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE);
        let connection = http2.serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => {
                return debug!(from, %dc, ?ended, "connection of a peer closed");
            }
            () = denied(facts.verdicts, &dc) => {
                return info!(from, %dc, "connection of a peer closed: an intention denies it now");
            }
            () = stop.wait() => {}
        }
        connection.as_mut().graceful_shutdown();
        if timeout(GRACE, connection).await.is_err() {
            debug!(from, %dc, "connection of a peer cut");
        }
    }
}

/// What the intentions say of a datacenter's agents.
fn verdict(verdicts: &Verdicts, dc: &Datacenter) -> Result<(), Status> {
    match verdicts.get(dc) {
        Some(Verdict::Allowed) => Ok(()),
        Some(Verdict::Denied(reason)) => Err(Status::permission_denied(format!(
            "an intention on causeway-sync denies the agents of {dc}: {reason}; allow causeway-sync to call causeway-sync"
        ))),
        None => Err(Status::unavailable(format!(
            "Consul has not told yet whether the agents of {dc} may connect; it takes service:write on causeway-sync"
        ))),
    }
}

/// Ends when callers that were allowed are denied.
async fn denied(mut verdicts: watch::Receiver<Arc<Verdicts>>, dc: &Datacenter) {
    let is_denied = |verdicts: &Verdicts| matches!(verdicts.get(dc), Some(Verdict::Denied(_)));
    let turned = async {
        verdicts.wait_for(|verdicts| !is_denied(verdicts)).await.ok()?;
        verdicts.wait_for(|verdicts| is_denied(verdicts)).await.ok().map(drop)
    };
    if turned.await.is_none() {
        std::future::pending().await
    }
}

async fn answer<S: Served>(
    mut service: SyncServer<SyncService<S>>,
    caller: Caller,
    verdict: Result<(), Status>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if let Err(status) = verdict {
        return Ok(status.into_http());
    }
    let deadline = match deadline::of(request.headers()) {
        Ok(deadline) => deadline,
        Err(status) => return Ok(status.into_http()),
    };
    request.extensions_mut().insert(caller);
    match deadline {
        None => service.call(request).await,
        Some(deadline) => timeout(deadline, service.call(request)).await.unwrap_or_else(|_| {
            Ok(Status::deadline_exceeded("not done within the time that the caller gave").into_http())
        }),
    }
}
