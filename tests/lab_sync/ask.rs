//! One HTTP request over a connection of its own, with the answer as it came: no library tidies headers up.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than any answer that is waited for here.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// In their order, names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
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
pub(super) fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, String> {
    let (url, token) = without_token(url);
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} is not plain HTTP"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let token = token.map(|token| ("X-Consul-Token", token));
    let headers: Vec<(&str, &str)> = headers.iter().copied().chain(token).collect();
    let address: SocketAddr = host.parse().map_err(|error| format!("{host}: {error}"))?;
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    read(&exchange().map_err(|error| error.to_string())?).ok_or_else(|| "no whole answer".to_owned())
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
