//! One discovery stream: a task that feeds requests, offers and the time to its state machine and sends what that
//! says. The same for both variants and for every service.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::Stream;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Status, Streaming};
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::{
    lifecycle::{self, Stop, Task},
    model::{
        name::ProxyId,
        secret::{REDACTED, SecretText},
    },
    xds::{
        encode::Source,
        metrics::{StreamGauge, XdsMetrics},
        server::{
            agent_id::AgentId,
            board::Place,
            connection::Carrier,
            convert,
            scope::Scope,
            shared::Shared,
            showing::Showing,
            source::{Attached, Offer},
            wire::Wire,
        },
        subscription::{Action, Event, Subscription},
    },
};

/// How long a new stream may say nothing: it holds a place all the while.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long a client may take to hear why its stream ends.
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// Responses ahead of the client: enough for one step's usual burst (clusters, endpoints, listeners, routes). While
/// it is full, snapshots are not looked at and so coalesce.
const RESPONSES_AHEAD: usize = 4;

/// The responses of one stream, and the task that makes them: dropping it, when the client is gone, ends the task and
/// frees all that the stream held (rule 12).
pub(super) struct Responses<M> {
    items: mpsc::Receiver<Result<M, Status>>,
    _task: Task<()>,
}

impl<M> Stream for Responses<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context)
    }
}

pub(super) fn start<W: Wire>(
    shared: Arc<Shared>,
    scope: Scope,
    carrier: &Carrier,
    token: Option<SecretText>,
    requests: Streaming<W>,
) -> Result<Responses<W::Response>, Status> {
    let place = shared.admit()?;
    let stream = shared.number();
    let (responses, items) = mpsc::channel(RESPONSES_AHEAD);
    let span = info_span!(
        "xds", stream, service = scope.name(), variant = ?W::VARIANT, peer = %carrier.peer,
        proxy = tracing::field::Empty
    );
    let opening = Opening { stream, scope, token, leave: carrier.leave.clone() };
    let run = async move {
        let _place = place;
        run(&shared, opening, requests, responses).await;
    };
    Ok(Responses { items, _task: lifecycle::spawn("xds.stream", run.instrument(span)) })
}

/// Why a stream ends.
enum End {
    /// The client closed or vanished, or its connection is about to end.
    Quiet,
    /// The client is told.
    Told(Status),
}

/// What is known of a stream before its client says anything.
struct Opening {
    stream: u64,
    scope: Scope,
    token: Option<SecretText>,
    /// Its connection is about to end.
    leave: Stop,
}

async fn run<W: Wire>(
    shared: &Shared,
    opening: Opening,
    mut requests: Streaming<W>,
    responses: mpsc::Sender<Result<W::Response, Status>>,
) {
    let leave = opening.leave.clone();
    let first = tokio::select! {
        first = timeout(FIRST_REQUEST_LIMIT, requests.message()) => first,
        () = leave.wait() => return,
    };
    let Ok(first) = first else {
        let status = Status::deadline_exceeded("nothing was asked for on this stream");
        return told(&leave, &responses, status).await;
    };
    let Ok(Some(mut first)) = first else { return };
    let named = opening.scope.check(&mut first).and_then(|()| proxy_of(&first));
    let opened = match named {
        Ok(proxy) => {
            if unless_leaving(&leave, shared.entrance.turn()).await.is_none() {
                return;
            }
            Ok(Session::open(shared, opening, proxy, &first, responses.clone()))
        }
        Err(status) => Err(status),
    };
    let ended = match opened {
        Ok(mut session) => {
            let envoy_version = session.shown.envoy_version.as_deref().unwrap_or("unknown");
            info!(envoy_version, "proxy connected");
            let ended = session.run(first, requests).await;
            info!("proxy disconnected");
            ended
        }
        Err(status) => End::Told(status),
    };
    if let End::Told(status) = ended {
        warn!(error = status.message(), code = ?status.code(), "stream refused");
        shared.metrics.refused();
        told(&leave, &responses, status).await;
    }
}

/// Which proxy the client is. Only the first request is sure to say so (rule 3).
fn proxy_of<W: Wire>(first: &W) -> Result<ProxyId, Status> {
    let node = first.node().filter(|node| !node.id.is_empty()).ok_or_else(|| {
        Status::invalid_argument(
            "the first request has no node.id: set node.id in the bootstrap to the proxy's service id",
        )
    })?;
    Ok(ProxyId::from(&node.id))
}

