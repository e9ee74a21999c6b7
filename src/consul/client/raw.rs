//! Requests as others made them, and bodies as they come.
//!
//! [`Client::open`] sends any method, path, query, headers and body, and gives the body piece by piece, so that its
//! length bounds no memory. Whose rights a request has is said each time ([`Bearer`]): this client's own token and its
//! own HTTP authentication go out with [`Bearer::Own`] alone.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::{
    consul::client::{Client, ClientError, Reply, causes, secret_header},
    model::secret::SecretText,
};

/// Where Consul looks for a token.
const TOKEN_HEADER: &str = "x-consul-token";

/// Headers that are about one connection and not about what is carried over it (RFC 9110, 7.6.1).
const OF_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Whose rights a request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// This agent's own.
    Own,
    /// Those of whoever has this token.
    Token(SecretText),
    /// No token is sent: the Consul agent takes its default token (`acl.tokens.default`), if it has one.
    Nobody,
}

/// A request.
#[derive(Clone)]
pub struct RawRequest {
    /// The method.
    pub method: Method,
    /// Path and query, encoded. A token has no place in it.
    pub target: String,
    /// What else is sent. Tokens among them are left out, in favour of `bearer`, and so is what is about a connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whose rights it has.
    pub bearer: Bearer,
}

/// An answer whose body is still to come.
pub struct OpenReply {
    /// HTTP status.
    pub status: StatusCode,
    /// All headers but those about the connection.
    pub headers: HeaderMap,
    body: Incoming,
    act: String,
    token: Option<SecretText>,
}

impl Client {
    /// Sends a request and waits for the answer's head, for so long. Dropping it closes an HTTP/1.1 connection and
    /// resets an HTTP/2 stream.
    ///
    /// # Errors
    /// All but [`ClientError::Cut`] and [`ClientError::Deadline`] mean that nothing was sent.
    pub async fn open(&self, request: RawRequest, deadline: Duration) -> Result<OpenReply, ClientError> {
        // Without the query: it may hold what a caller took for a token.
        let path = request.target.split('?').next().unwrap_or_default();
        let act = format!("{} {path}", request.method);
        let token = match &request.bearer {
            Bearer::Own => self.0.credentials.token(),
            Bearer::Token(token) => Some(token.clone()),
            Bearer::Nobody => None,
        };
        let request = self.raw(request, token.as_ref())?;
        let http = self.http();
        match tokio::time::timeout(deadline, http.request(request)).await {
            Ok(Ok(reply)) => {
                let (head, body) = reply.into_parts();
                let mut headers = head.headers;
                leave_out(&mut headers);
                Ok(OpenReply { status: head.status, headers, body, act, token })
            }
            Ok(Err(error)) => Err(self.transport(&error, &act)),
            Err(_) => Err(ClientError::Deadline { act, deadline }),
        }
    }

    fn raw(&self, raw: RawRequest, token: Option<&SecretText>) -> Result<Request<Full<Bytes>>, ClientError> {
        let RawRequest { method, target, mut headers, body, bearer } = raw;
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let uri = format!("{}{target}", self.base());
        leave_out(&mut headers);
        leave_out_tokens(&mut headers);
        // The length is the body's, which is what it is.
        headers.remove(header::CONTENT_LENGTH);
        if let Some(token) = token {
            headers.insert(TOKEN_HEADER, secret_header(token.expose(), "token")?);
        }
        if let (Bearer::Own, Some(basic)) = (bearer, self.0.credentials.basic()) {
            headers.insert(header::AUTHORIZATION, secret_header(basic.expose(), "HTTP authentication")?);
        }
        let request = Request::builder().method(method).uri(uri).body(Full::new(body));
        let mut request = request.map_err(|_| ClientError::Path { path })?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

impl OpenReply {
    /// What the headers say, without a body.
    pub fn head(&self) -> Reply {
        Reply::read(self.act.clone(), self.status, &self.headers, Bytes::new(), self.token.clone())
    }

    /// The next piece of the body, which has so long to come; none behind its end. An end that is no proper one is an
    /// error.
    pub async fn piece(&mut self, patience: Duration) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = match tokio::time::timeout(patience, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Err(ClientError::Deadline { act: self.act.clone(), deadline: patience }),
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame =
                frame.map_err(|error| ClientError::Cut { act: self.act.clone(), reason: causes(&error) })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, up to `limit` bytes, within `deadline`.
    pub async fn whole(&mut self, limit: usize, deadline: Duration) -> Result<Bytes, ClientError> {
        let collect = async {
            let mut bytes = BytesMut::new();
            while let Some(piece) = self.piece(deadline).await? {
                if bytes.len() + piece.len() > limit {
                    return Err(ClientError::TooLong { act: self.act.clone(), limit });
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes.freeze())
        };
        let whole = tokio::time::timeout(deadline, collect).await;
        whole.unwrap_or_else(|_| Err(ClientError::Deadline { act: self.act.clone(), deadline }))
    }

    /// The answer with its whole body, as for [`OpenReply::whole`].
    pub async fn reply(mut self, limit: usize, deadline: Duration) -> Result<Reply, ClientError> {
        let body = self.whole(limit, deadline).await?;
        Ok(Reply::read(self.act, self.status, &self.headers, body, self.token))
    }
}

/// Takes out what is about the connection, and what `Connection` says is.
fn leave_out(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
}

/// A token is where `bearer` says, and nowhere else. Other authentication is for a proxy before Consul.
fn leave_out_tokens(headers: &mut HeaderMap) {
    headers.remove(TOKEN_HEADER);
    let is_bearer = |value: &http::HeaderValue| {
        value.as_bytes().get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"bearer "))
    };
    if headers.get_all(header::AUTHORIZATION).iter().any(is_bearer) {
        headers.remove(header::AUTHORIZATION);
    }
}
