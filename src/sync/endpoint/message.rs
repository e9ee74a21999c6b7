//! A request and its answer, free of any HTTP library's bodies, so that both travel between agents. Pure.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::model::{name::Datacenter, secret::SecretText};

/// Where clients put their token, beside `?token=` and `Authorization: Bearer`.
const TOKEN_HEADER: &str = "x-consul-token";

/// Marks what an agent that takes no part in replication passes to one that does: it is not passed on again.
pub const PASSED: &str = "x-sync-passed";

/// Headers that belong to one connection and go no further.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What has no end, and says nothing while there is nothing to say.
const ENDLESS: [&str; 2] = ["/v1/agent/metrics/stream", "/v1/agent/monitor"];

/// Consul says so of every answer, since it compresses those that may be.
const VARY: &str = "Accept-Encoding";

/// A request. Its `Debug` shows neither body nor token.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query as the client sent them, without its token.
    pub target: String,
    /// The path with its escapes decoded, as Consul reads it.
    pub path: String,
    /// The query decoded, in its order, without the token. A parameter without `=` has an empty value.
    pub query: Vec<(String, String)>,
    /// Whether the query as it was sent, its token included, has a bare `;`, which some readers take for a separator.
    pub has_semicolon: bool,
    /// Names in lower case; neither the token nor what belongs to the connection.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The client's own token; nobody in particular without one.
    pub token: Option<SecretText>,
    /// Who passed it on; none when it came from the client itself.
    pub origin: Option<Origin>,
}

/// Where a request that another agent passed on comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The datacenter where the client asked.
    pub datacenter: Datacenter,
    /// The request's id, the same in every try.
    pub request_id: String,
    /// How often it was passed on.
    pub hops: u32,
}

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A request as a client sent it: takes the token from where Consul looks for it, in its order.
    pub fn new(method: Method, target: &str, headers: Vec<(String, String)>, body: Bytes) -> Self {
        let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let mut token = None;
        let mut kept = Vec::new();
        let mut query = Vec::new();
        for part in raw_query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decoded(name, true), decoded(value, true));
            if name == "token" {
                // Consul takes the first of several.
                token = token.or(Some(value));
            } else {
                kept.push(part);
                query.push((name, value));
            }
        }
        let path = decoded(raw_path, false);
        let target =
            if kept.is_empty() { raw_path.to_owned() } else { format!("{raw_path}?{}", kept.join("&")) };
        let mut request = Self {
            method,
            target,
            path,
            query,
            has_semicolon: raw_query.contains(';'),
            headers: Vec::new(),
            body,
            token: None,
            origin: None,
        };
        let in_headers = request.take_headers(headers);
        request.token =
            token.filter(|token| !token.is_empty()).or(in_headers).map(|token| SecretText::from(&token));
        request
    }

    /// Keeps what may go on; gives the token that was among them.
    fn take_headers(&mut self, headers: Vec<(String, String)>) -> Option<String> {
        let (mut own, mut bearer) = (None, None);
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            let scheme = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            match (name.as_str(), scheme) {
                (TOKEN_HEADER, _) => own = own.or(Some(value)),
                ("authorization", Some((_, token))) => bearer = bearer.or(Some(token.trim().to_owned())),
                _ if HOP_BY_HOP.contains(&name.as_str()) => {}
                _ => self.headers.push((name, value)),
            }
        }
        own.filter(|token| !token.is_empty()).or(bearer).filter(|token| !token.is_empty())
    }

    /// The first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether a query parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    /// The first value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether it waits for something to happen, or has an answer without an end.
    pub fn is_waiting(&self) -> bool {
        self.is_endless()
            || self.param("index").or_else(|| self.param("hash")).is_some_and(|mark| mark != "0")
    }

    /// Whether its answer has no end.
    pub fn is_endless(&self) -> bool {
        ENDLESS.contains(&self.path.as_str())
    }

    /// The same without a header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }
}

impl Request {
    /// The same without a query parameter.
    #[must_use]
    pub fn without_param(mut self, name: &str) -> Self {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let is_kept =
            |part: &&str| decoded(part.split_once('=').map_or(*part, |(name, _)| name), true) != name;
        let kept: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).filter(is_kept).collect();
        self.target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
        self.query.retain(|(given, _)| given != name);
        self
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// An answer in plain text, as Consul words its errors.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::from(text.into()) }
            .with("content-type", "text/plain; charset=utf-8")
            .with("vary", VARY)
    }

    /// An answer in JSON.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
            .with("content-type", "application/json")
            .with("vary", VARY)
    }

    /// The same with this header, instead of another of its name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The first value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("bytes", &self.body.len())
            .finish()
    }
}

impl From<http::Request<Bytes>> for Request {
    fn from(request: http::Request<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        Self::new(head.method, target, texts(&head.headers), body)
    }
}

impl From<Response> for http::Response<Bytes> {
    fn from(response: Response) -> Self {
        let mut answer = Self::new(response.body);
        *answer.status_mut() =
            StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in &response.headers {
            if HOP_BY_HOP.contains(&name.as_str()) {
                continue;
            }
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                answer.headers_mut().append(name, value);
            }
        }
        answer
    }
}

/// Those that are text.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// Text with its `%XX` decoded, and in queries `+` as a space. What is no escape stays as it is; bytes that are no UTF-8
/// become U+FFFD.
fn decoded(text: &str, is_query: bool) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 2;
            }
            (b'+', _) if is_query => plain.push(b' '),
            (byte, _) => plain.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests;
