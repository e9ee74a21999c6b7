//! One ADS stream: a task that feeds requests, offers and the time to its state machine and sends what that says.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures_util::Stream;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::{
    lifecycle::{self, Stop, Task},
    model::{name::ProxyId, secret::SecretText},
    xds::{
        metrics::{StreamGauge, XdsMetrics},
        server::{
            Item, StatusBoard,
            board::Place,
            convert,
            showing::Showing,
            source::{Attached, Offer, ProxySource},
        },
        subscription::{Action, Event, Subscription},
    },
};

/// Responses ahead of the client: enough for one step's usual burst (clusters, endpoints, listeners, routes). While
/// it is full, snapshots are not looked at and so coalesce.
const RESPONSES_AHEAD: usize = 4;

/// What all streams use.
pub(super) struct Shared {
    pub(super) source: Arc<dyn ProxySource>,
    pub(super) board: StatusBoard,
    pub(super) metrics: XdsMetrics,
    pub(super) stop: Stop,
}

/// How the client connected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Unix,
    Tcp(Option<SocketAddr>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Tcp(Some(address)) => write!(f, "{address}"),
            Self::Tcp(None) => f.write_str("tcp"),
        }
    }
}

/// The responses of one stream, and the task that makes them: dropping it, when the client is gone, ends the task.
pub(super) struct Responses {
    items: mpsc::Receiver<Item>,
    _task: Task<()>,
}

impl Stream for Responses {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.items.poll_recv(context)
    }
}

pub(super) fn start(
    shared: Arc<Shared>,
    stream: u64,
    peer: Peer,
    token: Option<SecretText>,
    requests: Streaming<DeltaDiscoveryRequest>,
) -> Responses {
    let (responses, items) = mpsc::channel(RESPONSES_AHEAD);
    let span = info_span!("ads", stream, %peer, proxy = tracing::field::Empty);
    let _task =
        lifecycle::spawn("xds.stream", run(shared, stream, token, requests, responses).instrument(span));
    Responses { items, _task }
}

/// Why a stream ends.
enum End {
    /// The client closed or vanished, or this agent stops.
    Quiet,
    /// The client is told.
    Told(Status),
}

async fn run(
    shared: Arc<Shared>,
    stream: u64,
    token: Option<SecretText>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Item>,
) {
    let first = tokio::select! {
        first = requests.message() => first,
        () = shared.stop.wait() => return,
    };
    let Ok(Some(first)) = first else { return };
    let ended = match Session::open(&shared, stream, token, &first, responses.clone()) {
        Ok(mut session) => {
            info!(
                envoy_version = session.shown.envoy_version.as_deref().unwrap_or("unknown"),
                "proxy connected"
            );
            let ended = session.run(first, requests, &shared.stop).await;
            info!("proxy disconnected");
            ended
        }
        Err(status) => End::Told(status),
    };
    if let End::Told(status) = ended {
        warn!(error = status.message(), code = ?status.code(), "stream refused");
        // A client that is gone needs no reason.
        let _ = responses.send(Err(status)).await;
    }
}

/// What a stream was woken by.
enum Woken {
    Stop,
    Request(Box<Result<Option<DeltaDiscoveryRequest>, Status>>),
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
struct Session {
    shown: Arc<Showing>,
    offers: watch::Receiver<Offer>,
    _hold: Box<dyn Send + Sync>,
    responses: mpsc::Sender<Item>,
    metrics: XdsMetrics,
    place: Place,
    has_snapshot: bool,
    pushing: Pushing,
    _gauge: StreamGauge,
}

fn now() -> Instant {
    lifecycle::now().into_std()
}

impl Session {
    fn open(
        shared: &Shared,
        stream: u64,
        token: Option<SecretText>,
        first: &DeltaDiscoveryRequest,
        responses: mpsc::Sender<Item>,
    ) -> Result<Self, Status> {
        // Only the first request is sure to carry the node (rule 3).
        let node = first.node.as_ref().filter(|node| !node.id.is_empty()).ok_or_else(|| {
            Status::invalid_argument(
                "the first request has no node.id: set node.id in the bootstrap to the proxy's service id",
            )
        })?;
        let proxy = ProxyId::from(&node.id);
        tracing::Span::current().record("proxy", proxy.as_str());
        let Attached { offers, hold } = shared.source.attach(&proxy, token);
        let subscription = Subscription::new(stream);
        let shown = Arc::new(Showing::new(stream, proxy, convert::envoy_version(node), subscription));
        Ok(Self {
            place: shared.board.place(stream, shown.clone()),
            shown,
            offers,
            _hold: hold,
            responses,
            metrics: shared.metrics.clone(),
            has_snapshot: false,
            pushing: Pushing::WaitsForOffer,
            _gauge: shared.metrics.stream_open(),
        })
    }

    async fn run(
        &mut self,
        first: DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        stop: &Stop,
    ) -> End {
        // The snapshot is there before the first request, so that one step answers it.
        let mut next = self.take_offer().await;
        if next.is_ok() {
            next = self.take_request(first).await;
        }
        while next.is_ok() {
            next = match self.wait(&mut requests, stop).await {
                Woken::Stop => Err(End::Quiet),
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
    async fn wait(&mut self, requests: &mut Streaming<DeltaDiscoveryRequest>, stop: &Stop) -> Woken {
        let deadline = self.shown.subscription().next_deadline().map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            () = stop.wait() => Woken::Stop,
            request = requests.message() => Woken::Request(Box::new(request)),
            () = wait_until(deadline), if deadline.is_some() => Woken::Time,
            changed = self.offers.changed(), if self.pushing == Pushing::WaitsForOffer => {
                Woken::OfferChanged(changed.is_ok())
            }
            // A slow client is offered nothing until it has taken what is under way (rule 15).
            room = self.responses.reserve(), if self.pushing == Pushing::WaitsForRoom => match room {
                Ok(_) => Woken::RoomForOffer,
                Err(_) => Woken::Stop,
            },
        }
    }

    async fn take_offer(&mut self) -> Result<(), End> {
        let offer = self.offers.borrow_and_update().clone();
        match offer {
            Offer::Pending => Ok(()),
            Offer::Ready(snapshot) => {
                self.has_snapshot = true;
                self.step(Event::Offer(snapshot)).await
            }
            Offer::Denied { unauthenticated: true, message } => {
                Err(End::Told(Status::unauthenticated(&*message)))
            }
            Offer::Denied { unauthenticated: false, message } => {
                Err(End::Told(Status::permission_denied(&*message)))
            }
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

    async fn take_request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), End> {
        if request.type_url.is_empty() {
            return Err(End::Told(Status::invalid_argument("a request over ADS must have a type_url")));
        }
        if request
            .node
            .as_ref()
            .is_some_and(|node| !node.id.is_empty() && node.id != self.shown.proxy.as_str())
        {
            return Err(End::Told(Status::invalid_argument("node.id must not change within a stream")));
        }
        self.step(Event::Request(convert::request(request))).await
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
                let sent = self.responses.send(Ok(convert::response(&response))).await;
                return sent.map_err(|_| End::Quiet);
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

async fn wait_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
