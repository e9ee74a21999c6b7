//! Stands between an agent and its Consul, and spoils what Consul answers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::anyhow;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use causeway::lifecycle::{self, Task};
use http::{StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, sync::watch};

const INDEX: &str = "x-consul-index";
/// More than the lab's Consul ever answers.
const MAX_BODY_BYTES: usize = 64 << 20;

/// What it does to Consul's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoil {
    /// Nothing.
    Not,
    /// This status, with the body that Consul has for such.
    Status(u16, &'static str),
    /// Lists are empty, and a header says that ACLs made them so.
    Filtered,
    /// JSON that ends in its middle.
    Truncated,
    /// The connection ends in the middle of the body that was announced.
    Broken,
    /// Each index is one below the last.
    IndexBack,
    /// Nothing at all.
    Silent,
}

#[derive(Clone)]
struct Shared {
    consul: String,
    client: Client<HttpConnector, Full<Bytes>>,
    spoil: watch::Receiver<Spoil>,
    spoilt: Arc<AtomicUsize>,
}

pub(super) struct Faulty {
    pub(super) address: SocketAddr,
    spoil: watch::Sender<Spoil>,
    spoilt: Arc<AtomicUsize>,
    _server: Task<()>,
}

impl Faulty {
    /// Passes everything to `consul` (`http://…`) until told otherwise.
    pub(super) async fn start(consul: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (spoil, spoil_receiver) = watch::channel(Spoil::Not);
        let spoilt = Arc::new(AtomicUsize::new(0));
        let shared = Shared {
            consul: consul.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            spoil: spoil_receiver,
            spoilt: spoilt.clone(),
        };
        let router = Router::new().fallback(answer).with_state(shared);
        let _server = lifecycle::spawn("test.faulty", async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, spoil, spoilt, _server })
    }

    /// From now on: also for what Consul is being asked.
    ///
    /// Errors: its server has ended.
    pub(super) fn set(&self, spoil: Spoil) -> anyhow::Result<()> {
        self.spoilt.store(0, Ordering::SeqCst);
        self.spoil.send(spoil).map_err(|_| anyhow!("the proxy before Consul has ended"))
    }

    /// How many answers were spoilt since it was last told.
    pub(super) fn spoilt(&self) -> usize {
        self.spoilt.load(Ordering::SeqCst)
    }
}

/// A question that hangs at Consul is answered anew once answers begin to be spoilt.
async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else { return plain(StatusCode::BAD_REQUEST, "") };
    let mut spoils = shared.spoil.clone();
    loop {
        let spoil = *spoils.borrow_and_update();
        let uri = format!("{}{}", shared.consul, at_once(&parts.uri, spoil));
        let mut asked = http::Request::builder().method(parts.method.clone()).uri(uri);
        for (name, value) in parts.headers.iter().filter(|(name, _)| **name != header::HOST) {
            asked = asked.header(name, value);
        }
        let Ok(asked) = asked.body(Full::new(body.clone())) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        let exchange = async {
            match spoil {
                Spoil::Silent => std::future::pending().await,
                Spoil::Status(status, text) => Ok(plain(StatusCode::from_u16(status)?, text)),
                _ => forward(&shared, asked, spoil).await,
            }
        };
        tokio::select! {
            answer = exchange => {
                if spoil != Spoil::Not {
                    shared.spoilt.fetch_add(1, Ordering::SeqCst);
                }
                return answer.unwrap_or_else(|_| plain(StatusCode::BAD_GATEWAY, "no Consul behind the test"));
            }
            Ok(()) = spoils.changed() => {}
        }
    }
}

/// The path with its query. What is to be spoilt does not wait for a change.
fn at_once(uri: &Uri, spoil: Spoil) -> String {
    const WAITS: [&str; 3] = ["index", "wait", "hash"];
    let waits = |part: &&str| WAITS.contains(&part.split('=').next().unwrap_or(part));
    let query = uri.query().unwrap_or_default().split('&').filter(|part| spoil == Spoil::Not || !waits(part));
    format!("{}?{}", uri.path(), query.collect::<Vec<_>>().join("&"))
}

async fn forward(
    shared: &Shared,
    request: http::Request<Full<Bytes>>,
    spoil: Spoil,
) -> anyhow::Result<Response> {
    let answer = shared.client.request(request).await?;
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    let half = body.slice(..body.len() / 2);
    let body = match spoil {
        Spoil::Filtered if body.starts_with(b"[") => {
            head.headers.insert("x-consul-results-filtered-by-acls", "true".parse()?);
            Body::from("[]")
        }
        Spoil::Truncated => Body::from(half),
        Spoil::Broken => {
            head.headers.insert(header::CONTENT_LENGTH, body.len().max(1).into());
            let ended = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Body::from_stream(tokio_stream::iter([Ok(half), Err(ended)]))
        }
        Spoil::IndexBack => {
            let index = head.headers.get(INDEX).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
            if let Some(index) = index {
                let below = u64::try_from(shared.spoilt.load(Ordering::SeqCst))?;
                head.headers.insert(INDEX, index.saturating_sub(below).max(1).into());
            }
            Body::from(body)
        }
        _ => Body::from(body),
    };
    Ok(Response::from_parts(head, body))
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
