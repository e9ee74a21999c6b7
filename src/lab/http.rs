//! Owns one plain HTTP request with a deadline, each on a connection of its own: what the lab asks of Consul,
//! Causeway and Envoy while it waits, and what the dashboard asks once a second. It must not know what is asked.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::de::DeserializeOwned;

/// More than any answer the lab asks for; Envoy's `/clusters` is the largest.
const BODY_BYTES: usize = 8 << 20;

/// Why there is no answer, as text that goes behind "last answer: ".
pub type Reason = String;

/// The body of a `GET` answered with 200 before the deadline.
///
/// Errors: no connection, no whole answer in time, or another status; told with the address.
pub async fn get(url: &str, deadline: Duration) -> Result<Bytes, Reason> {
    request(Method::GET, url, Bytes::new(), deadline).await
}

/// As [`get`], read as JSON.
///
/// Errors: as [`get`], and an answer of another shape.
pub async fn get_json<T: DeserializeOwned>(url: &str, deadline: Duration) -> Result<T, Reason> {
    let body = get(url, deadline).await?;
    serde_json::from_slice(&body).map_err(|error| format!("{url}: unreadable answer: {error}"))
}

/// The body of a `PUT` answered with 200 before the deadline.
///
/// Errors: as [`get`].
pub async fn put(url: &str, body: Bytes, deadline: Duration) -> Result<Bytes, Reason> {
    request(Method::PUT, url, body, deadline).await
}

async fn request(method: Method, url: &str, body: Bytes, deadline: Duration) -> Result<Bytes, Reason> {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .body(Full::new(body))
        .map_err(|error| format!("{url}: {error}"))?;
    match tokio::time::timeout(deadline, send(request)).await {
        Err(_) => Err(format!("{url}: no answer within {} ms", deadline.as_millis())),
        Ok(Err(reason)) => Err(format!("{url}: {reason}")),
        Ok(Ok((StatusCode::OK, body))) => Ok(body),
        Ok(Ok((status, body))) => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
            Err(format!("{url}: {} {text}", status.as_u16()))
        }
    }
}

async fn send(request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Reason> {
    // No pool: a fresh connection each time shows the path as it is now, not as it was when it was opened.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
    Ok((status, body.map_err(|error| chain(&*error))?.to_bytes()))
}

/// An error and its causes in one line: hyper's own text alone says only "connect".
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}
