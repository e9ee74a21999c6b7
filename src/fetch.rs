//! One request over plain HTTP with a deadline, on a connection of its own: for Envoy's admin interface, the agent's own
//! HTTP interface, and what the lab looks at. What is shown is the path as it is now, not as it was when some pooled
//! connection was opened. The agent reads Consul through a client of its own.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header::HOST, http::request,
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// The largest answer taken: a dump of a proxy with thousands of clusters is some tens of MB.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// How much of an unwanted answer an error shows.
const EXCERPT_BYTES: usize = 200;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Gets `url`. The error is the reason alone; the caller knows who was asked and what to do about it.
pub async fn get(url: &str, deadline: Duration) -> Result<Answer, String> {
    get_with(url, &[], deadline).await
}

/// The same with headers of the caller's. No error shows their values.
pub async fn get_with(url: &str, headers: &[(&str, &str)], deadline: Duration) -> Result<Answer, String> {
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(request, Bytes::new(), deadline).await
}

/// One request of any method, with headers and a body of the caller's. Errors are as for [`get`], and show neither.
pub async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    deadline: Duration,
) -> Result<Answer, String> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(request, body, deadline).await
}

/// Posts nothing to `url`, as Envoy's admin interface wants what changes something. Errors are as for [`get`].
pub async fn post(url: &str, deadline: Duration) -> Result<Answer, String> {
    ask(Request::post(url), Bytes::new(), deadline).await
}

async fn ask(request: request::Builder, body: Bytes, deadline: Duration) -> Result<Answer, String> {
    let request = request.body(Full::new(body)).map_err(|error| format!("not a URL: {error}"))?;
    let asking = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request).await.map_err(|error| with_causes(&error))?;
        whole(response).await
    };
    within(deadline, asking).await
}

/// Asks for `path` over the Unix socket. Errors are as for [`get`].
pub async fn over_unix(
    socket: &Path,
    method: Method,
    path: &str,
    deadline: Duration,
) -> Result<Answer, String> {
    let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|error| format!("not a path of a URL: {error}"))?;
    let asking = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| with_causes(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| with_causes(&error))?;
        // The sender goes with the answer, which ends the connection.
        let exchange = async move {
            whole(sender.send_request(request).await.map_err(|error| with_causes(&error))?).await
        };
        tokio::join!(exchange, connection).0
    };
    within(deadline, asking).await
}

async fn whole(response: Response<Incoming>) -> Result<Answer, String> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    Ok(Answer { status, body: body.map_err(|error| error.to_string())?.to_bytes() })
}

async fn within(
    deadline: Duration,
    asking: impl Future<Output = Result<Answer, String>>,
) -> Result<Answer, String> {
    tokio::time::timeout(deadline, asking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {deadline:?}")))
}

/// Gets `url` and reads the answer as JSON. The error names the address: no answer in time, a status other than 200,
/// or text of another shape.
pub async fn get_json<T: DeserializeOwned>(url: &str, deadline: Duration) -> Result<T, String> {
    get_json_with(url, &[], deadline).await
}

/// The same with headers of the caller's.
pub async fn get_json_with<T: DeserializeOwned>(
    url: &str,
    headers: &[(&str, &str)],
    deadline: Duration,
) -> Result<T, String> {
    let answer = get_with(url, headers, deadline).await.map_err(|reason| format!("{url}: {reason}"))?;
    if answer.status != StatusCode::OK {
        let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(EXCERPT_BYTES)]).into_owned();
        return Err(format!("{url}: {} {}", answer.status.as_u16(), text.trim()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: unreadable answer: {error}"))
}

/// `text` as one segment of a URL's path.
pub fn path_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An error with its causes: hyper's own text alone is only "client error (Connect)".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_only_what_a_path_can_hold() {
        assert_eq!(path_segment("web-1.a_b~c"), "web-1.a_b~c");
        assert_eq!(path_segment("web/1 ?ü"), "web%2F1%20%3F%C3%BC");
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_its_cause() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reason = get(&format!("http://{closed}/"), Duration::from_secs(5)).await.unwrap_err();
        assert!(reason.contains("refused"), "{reason}");
    }
}