/// Tells a client why its stream ends. One that is gone, or does not read, needs no reason.
async fn told<R>(leave: &Stop, responses: &mpsc::Sender<Result<R, Status>>, status: Status) {
    let _ = unless_leaving(leave, timeout(TELL_LIMIT, responses.send(Err(status)))).await;
}

/// What that gives, or none when the connection is about to end first.
async fn unless_leaving<T>(leave: &Stop, act: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = leave.wait() => None,
        done = act => Some(done),
    }
}

/// What a stream was woken by.
enum Woken<W> {
    Leave,
    Request(Box<Result<Option<W>, Status>>),
    Time,
    /// Whether there is a new offer; otherwise its source is gone.
    OfferChanged(bool),
    RoomForOffer,
}

/// Where a stream stands with its offers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushing {
    WaitsForOffer,
    /// There is a new one, and the client still has responses to take.
    WaitsForRoom,
    SourceGone,
}

/// One stream whose client has said who it is.
struct Session<W: Wire> {
    shown: Arc<Showing>,
    scope: Scope,
    agent: AgentId,
    /// Where the client is told to fetch what resources name.
    source: Source,
    token: Option<SecretText>,
    offers: watch::Receiver<Offer>,
    _hold: Box<dyn Send + Sync>,
    responses: mpsc::Sender<Result<W::Response, Status>>,
    leave: Stop,
    metrics: XdsMetrics,
    place: Place,
    has_snapshot: bool,
    pushing: Pushing,
    _gauge: StreamGauge,
}

fn now() -> Instant {
    lifecycle::now().into_std()
}

impl<W: Wire> Session<W> {
    fn open(
        shared: &Shared,
        opening: Opening,
        proxy: ProxyId,
        first: &W,
        responses: mpsc::Sender<Result<W::Response, Status>>,
    ) -> Self {
        let Opening { stream, scope, token, leave } = opening;
        tracing::Span::current().record("proxy", proxy.as_str());
        let Attached { offers, hold } = shared.source.attach(&proxy, token.clone());
        let source = scope.source(first, token.clone());
        let subscription = Subscription::new(stream, W::VARIANT).with_sources_of(source.extra_bytes());
        let envoy_version = first.node().and_then(convert::envoy_version);
        let shown = Arc::new(Showing::new(stream, proxy, envoy_version, subscription));
        Self {
            place: shared.board.place(stream, shown.clone()),
            shown,
            scope,
            agent: shared.id.clone(),
            source,
            token,
            offers,
            _hold: hold,
            responses,
            leave,
            metrics: shared.metrics.clone(),
            has_snapshot: false,
            pushing: Pushing::WaitsForOffer,
            _gauge: shared.metrics.stream_open(),
        }
    }

    async fn run(&mut self, first: W, mut requests: Streaming<W>) -> End {
        // The snapshot is there before the first request, so that one step answers it.
        let mut next = self.take_offer().await;
        if next.is_ok() {
            next = self.take_request(first).await;
        }
        while next.is_ok() {
            next = match self.wait(&mut requests).await {
                Woken::Leave => Err(End::Quiet),
                Woken::Request(request) => match *request {
                    Ok(Some(request)) => self.take_request(request).await,
                    // Half-closed: what is under way is still delivered (rule 12).
                    Ok(None) => Err(End::Quiet),
                    Err(status) => {
                        debug!(error = status.message(), "stream broke");
                        Err(End::Quiet)
                    }
                },
                Woken::Time => self.step(Event::Tick).await,
                Woken::OfferChanged(open) => {
                    self.pushing = if open { Pushing::WaitsForRoom } else { Pushing::SourceGone };
                    Ok(())
                }
                Woken::RoomForOffer => {
                    self.pushing = Pushing::WaitsForOffer;
                    self.take_offer().await
                }
            };
        }
        next.err().unwrap_or(End::Quiet)
    }

