//! The answering half: each path, its method, and what is said to a request that cannot be served.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::json;

use crate::{
    api::{
        Sources,
        kv::{self, Kv},
        page,
    },
    telemetry::metrics,
};

/// A log filter is a line; nothing else is ever sent here.
const MAX_BODY_BYTES: usize = 4096;

/// The page is one document with its own style and nothing else: no script, no request elsewhere.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// Who asks; set for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

type Shared = State<Arc<dyn Sources>>;

/// Without a [`Kv`] there is nothing below `/v1/`.
pub(crate) fn router(sources: Arc<dyn Sources>, kv: Option<Arc<dyn Kv>>) -> Router {
    kv.map_or_else(Router::new, kv::router).merge(own(sources))
}

fn own(sources: Arc<dyn Sources>) -> Router {
    Router::new()
        // Who types just the address wants to look.
        .route("/", get(|| async { Redirect::temporary("/status") }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .route("/status/proxies/{proxy}/config", get(proxy_config))
        .route("/log-level", get(log_level).put(set_log_level))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(sources)
}

pub(crate) fn too_slow() -> Response {
    refusal(StatusCode::REQUEST_TIMEOUT, "the request did not come to its end in time; send it again")
}

async fn readyz(State(sources): Shared, headers: HeaderMap) -> Response {
    let readiness = sources.readiness();
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match preferred(&headers, &["text/plain", "application/json"]) {
        "application/json" => (code, Json(readiness)).into_response(),
        _ if readiness.ready => (code, "ready\n").into_response(),
        _ => {
            let lines: Vec<String> =
                readiness.waiting_for.iter().map(|what| format!("waiting for {what}\n")).collect();
            (code, lines.concat()).into_response()
        }
    }
}

async fn scrape(State(sources): Shared) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], sources.metrics()).into_response()
}

async fn status(State(sources): Shared, headers: HeaderMap) -> Response {
    let status = sources.status();
    let vary = (header::VARY, "accept");
    match preferred(&headers, &["application/json", "text/html"]) {
        "text/html" => {
            let policy = (header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
            ([vary, policy], Html(page::render(&status))).into_response()
        }
        _ => ([vary], Json(status)).into_response(),
    }
}

async fn proxy_config(State(sources): Shared, Path(proxy): Path<String>) -> Response {
    if let Some(config) = sources.proxy_config(&proxy) {
        return Json(config).into_response();
    }
    let known: Vec<String> = sources.status().proxies.into_iter().map(|status| status.proxy).collect();
    let remedy = if known.is_empty() {
        "no proxy has connected yet; start one with `causeway envoy`".to_owned()
    } else {
        format!("known are {}", known.join(", "))
    };
    refusal(StatusCode::NOT_FOUND, &format!("there is no proxy `{proxy}`; {remedy}"))
}

async fn log_level(State(sources): Shared) -> String {
    format!("{}\n", sources.log_level())
}

async fn set_log_level(
    State(sources): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return refusal(StatusCode::FORBIDDEN, "the log level is changed from the agent's own machine only");
    }
    if !is_local_name(&uri, &headers) {
        let message = "the Host header must be an IP address or localhost; write the address as a number";
        return refusal(StatusCode::FORBIDDEN, message);
    }
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return refusal(rejection.status(), &rejection.body_text()),
    };
    match std::str::from_utf8(&body).map_err(|_| "the filter is not text; send it as UTF-8".to_owned()) {
        Ok(text) => match sources.set_log_level(text.trim()) {
            Ok(()) => format!("{}\n", sources.log_level()).into_response(),
            Err(message) => refusal(StatusCode::BAD_REQUEST, &message),
        },
        Err(message) => refusal(StatusCode::BAD_REQUEST, &message),
    }
}

async fn unknown_path(uri: Uri) -> Response {
    let message = format!(
        "there is nothing at {}; there are /healthz, /readyz, /metrics, /status, /status/proxies/ID/config, /log-level",
        uri.path()
    );
    refusal(StatusCode::NOT_FOUND, &message)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("{} does not take {method}", uri.path()))
}

pub(crate) fn refusal(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({ "error": message }))).into_response()
}

/// Guards what changes something against a page in a browser whose own name was made to point here (DNS rebinding).
pub(crate) fn is_local_name(uri: &Uri, headers: &HeaderMap) -> bool {
    let given = uri.host().or_else(|| headers.get(header::HOST)?.to_str().ok());
    let Some(authority) = given.and_then(|host| host.parse::<http::uri::Authority>().ok()) else {
        return false;
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// The type of `offers` that the client likes best; the first one when it does not say or likes none.
fn preferred(headers: &HeaderMap, offers: &[&'static str]) -> &'static str {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let mut best = (offers[0], 0.0);
    for offer in offers {
        let weight = weight(accepted, offer);
        if weight > best.1 {
            best = (offer, weight);
        }
    }
    best.0
}

/// The weight of a media type in an `Accept` header: that of the most specific range that takes it.
fn weight(accepted: &str, offer: &str) -> f32 {
    let family = offer.split('/').next().unwrap_or_default();
    let mut best = (0, 0.0);
    for range in accepted.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let precision = match parts.next().unwrap_or_default() {
            exact if exact.eq_ignore_ascii_case(offer) => 3,
            "*/*" => 1,
            wide if wide.strip_suffix("/*") == Some(family) => 2,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if precision > best.0 {
            best = (precision, weight);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_is_accepted_one_of_the_offers_is_made(
            accepted in "[ -~]{0,40}|((text|application|\\*)/(html|json|\\*)(;q=[0-9.naif+-]{0,5})?,?){0,4}",
        ) {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accepted.parse().unwrap());
            let offers = ["application/json", "text/html"];
            proptest::prop_assert!(offers.contains(&preferred(&headers, &offers)));
        }
    }
}
