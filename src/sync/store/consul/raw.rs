//! Requests of clients, passed on to Consul as they are. Nothing bounds how long an answer goes on; what ends it is its end,
//! whoever takes it, or a Consul that is not there any more.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    consul::client::{Bearer, ClientError, OpenReply, RawRequest},
    model::settings::duration_ms,
    sync::{
        endpoint::{PASSED, Passed, Raw, Request, Response, passed::Pieces},
        store::{
            StoreError,
            consul::{ConsulStore, MAX_WAIT, Shared, beyond, nobody},
        },
    },
};

/// What Consul waits when a blocking query does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// For a request of a client to be answered, and for the next piece of an answer that has begun. Consul gives a
/// datacenter that hangs about 40 s.
const RAW: Duration = Duration::from_secs(60);

/// The longest answer to a question of this agent's own.
const MAX_OWN_BYTES: usize = 1 << 20;

/// An answer that says that it is no longer is not worth a stream of pieces.
const SHORT_BYTES: usize = 64 << 10;

impl Raw for ConsulStore {
    async fn ask(&self, request: &Request) -> Result<Response, StoreError> {
        self.open(request).await?.whole(MAX_OWN_BYTES, request.method.is_safe()).await
    }

    async fn open(&self, request: &Request) -> Result<Passed, StoreError> {
        let is_read = request.method.is_safe();
        let judged = move |error| judged(is_read, error);
        let raw = RawRequest {
            method: request.method.clone(),
            target: request.target.clone(),
            headers: headers(&request.headers),
            body: request.body.clone(),
            bearer: bearer(request),
        };
        let client = &self.0.client;
        let opening = client.open(raw, patience(request));
        let mut open = self.0.pulse.attending(client, opening).await.map_err(judged)?;
        let head = Response { status: open.status.as_u16(), headers: texts(&open), body: Bytes::new() };
        if is_short(&open.headers) {
            let body = open.whole(SHORT_BYTES, RAW).await.map_err(judged)?;
            return Ok(Passed::Whole(Response { body, ..head }));
        }
        Ok(Passed::Coming(head, self.pieces(open, request)))
    }
}

impl ConsulStore {
    fn pieces(&self, open: OpenReply, request: &Request) -> Pieces {
        let (is_read, is_endless) = (request.method.is_safe(), request.is_endless());
        let next = move |(store, mut open): (Self, OpenReply)| async move {
            let piece = if is_endless {
                let Shared { client, pulse, .. } = &*store.0;
                pulse.attending(client, open.piece(Duration::MAX)).await
            } else {
                open.piece(RAW).await
            };
            let piece = piece.map_err(|error| judged(is_read, error))?;
            Ok(piece.map(|piece| (piece, (store, open))))
        };
        stream::try_unfold((self.clone(), open), next).boxed()
    }
}

fn judged(is_read: bool, error: ClientError) -> StoreError {
    if is_read { StoreError::of_read(error) } else { StoreError::of_write(error) }
}

fn is_short(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length: usize| length <= SHORT_BYTES)
}

/// Whose rights a client's request has. One that asks without a token gets from its own Consul agent what that gives to
/// such; passed on by another agent, be that of another datacenter or one without a part in replication, it stays
/// anonymous here, whatever token Consul has for those without one.
fn bearer(request: &Request) -> Bearer {
    match &request.token {
        Some(token) => Bearer::Token(token.clone()),
        None if request.origin.is_some() || request.header(PASSED).is_some() => Bearer::Token(nobody()),
        None => Bearer::Nobody,
    }
}

/// How long a request may take: a blocking query, or whoever waits for a lock, what it asks for.
fn patience(request: &Request) -> Duration {
    if request.method == Method::POST && request.path.starts_with("/v1/lock/") {
        return beyond(MAX_WAIT);
    }
    if request.param("index").or_else(|| request.param("hash")).is_none_or(|mark| mark.is_empty()) {
        return RAW;
    }
    let wait = match request.param("wait") {
        Some(text) => duration_ms(text).map_or(MAX_WAIT, Duration::from_millis),
        None => DEFAULT_WAIT,
    };
    beyond(wait.min(MAX_WAIT)).max(RAW)
}

fn headers(texts: &[(String, String)]) -> HeaderMap {
    let read = |(name, value): &(String, String)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in texts.iter().filter_map(read) {
        headers.append(name, value);
    }
    headers
}

fn texts(open: &OpenReply) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    open.headers.iter().map(text).collect()
}

#[cfg(test)]
mod tests;