    /// Waits for what comes first; requests beat pushes (rule 14). Cancel-safe.
    async fn wait(&mut self, requests: &mut Streaming<W>) -> Woken<W> {
        let deadline = self.shown.subscription().next_deadline().map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            () = self.leave.wait() => Woken::Leave,
            request = requests.message() => Woken::Request(Box::new(request)),
            () = wait_until(deadline), if deadline.is_some() => Woken::Time,
            changed = self.offers.changed(), if self.pushing == Pushing::WaitsForOffer => {
                Woken::OfferChanged(changed.is_ok())
            }
            // A slow client is offered nothing until it has taken what is under way (rule 15).
            room = self.responses.reserve(), if self.pushing == Pushing::WaitsForRoom => match room {
                Ok(_) => Woken::RoomForOffer,
                Err(_) => Woken::Leave,
            },
        }
    }

    async fn take_offer(&mut self) -> Result<(), End> {
        let offer = self.offers.borrow_and_update().clone();
        match offer {
            // Nothing is known yet: an empty world would be believed (rule 13).
            Offer::Pending => Ok(()),
            Offer::Ready(snapshot) => {
                self.has_snapshot = true;
                self.step(Event::Offer(snapshot)).await
            }
            // Whatever it has had (rule 17).
            denied @ Offer::Denied { .. } => Err(denial(&denied).unwrap_or(End::Quiet)),
            // What the proxy has goes on working; its registration may be back in a moment.
            Offer::Refused { message, .. } if self.has_snapshot => {
                warn!(error = %message, "proxy is no longer known; it keeps its last configuration");
                Ok(())
            }
            Offer::Refused { not_found: true, message } => Err(End::Told(Status::not_found(&*message))),
            Offer::Refused { not_found: false, message } => {
                Err(End::Told(Status::failed_precondition(&*message)))
            }
        }
    }

    async fn take_request(&mut self, mut request: W) -> Result<(), End> {
        // Requests beat offers, but not this one: a client that goes on asking would go on being served (rule 17).
        if let Some(end) = denial(&self.offers.borrow()) {
            return Err(end);
        }
        self.scope.check(&mut request).map_err(End::Told)?;
        if request.node().is_some_and(|node| !node.id.is_empty() && node.id != self.shown.proxy.as_str()) {
            return Err(End::Told(Status::invalid_argument("node.id must not change within a stream")));
        }
        if let (Some(token), Some(refusal)) = (&self.token, request.refusal()) {
            // On a service of one type it is part of what was sent, and Envoy's words may be taken from that.
            *refusal = refusal.replace(token.expose(), REDACTED);
        }
        self.step(request.into_event()).await
    }

    async fn step(&mut self, event: Event) -> Result<(), End> {
        let actions = self.shown.subscription().step(event, now());
        self.place.show();
        for action in actions {
            self.act(action).await?;
        }
        Ok(())
    }

    async fn act(&self, action: Action) -> Result<(), End> {
        match action {
            Action::Send(response) => {
                let (type_url, nonce) = (response.kind.type_url(), response.nonce.as_str());
                debug!(type_url, nonce, resources = response.resources.len(), removed = ?response.removed, "send");
                self.metrics.sent(response.kind, response.resources.len());
                let wire = W::response(&response, &self.source, &self.agent);
                // A client that does not read must not hold up the end of its connection, nor its own.
                return tokio::select! {
                    sent = unless_leaving(&self.leave, self.responses.send(Ok(wire))) => match sent {
                        Some(Ok(())) => Ok(()),
                        Some(Err(_)) | None => Err(End::Quiet),
                    },
                    end = denied(self.offers.clone()) => Err(end),
                };
            }
            Action::Acked { kind, nonce, after } => {
                debug!(type_url = kind.type_url(), nonce, ?after, "acknowledged");
                self.metrics.acked(kind, after);
            }
            Action::Nacked { kind, nonce, error, resources } => {
                warn!(type_url = kind.type_url(), nonce, error, ?resources, "proxy refused configuration");
                self.metrics.nacked(kind);
            }
            Action::UnknownType(type_url) => info!(type_url, "proxy asks for a type that is not served"),
        }
        Ok(())
    }
}

/// How a stream ends whose token does not open its proxy (any more).
fn denial(offer: &Offer) -> Option<End> {
    match offer {
        Offer::Denied { unauthenticated: true, message } => {
            Some(End::Told(Status::unauthenticated(&**message)))
        }
        Offer::Denied { unauthenticated: false, message } => {
            Some(End::Told(Status::permission_denied(&**message)))
        }
        Offer::Pending | Offer::Refused { .. } | Offer::Ready(_) => None,
    }
}

/// Waits for a denial.
async fn denied(mut offers: watch::Receiver<Offer>) -> End {
    loop {
        if let Some(end) = denial(&offers.borrow_and_update()) {
            return end;
        }
        if offers.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn wait_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
