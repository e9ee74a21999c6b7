//! One connection to another agent: TLS, HTTP/2, the calls over it, and what is known of a call that has no answer.

use std::{
    error::Error,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, combinators::MapErr};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tonic::{Status, body::Body};
use tower_service::Service;
use tracing::debug;

use crate::{
    lifecycle::{self, Task},
    model::{instance::HostPort, name::Datacenter},
    sync::peer::{
        Forwarded, Hello, HelloReply, MIN_VERSION, PeerError, VERSION, convert,
        grpc::Connect,
        limits::{CONNECTION_WINDOW_BYTES, MAX_CALLS, PING_EVERY, PING_PATIENCE, STREAM_WINDOW_BYTES},
        status,
        wire::{self as pb, sync_client::SyncClient},
    },
};

/// The end of a connection tells its reason right after the call that it took along.
const REASON: Duration = Duration::from_millis(200);

/// One connection. Dropping it closes it.
pub(super) struct Link {
    way: HostPort,
    caller: Caller,
    origin: Uri,
    calls: Semaphore,
    is_doubtful: AtomicBool,
    end: watch::Receiver<Option<PeerError>>,
    _connection: Task<()>,
}

/// Connects and shakes hands. Nothing is asked for yet.
pub(super) async fn open<C: Connect>(
    connector: &C,
    way: &HostPort,
    config: Arc<ClientConfig>,
    sni: ServerName<'static>,
) -> Result<Link, PeerError> {
    let lost = |error: &(dyn Error + 'static)| unreached(way, error);
    let io = connector.connect(way).await.map_err(|error| lost(&error))?;
    let origin = Uri::try_from(format!("https://{}", sni.to_str()))
        .map_err(|error| PeerError::Misfit(format!("{way}: {error}")))?;
    let tls = TlsConnector::from(config).connect(sni, io).await.map_err(|error| lost(&error))?;
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true);
    let (sender, connection) = http2.handshake(TokioIo::new(tls)).await.map_err(|error| lost(&error))?;
    let (ended, end) = watch::channel(None);
    let at = way.clone();
    let connection = lifecycle::spawn("sync.peer.link", async move {
        let reason = match connection.await {
            Ok(()) => PeerError::Unreached(format!("{at}: the other side closed the connection")),
            Err(error) => unreached(&at, &error),
        };
        debug!(%reason, "connection to a peer ended");
        ended.send_replace(Some(reason));
    });
    Ok(Link {
        way: way.clone(),
        caller: Caller(sender),
        origin,
        calls: Semaphore::new(MAX_CALLS as usize),
        is_doubtful: AtomicBool::new(false),
        end,
        _connection: connection,
    })
}

impl Link {
    /// The way that it took.
    pub(super) fn way(&self) -> &HostPort {
        &self.way
    }

    /// Whether a new call should use it: it is open, and answered the last call in time.
    pub(super) fn is_usable(&self) -> bool {
        !self.caller.0.is_closed() && !self.is_doubtful.load(Ordering::Relaxed)
    }

    pub(super) fn client(&self) -> SyncClient<Caller> {
        SyncClient::with_origin(self.caller.clone(), self.origin.clone())
            .max_decoding_message_size(convert::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(convert::MAX_MESSAGE_BYTES)
    }

    /// Says who calls. Whatever goes wrong, nothing was executed.
    pub(super) async fn greet(self, dc: &Datacenter, hello: Hello) -> Result<Self, PeerError> {
        let answer = self.client().hello(convert::hello_out(hello)).await;
        let reply = match answer {
            Ok(reply) => reply.into_inner(),
            Err(status) => return Err(self.not_greeted(&status).await),
        };
        let misfit = |text: String| Err(PeerError::Misfit(format!("{}: {text}", self.way)));
        if reply.datacenter != dc.as_str() {
            return misfit(format!("the agent there is of {:?} and not of {dc}", reply.datacenter));
        }
        if !(MIN_VERSION..=VERSION).contains(&reply.version) {
            return misfit(format!(
                "the agent there speaks version {} of the protocol, and this one {MIN_VERSION} to {VERSION}; update the \
                 older of the two",
                reply.version
            ));
        }
        Ok(self)
    }

    /// With TLS 1.3 a server refuses a certificate only after the client's side of the handshake is over: the reason is
    /// that of the connection's end.
    async fn not_greeted(&self, status: &Status) -> PeerError {
        let error = match status::peer_error(status) {
            PeerError::Unknown(text) | PeerError::Unreached(text) => text,
            error => return at_way(&self.way, error),
        };
        let mut end = self.end.clone();
        let ended = timeout(REASON, end.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(reason)) if self.caller.0.is_closed() => {
                reason.clone().unwrap_or(PeerError::Unreached(error))
            }
            _ => at_way(&self.way, PeerError::Unreached(error)),
        }
    }

