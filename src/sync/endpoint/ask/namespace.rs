//! Namespaces, which Consul's Enterprise edition has and replication does not know. Pure.

use crate::sync::endpoint::message::{Request, Response};

/// Refuses a request that names one, as Consul without namespaces does (1.8.7). It would be about another key than the one
/// that replication reads, and another agent would not hear of the header.
pub(super) fn none(request: &Request) -> Result<(), Response> {
    let is_given = |value: Option<&str>| value.is_some_and(|value| !value.is_empty());
    let where_from = if is_given(request.header("x-consul-namespace")) {
        "header: \"X-Consul-Namespace\""
    } else if is_given(request.param("ns")) {
        "query parameter: \"ns\""
    } else {
        return Ok(());
    };
    let text = format!("Bad request: Invalid {where_from} - Namespaces are a Consul Enterprise feature");
    Err(Response::text(400, text))
}
