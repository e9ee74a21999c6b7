//! Answers over HTTP, and what is no answer.

use axum::{body::Body, http::StatusCode, response::Response};
use bytes::Bytes;

use super::Bad;
use crate::sync::consul_model::Told;

/// What says no by its status.
pub(super) fn told(bad: Bad) -> Response {
    match bad {
        Bad::Missing => plain(404, ""),
        Bad::Elsewhere => plain(404, "404 page not found"),
        Bad::Denied => plain(403, "Permission denied"),
        _ => plain(500, "rpc error making call: EOF"),
    }
}

pub(super) fn plain(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(super) fn with(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

/// As Consul answers.
pub(super) fn good(told: Told) -> Response {
    let response = with(plain(told.status, told.body), "x-consul-knownleader", "true");
    let response = with(response, "x-consul-lastcontact", "0");
    match told.index {
        Some(index) => with(response, "x-consul-index", &index.to_string()),
        None => response,
    }
}

/// The same with half of the body, and then the connection ends.
pub(super) fn cut(response: Response, body: &Bytes) -> Response {
    let half = body.slice(..body.len() / 2);
    let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
    response.map(|_| Body::from_stream(futures_util::stream::iter(pieces)))
}
