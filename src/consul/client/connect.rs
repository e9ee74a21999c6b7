//! Connections to Consul: TCP without delay, TLS with HTTP/2 offered, Unix socket; and the pool over them.

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{CertificateError, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::ClientError,
    tls::{self, ClientFiles},
};

/// The pool of connections.
pub(crate) type Http = Client<Connector, Full<Bytes>>;

/// An idle connection is closed before Consul's own idle timeout could race with a new request.
const IDLE: Duration = Duration::from_secs(60);
/// All polls share one HTTP/2 connection: a dead one must not take them all into their deadlines.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// With HTTP/2: what an answer may send before any of it is taken.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// What all answers together may send: as many as Consul takes connections from one address, so that answers which
/// nobody takes hold up no other.
const CONNECTION_WINDOW_BYTES: u32 = 200 * STREAM_WINDOW_BYTES;

/// The TLS files among the settings; none unless the address asks for TLS.
pub(crate) fn tls_files(settings: &ConsulSettings) -> ClientFiles {
    let tls = &settings.tls;
    match settings.address {
        ConsulAddress::Https { .. } => ClientFiles {
            ca_file: tls.ca_file.clone(),
            ca_path: tls.ca_path.clone(),
            cert_file: tls.cert_file.clone(),
            key_file: tls.key_file.clone(),
            verify: tls.verify,
        },
        _ => ClientFiles { ca_file: None, ca_path: None, cert_file: None, key_file: None, verify: true },
    }
}

/// What to do about a connection that did not come about: TLS has reasons of its own.
pub(crate) fn remedy(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let Some(tls) = tls_cause(error) else { return "check that the agent runs and listens there" };
    match tls {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "set [consul] tls_server_name (CONSUL_TLS_SERVER_NAME) to a name that the certificate has"
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "renew Consul's certificate, or set this machine's clock"
            }
            _ => {
                "let [consul] ca_file or ca_path (CONSUL_CACERT, CONSUL_CAPATH) hold the CA of Consul's certificate"
            }
        },
        rustls::Error::InvalidMessage(_) => {
            "check that this is Consul's HTTPS port, or write http:// in its address"
        }
        rustls::Error::AlertReceived(_) => {
            "Consul refused this side: check [consul] cert_file and key_file (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY)"
        }
        _ => "check the TLS settings of [consul] and those of Consul",
    }
}

/// The TLS error among the causes. An `io::Error` does not give the error it wraps as its source.
fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = wrapped.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref()) {
            return Some(tls);
        }
        next = cause.source();
    }
    None
}

/// A pool for these settings; reads the TLS files.
pub(crate) fn http_client(settings: &ConsulSettings) -> Result<Http, ClientError> {
    let way = match &settings.address {
        ConsulAddress::Unix { path } => Way::Unix(path.clone()),
        ConsulAddress::Http { authority } => Way::Tcp(authority.clone()),
        ConsulAddress::Https { authority } => {
            let config = tls::client_config(&tls_files(settings), &[b"h2", b"http/1.1"])?;
            let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
            let name = tls::server_name(settings.tls.server_name.as_deref().unwrap_or(host))?;
            Way::Tls(authority.clone(), name, TlsConnector::from(Arc::new(config)))
        }
    };
    Ok(pool(way))
}

/// A pool of connections that are made elsewhere.
#[cfg(test)]
pub(super) fn http_client_over(dial: Dial) -> Http {
    pool(Way::Given(dial))
}

fn pool(way: Way) -> Http {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_PATIENCE)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build(Connector(Arc::new(way)))
}

/// Opens connections to the one agent of the settings, whatever URI is asked for.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Way>);

enum Way {
    Tcp(String),
    Tls(String, ServerName<'static>, TlsConnector),
    Unix(PathBuf),
    #[cfg(test)]
    Given(Dial),
}

/// Makes a connection within the process.
#[cfg(test)]
pub(crate) type Dial = Box<dyn Fn() -> io::Result<tokio::io::DuplexStream> + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let way = self.0.clone();
        Box::pin(async move { open(&way).await.map(TokioIo::new) })
    }
}

async fn open(way: &Way) -> io::Result<Stream> {
    match way {
        Way::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        Way::Tcp(authority) => Ok(Stream::Tcp(tcp(authority).await?)),
        Way::Tls(authority, name, connector) => {
            let stream = connector.connect(name.clone(), tcp(authority).await?).await?;
            Ok(Stream::Tls(Box::new(stream)))
        }
        #[cfg(test)]
        Way::Given(dial) => Ok(Stream::Given(dial()?)),
    }
}

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One open connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    #[cfg(test)]
    Given(tokio::io::DuplexStream),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Unix($stream) => $call,
            #[cfg(test)]
            Stream::Given($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
