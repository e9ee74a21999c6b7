//! Reads of a tree above replicated prefixes: the local Consul has the rest, each prefix is asked for by itself.

use crate::{
    model::sync::Prefix,
    sync::{
        endpoint::{
            Raw, Request, Response, answer,
            ask::{Ask, What},
            merge,
        },
        engine::{Engine, serve::Asked},
        peer::Peers,
        refusal::Refusal,
        store::Store,
    },
};

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    pub(super) async fn above(&self, asked: &Asked<'_>, prefixes: &[Prefix]) -> Result<Response, Refusal> {
        let Ask::Read(read) = &asked.ask else { return self.pass(asked.request).await };
        let plain = asked.request.clone().without_header("accept-encoding").without_param("pretty");
        let local = self.pass(&plain).await?;
        if ![200, 404].contains(&local.status) {
            return Ok(local);
        }
        let what = if read.what == What::Tree { "recurse" } else { "keys" };
        let mut parts = Vec::new();
        for prefix in prefixes {
            let part = Box::pin(self.serve(part_of(asked.request, prefix, what))).await;
            match part.status {
                200 => parts.push(part.body),
                404 => {}
                // Without one of them it is not the tree.
                _ => return Ok(part),
            }
        }
        if local.status == 404 && parts.is_empty() {
            return Ok(local);
        }
        let names: Vec<&str> = prefixes.iter().map(|prefix| prefix.text.as_str()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        let own = if local.status == 200 { local.body.as_ref() } else { b"[]" };
        let merged = match &read.what {
            What::Keys(separator) => merge::keys(own, &names, &parts, &read.key, separator),
            _ => merge::pairs(own, &names, &parts),
        };
        let body = merged.map_err(|error| Refusal::NotServing(error.to_string()))?;
        let merged = answer::json(200, body, asked.is_pretty());
        let is_kept = |(name, _): &(String, String)| name.starts_with("x-consul-");
        let mut response = merged;
        response.headers.extend(local.headers.into_iter().filter(is_kept));
        Ok(response)
    }
}

/// The same question about one prefix, which waits for nothing.
fn part_of(request: &Request, prefix: &Prefix, what: &str) -> Request {
    let path = answer::escaped(&format!("/v1/kv/{}", prefix.text));
    let target = if request.has("consistent") {
        format!("{path}?{what}&consistent")
    } else {
        format!("{path}?{what}")
    };
    let mut part =
        Request::new(request.method.clone(), &target, request.headers.clone(), request.body.clone());
    part.token.clone_from(&request.token);
    part.origin.clone_from(&request.origin);
    part
}
