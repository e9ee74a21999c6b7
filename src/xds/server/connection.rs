//! One HTTP/2 connection: its age, its end, and what its streams know of it.

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::JoinSet;
use tonic::{body::Body, service::Routes};
use tower_service::Service as _;
use tracing::debug;

use crate::{
    lifecycle::Stop,
    xds::server::{
        accept::{self, Accept},
        body::{Aside, Pieces},
    },
};

/// Finds out about a peer that vanished without closing, before its proxy's watches are kept for hours (rule 16). A live
/// peer on the same host answers at once; the limit allows for one that is stopped in a debugger for a moment.
pub(super) const KEEPALIVE: Keepalive =
    Keepalive { interval: Duration::from_secs(30), limit: Duration::from_secs(20) };

/// A client connects because it has something to ask; a connection without a request only holds a descriptor.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long a client that connects anew because of its age may take to read what is under way.
const AGE_GRACE: Duration = Duration::from_secs(30);

/// The same when the agent stops. All streams have ended by then: what is left is what a client does not read.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Streams of health and status beside those that are counted.
const UNCOUNTED_STREAMS: u32 = 100;

/// Each connection's age differs by up to so many per cent, so that clients do not come back all at once.
const AGE_JITTER_PERCENT: u32 = 10;

/// How the client connected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Unix,
    Tcp(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// What each stream knows of the connection it runs over; among the extensions of its request.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    pub(super) peer: Peer,
    /// The connection is about to end, by its age or because the agent stops: its streams end.
    pub(super) leave: Stop,
}

/// How a peer is asked whether it is still there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    /// Between one question and the next.
    pub(super) interval: Duration,
    /// How long the answer may take.
    pub(super) limit: Duration,
}

/// How the connections of one socket are treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) keepalive: Keepalive,
    pub(super) max_age: Option<Duration>,
    pub(super) max_streams: usize,
}

/// The connections of one socket.
pub(super) struct Connections {
    routes: Routes,
    manners: Manners,
    stop: Stop,
    http2: http2::Builder<TokioExecutor>,
}

impl Connections {
    pub(super) fn new(routes: Routes, manners: Manners, stop: Stop) -> Self {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        // One connection may use up what all may: the cap is on streams, and its refusal says so in words.
        let streams = u32::try_from(manners.max_streams).unwrap_or(u32::MAX);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams.saturating_add(UNCOUNTED_STREAMS))
            .keep_alive_interval(manners.keepalive.interval)
            .keep_alive_timeout(manners.keepalive.limit);
        Self { routes, manners, stop, http2 }
    }

    /// Serves until the stop, then lets open streams end.
    pub(super) async fn serve<L: Accept>(self, mut listener: L) {
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            let (io, peer) = tokio::select! {
                biased;
                () = self.stop.wait() => break,
                accepted = accept::next(&mut listener) => accepted,
            };
            open.spawn(self.converse(io, peer));
        }
        // New clients are refused at once instead of waiting for nobody.
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    fn converse<I>(&self, io: I, peer: Peer) -> impl Future<Output = ()> + Send + use<I>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (routes, stop, http2) = (self.routes.clone(), self.stop.clone(), self.http2.clone());
        let age = self.manners.max_age.map(jittered);
        async move {
            let (leaving, leave) = Stop::pair();
            let carrier = Carrier { peer, leave };
            let has_asked = Arc::new(AtomicBool::new(false));
            let silent = silence(has_asked.clone());
            let service = service_fn(move |mut request: http::Request<Incoming>| {
                has_asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(carrier.clone());
                answer(routes.clone(), request)
            });
            let connection = http2.serve_connection(io, service);
            tokio::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => return tell(peer, &ended),
                () = silent => return debug!(%peer, "connection cut: its client asks for nothing"),
                () = stop.wait() => {}
                () = aged(age) => {}
            }
            // The client is told to connect anew first, so that it does not open its next stream here.
            connection.as_mut().graceful_shutdown();
            leaving.stop();
            tokio::select! {
                ended = connection => tell(peer, &ended),
                () = graces(&stop) => debug!(%peer, "connection cut: its client does not read"),
            }
        }
    }
}

/// Ends when a connection that is about to end has had its time, which is short once the agent stops.
async fn graces(stop: &Stop) {
    let stopped = async {
        stop.wait().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        () = stopped => {}
        () = tokio::time::sleep(AGE_GRACE) => {}
    }
}

fn tell(peer: Peer, ended: &Result<(), hyper::Error>) {
    match ended {
        Ok(()) => debug!(%peer, "connection closed"),
        Err(error) => debug!(%peer, %error, "connection closed"),
    }
}

/// Ends when nothing was asked for in time.
async fn silence(has_asked: Arc<AtomicBool>) {
    tokio::time::sleep(FIRST_REQUEST_LIMIT).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

async fn aged(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}

fn jittered(age: Duration) -> Duration {
    age * fastrand::u32(100 - AGE_JITTER_PERCENT..=100 + AGE_JITTER_PERCENT) / 100
}

async fn answer(
    mut routes: Routes,
    request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Infallible> {
    let response = routes.call(request.map(Pieces::of)).await?;
    Ok(Aside::put_in_place(response))
}

#[cfg(test)]
mod tests;
