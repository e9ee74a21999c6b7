//! The client: one request to the local Consul agent over HTTP/1.1, HTTP/2, TLS or a Unix socket, with a deadline.
//!
//! It does not retry and it does not interpret: [`crate::consul::index`] says when to ask again, and
//! [`crate::consul::wire`] what the answer means. Token and certificate files are looked at before each request and
//! read again when they changed.

mod connect;
mod credentials;
mod raw;
mod reply;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::{
        connect::{Http, http_client},
        credentials::Credentials,
    },
    model::secret::SecretText,
    tls::TlsError,
};

pub use crate::consul::client::{
    raw::{Bearer, OpenReply, RawRequest},
    reply::Reply,
};

/// The longest body that is read. A catalog of ten thousand instances takes about 10 MiB.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// A client of one Consul agent. Clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    settings: ConsulSettings,
    credentials: Credentials,
    http: ArcSwap<Http>,
}

/// Why a request has no usable answer. Never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS settings cannot be used.
    #[error("set up TLS to Consul: {0}")]
    Tls(#[from] TlsError),
    /// The token file cannot be read.
    #[error("read the Consul token file {path}: {reason}; check the path and that this user may read it")]
    TokenFile {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A setting cannot be sent over HTTP. The value is not shown.
    #[error("the Consul {what} holds characters that HTTP cannot carry; correct it")]
    Unsendable {
        /// Which one.
        what: &'static str,
    },
    /// The path is no HTTP path.
    #[error("`{path}` is no path of Consul's API; encode its parts with consul::client::path")]
    Path {
        /// The path.
        path: String,
    },
    /// No connection came about.
    #[error("connect to Consul at {address}: {reason}; {remedy}")]
    Connect {
        /// Where.
        address: String,
        /// What the system or TLS says.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The connection ended before the answer did.
    #[error("{act}: the connection ended before the answer did: {reason}")]
    Cut {
        /// Method and path.
        act: String,
        /// What HTTP says.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("{act}: no answer within {} ms; Consul or the way to its datacenter hangs", deadline.as_millis())]
    Deadline {
        /// Method and path.
        act: String,
        /// The time it had.
        deadline: Duration,
    },
    /// The answer is too long.
    #[error("{act}: the answer is longer than {limit} bytes")]
    TooLong {
        /// Method and path.
        act: String,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// Consul refused.
    #[error("{act}: status {status}: {excerpt}{remedy}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Method and path.
        act: String,
        /// The start of the body.
        excerpt: String,
        /// What to do about it, beginning with `; `, or nothing.
        remedy: &'static str,
    },
    /// The body is not the JSON that was expected.
    #[error("{act}: the answer is not understood: {reason}; is this Consul's HTTP API?")]
    Json {
        /// Method and path.
        act: String,
        /// Where it went wrong.
        reason: String,
    },
}

/// A path out of its parts, each percent-encoded, so that a name may hold any byte: `/v1/agent/service/a%2Fb`.
pub fn path(parts: &[&str]) -> String {
    parts.iter().fold(String::new(), |path, part| path + "/" + &encode(part))
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Client {
    /// A client for these settings. Reads token and TLS files; connects only when something is asked. Inside a Tokio
    /// runtime.
    pub fn new(settings: ConsulSettings) -> Result<Self, ClientError> {
        let credentials = Credentials::new(&settings)?;
        let http = ArcSwap::from_pointee(http_client(&settings)?);
        Ok(Self(Arc::new(Shared { settings, credentials, http })))
    }

    /// A client over connections that are made elsewhere.
    #[cfg(test)]
    pub(crate) fn over(settings: ConsulSettings, dial: connect::Dial) -> Result<Self, ClientError> {
        let credentials = Credentials::new(&settings)?;
        let http = ArcSwap::from_pointee(connect::http_client_over(dial));
        Ok(Self(Arc::new(Shared { settings, credentials, http })))
    }

    /// What the client was made of.
    pub fn settings(&self) -> &ConsulSettings {
        &self.0.settings
    }

    /// GET. Any HTTP status is a reply. `path` is already encoded (see [`path`]); `query` is encoded here.
    pub async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        self.ask(Method::GET, path, query, None, deadline).await
    }

    /// PUT, with a JSON body or none.
    pub async fn put(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        self.ask(Method::PUT, path, query, body, deadline).await
    }

    /// POST, with a JSON body or none.
    pub async fn post(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        self.ask(Method::POST, path, query, body, deadline).await
    }

    /// DELETE.
    pub async fn delete(
        &self,
        path: &str,
        query: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        self.ask(Method::DELETE, path, query, None, deadline).await
    }

    /// One exchange; the deadline covers connection, headers and body. Dropping it closes an HTTP/1.1 connection and
    /// resets an HTTP/2 stream.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        self.ask_as(None, method, path, query, body, deadline).await
    }

    /// The same with the rights of another token than this client's own.
    pub(crate) async fn ask_as(
        &self,
        token: Option<&SecretText>,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        let act = format!("{method} {path}");
        let token = token.cloned().or_else(|| self.0.credentials.token());
        let request = self.request(token.as_ref(), method, path, query, body)?;
        match tokio::time::timeout(deadline, self.exchange(request, &act, token)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::Deadline { act, deadline }),
        }
    }

    fn request(
        &self,
        token: Option<&SecretText>,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut uri = format!("{}{path}", self.base());
        for (place, (key, value)) in query.iter().enumerate() {
            uri.push(if place == 0 { '?' } else { '&' });
            uri.push_str(&encode(key));
            uri.push('=');
            uri.push_str(&encode(value));
        }
        let mut request = Request::builder().method(method).uri(uri);
        let bytes = match body {
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(json.to_string())
            }
            None => Bytes::new(),
        };
        let mut request =
            request.body(Full::new(bytes)).map_err(|_| ClientError::Path { path: path.to_owned() })?;
        let headers = request.headers_mut();
        if let Some(token) = token {
            headers.insert("x-consul-token", secret_header(token.expose(), "token")?);
        }
        if let Some(basic) = self.0.credentials.basic() {
            headers.insert(header::AUTHORIZATION, secret_header(basic.expose(), "HTTP authentication")?);
        }
        Ok(request)
    }

    /// Scheme and authority of every URI.
    fn base(&self) -> String {
        match &self.0.settings.address {
            ConsulAddress::Http { authority } => format!("http://{authority}"),
            ConsulAddress::Https { authority } => format!("https://{authority}"),
            ConsulAddress::Unix { .. } => "http://localhost".into(),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        act: &str,
        token: Option<SecretText>,
    ) -> Result<Reply, ClientError> {
        let reply = self.http().request(request).await.map_err(|error| self.transport(&error, act))?;
        let (head, mut body) = reply.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| ClientError::Cut { act: act.to_owned(), reason: causes(&error) })?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_BODY_BYTES {
                    return Err(ClientError::TooLong { act: act.to_owned(), limit: MAX_BODY_BYTES });
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Reply::new(act.to_owned(), &head, bytes.freeze(), token))
    }

    /// The connections in use; made anew when a TLS file changed. New files that cannot be used are reported and the
    /// old ones stay in use.
    fn http(&self) -> Arc<Http> {
        if self.0.credentials.tls_changed() {
            match http_client(&self.0.settings) {
                Ok(http) => {
                    tracing::info!("Consul TLS files changed and were read again");
                    self.0.http.store(Arc::new(http));
                }
                Err(error) => {
                    tracing::warn!(%error, "Consul TLS files changed and cannot be used; the old ones stay in use")
                }
            }
        }
        self.0.http.load_full()
    }

    fn transport(&self, error: &hyper_util::client::legacy::Error, act: &str) -> ClientError {
        if error.is_connect() {
            let address = self.0.settings.address.to_string();
            ClientError::Connect { address, reason: causes(error), remedy: connect::remedy(error) }
        } else {
            ClientError::Cut { act: act.to_owned(), reason: causes(error) }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.0.settings.address)
    }
}

fn secret_header(value: &str, what: &'static str) -> Result<HeaderValue, ClientError> {
    let mut header = HeaderValue::from_str(value).map_err(|_| ClientError::Unsendable { what })?;
    header.set_sensitive(true);
    Ok(header)
}

/// The innermost causes say what happened; the outermost only that it did.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
