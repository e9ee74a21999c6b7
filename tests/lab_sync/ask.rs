//! One HTTP request over a connection of its own, with the answer as it came: no library tidies headers up.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than any answer that is waited for here.
const ANSWER: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Nobody listened: nothing was asked.
    NotSent(String),
    /// It was asked, and nobody knows what came of it.
    Lost(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(reason) => write!(f, "not sent: {reason}"),
            Self::Lost(reason) => write!(f, "no answer: {reason}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In their order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The address without the token in it, `http://TOKEN@address:port`, and the token.
pub(super) fn without_token(address: &str) -> (String, Option<&str>) {
    match address.strip_prefix("http://").and_then(|rest| rest.split_once('@')) {
        Some((token, rest)) => (format!("http://{rest}"), Some(token)),
        None => (address.to_owned(), None),
    }
}

/// Asks `http://address:port/path`, or `http://TOKEN@address:port/path` with a token.
pub(crate) fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, String> {
    ask_within(ANSWER, method, url, headers, body).map_err(|error| error.to_string())
}

/// The same, and no longer than this between two signs of life.
pub(crate) fn ask_within(
    limit: Duration,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Reply, NoAnswer> {
    let not_sent = |reason: String| NoAnswer::NotSent(reason);
    let (url, token) = without_token(url);
    let rest = url.strip_prefix("http://").ok_or_else(|| not_sent(format!("{url} is not plain HTTP")))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let token = token.map(|token| ("X-Consul-Token", token));
    let headers: Vec<(&str, &str)> = headers.iter().copied().chain(token).collect();
    let address: SocketAddr = host.parse().map_err(|error| not_sent(format!("{host}: {error}")))?;
    let mut stream =
        TcpStream::connect_timeout(&address, limit).map_err(|error| not_sent(error.to_string()))?;
    let mut exchange = || -> std::io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(limit))?;
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
        );
        // At once: a server that answers before it has read the body would reset the connection over what is left of it.
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| NoAnswer::Lost(error.to_string()))?;
    read(&answer).ok_or_else(|| NoAnswer::Lost("no whole answer".to_owned()))
}

fn read(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<_> = lines.filter_map(header).collect();
    let mut reply = Reply { status, headers, body: answer[end + 4..].to_vec() };
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = joined(&reply.body)?;
    }
    Some(reply)
}

fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = chunks.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..line]).ok()?.trim(), 16).ok()?;
        chunks = chunks.get(line + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunks.get(..length)?);
        chunks = chunks.get(length + 2..)?;
    }
}
