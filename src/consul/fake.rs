//! A Consul made of a function, for the tests of the client and of the watches.

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    lifecycle::{self, Task},
};

/// What the fake was asked.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) is_h2: bool,
}

impl Asked {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;
type Handler = Arc<dyn Fn(Asked) -> Answering + Send + Sync>;

/// Dropping it closes everything.
pub(crate) struct Fake {
    pub(crate) settings: ConsulSettings,
    pub(crate) connections: Arc<AtomicUsize>,
    _task: Task<()>,
}

enum Listener {
    Tcp(TcpListener, usize),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
}

pub(crate) fn reply(status: u16, index: u64, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut reply = Response::builder().status(status);
    if index > 0 {
        reply = reply.header("x-consul-index", index);
    }
    reply.body(Full::new(body.into())).unwrap()
}

pub(crate) fn handler<F, R>(handler: F) -> Handler
where
    F: Fn(Asked) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    Arc::new(move |asked| Box::pin(handler(asked)))
}

impl Fake {
    /// Over plain TCP; connections beyond `limit` are closed at once, as Consul 1.8 does.
    pub(crate) async fn tcp(limit: usize, handler: Handler) -> Self {
        Self::tcp_at("127.0.0.1:0".parse().unwrap(), limit, handler).await
    }

    pub(crate) async fn tcp_at(address: SocketAddr, limit: usize, handler: Handler) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = ConsulAddress::Http { authority: listener.local_addr().unwrap().to_string() };
        Self::start(address, Listener::Tcp(listener, limit), handler)
    }

    pub(crate) async fn tls(acceptor: TlsAcceptor, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ConsulAddress::Https { authority: listener.local_addr().unwrap().to_string() };
        Self::start(address, Listener::Tls(listener, acceptor), handler)
    }

    pub(crate) fn unix(path: &Path, handler: Handler) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::start(ConsulAddress::Unix { path: path.to_owned() }, Listener::Unix(listener), handler)
    }

    pub(crate) fn authority(&self) -> SocketAddr {
        match &self.settings.address {
            ConsulAddress::Http { authority } | ConsulAddress::Https { authority } => {
                authority.parse().unwrap()
            }
            ConsulAddress::Unix { .. } => panic!("a socket has no authority"),
        }
    }

    fn start(address: ConsulAddress, listener: Listener, handler: Handler) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let task = lifecycle::spawn("fake.consul", accept(listener, handler, connections.clone()));
        Self { settings: ConsulSettings { address, ..ConsulSettings::default() }, connections, _task: task }
    }
}

async fn accept(listener: Listener, handler: Handler, connections: Arc<AtomicUsize>) {
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        connections.store(served.len(), Ordering::SeqCst);
        match &listener {
            Listener::Tcp(listener, limit) => {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                while served.try_join_next().is_some() {}
                if served.len() < *limit {
                    served.spawn(serve(stream, false, handler.clone()));
                }
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await.unwrap();
                served.spawn(serve(stream, false, handler.clone()));
            }
            Listener::Tls(listener, acceptor) => {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    served.spawn(serve(stream, is_h2, handler.clone()));
                }
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, is_h2: bool, handler: Handler) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let asked = Asked {
                method: head.method,
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                headers: head.headers,
                body,
                is_h2,
            };
            Ok::<_, hyper::Error>(handler(asked).await)
        }
    });
    let io = TokioIo::new(stream);
    let _ = if is_h2 {
        conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        conn::http1::Builder::new().serve_connection(io, service).await
    };
}