    /// Greets once more.
    pub(super) async fn hello(&self, hello: Hello, until: Instant) -> Result<HelloReply, PeerError> {
        let request = convert::hello_out(hello);
        let reply = self.call(until, async |mut client| client.hello(request).await).await?;
        convert::hello_reply_in(reply.into_inner()).map_err(|error| PeerError::Misfit(error.to_string()))
    }

    /// Has a client's request executed.
    pub(super) async fn forward(
        &self,
        request: pb::ForwardRequest,
        until: Instant,
    ) -> Result<Forwarded, PeerError> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(until.saturating_duration_since(lifecycle::now()));
        // It answered, so that something may have been executed, whatever is wrong with the answer.
        let odd = |error: convert::ConvertError| Status::aborted(error.to_string());
        self.call(until, async |mut client| {
            let mut parts = client.forward(request).await?.into_inner();
            let first = parts.message().await?.ok_or_else(|| Status::aborted("an answer without a head"))?;
            let mut forwarded = convert::forwarded_in(first).map_err(odd)?;
            let mut body = Vec::new();
            while let Some(part) = parts.message().await? {
                if body.is_empty() {
                    convert::body_in(&mut body, &forwarded.body).map_err(odd)?;
                }
                convert::body_in(&mut body, &part.body).map_err(odd)?;
            }
            if !body.is_empty() {
                forwarded.body = body.into();
            }
            Ok(forwarded)
        })
        .await
    }

    /// Has keys confirmed as absent.
    pub(super) async fn absent(&self, request: pb::AbsentRequest, until: Instant) -> Result<(), PeerError> {
        self.call(until, async |mut client| client.absent(request).await).await.map(drop)
    }

    /// One call within its time. A connection on which one had no answer takes no new ones: it may be cut.
    async fn call<T>(
        &self,
        until: Instant,
        call: impl AsyncFnOnce(SyncClient<Caller>) -> Result<T, Status>,
    ) -> Result<T, PeerError> {
        let waiting = timeout_at(until, self.calls.acquire()).await;
        let Ok(Ok(_turn)) = waiting else {
            return Err(PeerError::Unreached(format!(
                "{}: {MAX_CALLS} calls are under way already",
                self.way
            )));
        };
        match timeout_at(until, call(self.client())).await {
            Ok(answer) => answer.map_err(|status| at_way(&self.way, status::peer_error(&status))),
            Err(_) => {
                self.is_doubtful.store(true, Ordering::Relaxed);
                Err(PeerError::Unknown(format!("{}: no answer in time", self.way)))
            }
        }
    }
}

/// What is known of a connection that did not come about, or of one before its first answer.
fn unreached(way: &HostPort, error: &(dyn Error + 'static)) -> PeerError {
    let text = format!("{way}: {}", innermost(error));
    match tls_cause(error) {
        Some(rustls::Error::InvalidCertificate(_)) => PeerError::Misfit(text),
        Some(rustls::Error::AlertReceived(_)) => PeerError::Misfit(format!(
            "{text}; the other agent refused this one's certificate: check that both name each other's datacenter and are of one \
             federation"
        )),
        _ => PeerError::Unreached(text),
    }
}

fn at_way(way: &HostPort, error: PeerError) -> PeerError {
    let at = |text| format!("{way}: {text}");
    match error {
        PeerError::Unreached(text) => PeerError::Unreached(at(text)),
        PeerError::Unknown(text) => PeerError::Unknown(at(text)),
        PeerError::Refused(text) => PeerError::Refused(at(text)),
        PeerError::Misfit(text) => PeerError::Misfit(at(text)),
    }
}

/// The cause behind an error; an `io::Error` does not give the error it wraps as its source.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| cause(*error)).last().unwrap_or(error).to_string()
}

fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    std::iter::successors(Some(error), |error| cause(*error)).find_map(|error| error.downcast_ref())
}

/// The connection as tonic's client takes one. Its errors are statuses of ours, since tonic's own reading of them calls
/// UNAVAILABLE what may have been executed.
#[derive(Clone)]
pub(super) struct Caller(http2::SendRequest<Body>);

/// The body of an answer whose errors are statuses.
type Answer = MapErr<Incoming, fn(hyper::Error) -> Status>;

impl Service<Request<Body>> for Caller {
    type Response = Response<Answer>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sent = self.0.try_send_request(request);
        Box::pin(async move {
            match sent.await {
                Ok(reply) if reply.status() == StatusCode::OK => Ok(reply.map(|body| body.map_err(cut as _))),
                Ok(reply) => Err(Status::aborted(format!("answered with HTTP status {}", reply.status()))),
                Err(mut error) => Err(match error.take_message() {
                    // Who gets the request back knows that it never left.
                    Some(_) => Status::unavailable(innermost(error.error())),
                    None => cut(error.into_error()),
                }),
            }
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a function pointer for map_err")]
fn cut(error: hyper::Error) -> Status {
    Status::aborted(format!("the connection ended before the answer did: {}", innermost(&error)))
}
