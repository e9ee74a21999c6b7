//! `/v1/`: Consul's API, answered by whoever the agent was given for it. Here stands who may ask at all.

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use axum::body::Body;
use axum::{Extension, Router, body::Bytes, extract::State, response::Response, routing::any};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use crate::api::routes::{Peer, is_local_name, refusal};

/// Where its paths begin.
pub(crate) const PATH: &str = "/v1/";

/// The largest body that is read. Consul takes 512 KiB and says so of more; what is far beyond never gets there.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A body that has not come by then does not come.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Consul's API.
pub trait Kv: Send + Sync + 'static {
    /// Whether a client of this address may change something. Clients on loopback always may.
    fn may_write(&self, client: IpAddr) -> bool;

    /// Answers a request. A blocking query takes as long as it asks for. A body may still be coming: it is asked for no
    /// faster than the client takes it, and dropped when the client goes away.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'static, http::Response<Body>>;
}

pub(crate) fn router(kv: Arc<dyn Kv>) -> Router {
    Router::new().route("/v1/{*path}", any(answer)).with_state(kv)
}

async fn answer(
    State(kv): State<Arc<dyn Kv>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    if let Err(message) = guard(&head.uri, &head.headers) {
        return refusal(StatusCode::FORBIDDEN, message);
    }
    let client = peer.ip().to_canonical();
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method);
    if !is_read && !client.is_loopback() && !kv.may_write(client) {
        let message = format!(
            "{client} may only read here: this interface has no TLS; write on the agent's own machine, or name the client's \
             network in [http] allow_write_http_from"
        );
        return refusal(StatusCode::FORBIDDEN, &message);
    }
    let read = timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let body = match read {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message =
                "the body is larger than 1 MiB; what is so large, such as a snapshot, goes to Consul itself";
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        Ok(Err(error)) => return refusal(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}")),
        Err(_) => return crate::api::routes::too_slow(),
    };
    kv.serve(Request::from_parts(head, body)).await
}

/// Keeps web pages out: loopback is no login, and a browser on this machine, or on one that may write, is led here by
/// any page. It tells its page's origin, or calls this address by the page's own name (DNS rebinding).
fn guard(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    if !is_local_name(uri, headers) {
        return Err("the Host header must be an IP address or localhost; write the address as a number");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    if origin.is_some() && origin == host {
        Ok(())
    } else {
        Err("requests from web pages are not served; ask from a program")
    }
}

#[cfg(test)]
mod tests;
