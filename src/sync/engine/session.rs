//! Sessions: each lives in one datacenter's Consul, and any agent finds it.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    model::{name::Datacenter, session::SessionId},
    sync::{
        endpoint::{
            Raw, Request, Response, answer,
            ask::{Ask, SessionAsk},
        },
        engine::{Engine, bounded::Bounded, serve::Asked},
        peer::{Peers, Target},
        refusal::Refusal,
        store::Store,
    },
};

/// Sessions whose datacenter is remembered. One that is forgotten is looked for again.
const MAX_PLACES: usize = 4096;

/// Where sessions live, as far as this agent has seen.
pub(super) type Places = Bounded<SessionId, Datacenter, MAX_PLACES>;

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    pub(super) async fn session(&self, asked: &Asked<'_>, session: &SessionAsk) -> Response {
        self.in_session(asked, session).await.unwrap_or_else(|refusal| answer::refusal(&refusal))
    }

    async fn in_session(&self, asked: &Asked<'_>, session: &SessionAsk) -> Result<Response, Refusal> {
        let own = &self.0.settings.datacenter;
        // What another agent passed on has found its datacenter; another than ours in `?dc=` is Consul's to know.
        if asked.request.origin.is_some() {
            return self.here(asked, session).await;
        }
        if let Some(dc) = asked.dc() {
            return match self.0.settings.datacenters.iter().find(|known| known.as_str() == dc) {
                Some(there) => self.create_or_ask(asked, session, there).await,
                None => self.pass(asked.request).await,
            };
        }
        match session {
            SessionAsk::Create => self.create_or_ask(asked, session, &self.0.settings.sessions_home).await,
            SessionAsk::List => self.at(asked, session, &self.0.settings.sessions_home).await,
            SessionAsk::Info(id) | SessionAsk::Renew(id) | SessionAsk::Destroy(id) => {
                let place = self.places().get(id).cloned();
                match place {
                    Some(there) => self.at(asked, session, &there).await,
                    None if self.0.settings.datacenters.iter().all(|other| other == own) => {
                        self.pass(asked.request).await
                    }
                    None => self.search(asked, session, id).await,
                }
            }
        }
    }

    async fn create_or_ask(
        &self,
        asked: &Asked<'_>,
        session: &SessionAsk,
        there: &Datacenter,
    ) -> Result<Response, Refusal> {
        let response = self.at(asked, session, there).await?;
        if *session == SessionAsk::Create
            && let Some(id) = created(&response)
        {
            self.places().put(id, there.clone());
        }
        Ok(response)
    }

    /// Asks each datacenter in turn until one has it: ours, the usual home, the others. One that cannot be asked ends
    /// nothing, and counts when no other has it: it may be there.
    async fn search(
        &self,
        asked: &Asked<'_>,
        session: &SessionAsk,
        id: &SessionId,
    ) -> Result<Response, Refusal> {
        let (mut last, mut failed) = (None, None);
        for datacenter in self.search_order() {
            let sought = self.sought(asked, session, &datacenter, id).await;
            match sought {
                Ok(Some(response)) if is_found(session, &response) => {
                    self.places().put(id.clone(), datacenter);
                    return Ok(response);
                }
                // A datacenter that has it and says no tells more than those that do not have it.
                Ok(Some(response)) if response.status == 403 => {
                    last = last.filter(|last: &Response| last.status == 403).or(Some(response));
                }
                Ok(response) => last = last.or(response),
                Err(refusal) => failed = failed.or(Some(refusal)),
            }
        }
        if let Some(refusal) = failed {
            return Err(refusal);
        }
        // Nobody has it: what our own Consul says of that.
        match last {
            Some(response) => Ok(response),
            None => self.pass(asked.request).await,
        }
    }

    /// What a datacenter says of it; none when it has no such session to destroy.
    async fn sought(
        &self,
        asked: &Asked<'_>,
        session: &SessionAsk,
        there: &Datacenter,
        id: &SessionId,
    ) -> Result<Option<Response>, Refusal> {
        // Destroying a session that is not there succeeds, so that it is looked for first.
        if matches!(session, SessionAsk::Destroy(_)) && !self.knows(asked, there, id).await? {
            return Ok(None);
        }
        self.at(asked, session, there).await.map(Some)
    }

    fn search_order(&self) -> Vec<Datacenter> {
        let settings = &self.0.settings;
        let mut order = vec![settings.datacenter.clone(), settings.sessions_home.clone()];
        order.extend(settings.datacenters.iter().cloned());
        let mut seen = Vec::new();
        order.retain(|datacenter| {
            !seen.contains(datacenter) && {
                seen.push(datacenter.clone());
                true
            }
        });
        order
    }

    /// Where a session lives that our Consul does not have.
    pub(super) async fn find_elsewhere(&self, asked: &Asked<'_>, id: &SessionId) -> Option<Datacenter> {
        if let Some(there) = self.places().get(id) {
            return Some(there.clone());
        }
        for datacenter in self.search_order().into_iter().skip(1) {
            if datacenter != self.0.settings.datacenter
                && self.knows(asked, &datacenter, id).await.unwrap_or(false)
            {
                return Some(datacenter);
            }
        }
        None
    }

    /// Whether a datacenter has a session that this client may see.
    async fn knows(&self, asked: &Asked<'_>, there: &Datacenter, id: &SessionId) -> Result<bool, Refusal> {
        let target = format!("/v1/session/info/{id}");
        let mut request = Request::new(Method::GET, &target, Vec::new(), Bytes::new());
        request.token.clone_from(&asked.request.token);
        let info = SessionAsk::Info(id.clone());
        let inner = Asked {
            request: &request,
            ask: Ask::Session(info.clone()),
            wishes: asked.wishes.clone(),
            request_id: self.0.new_request_id(),
            arrived: asked.arrived,
        };
        Ok(is_found(&info, &self.at(&inner, &info, there).await?))
    }

    async fn at(
        &self,
        asked: &Asked<'_>,
        session: &SessionAsk,
        there: &Datacenter,
    ) -> Result<Response, Refusal> {
        if *there == self.0.settings.datacenter {
            return self.here(asked, session).await;
        }
        if *session == SessionAsk::Create {
            // Said here already: the home would say it only after the way there.
            for_elsewhere(&asked.request.body, there)?;
        }
        self.forward(asked, &Target::Datacenter(there.clone())).await
    }

    /// At our own Consul, with the client's own token.
    async fn here(&self, asked: &Asked<'_>, session: &SessionAsk) -> Result<Response, Refusal> {
        let own = &self.0.settings.datacenter;
        let from = asked.request.origin.as_ref().map(|origin| &origin.datacenter);
        if *session == SessionAsk::Create && from.is_some_and(|from| from != own) {
            let mut request = asked.request.clone();
            request.body = for_elsewhere(&request.body, own)?;
            return self.pass(&request).await;
        }
        self.pass(asked.request).await
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn created(response: &Response) -> Option<SessionId> {
    let body: Value = serde_json::from_slice(&response.body).ok().filter(|_| response.status == 200)?;
    body.get("ID")?.as_str().map(SessionId::from)
}

fn is_found(session: &SessionAsk, response: &Response) -> bool {
    let is_empty = response.body.as_ref().trim_ascii() == b"[]";
    match session {
        SessionAsk::Info(_) => response.status == 200 && !is_empty,
        _ => response.status == 200,
    }
}

/// The session that is made for a client of another datacenter: on the node of the agent that makes it, bound to no
/// health check, since those of the client's machine are not known there. So only its TTL ends it.
fn for_elsewhere(body: &[u8], home: &Datacenter) -> Result<Bytes, Refusal> {
    let bad = |text: String| Refusal::Bad(text);
    let given: Map<String, Value> = match body.trim_ascii() {
        b"" => Map::new(),
        body => {
            serde_json::from_slice(body).map_err(|error| bad(format!("Request decode failed: {error}")))?
        }
    };
    let field = |name: &str| {
        let found = given.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
        found.map(|(_, value)| value)
    };
    if field("TTL").and_then(Value::as_str).is_none_or(|ttl| ttl.is_empty() || ttl == "0s") {
        return Err(bad(format!(
            "a session in {home} for a client elsewhere needs a TTL, since no health check ends it; give it one of 10s or more"
        )));
    }
    let has_checks = |name: &str| match field(name) {
        Some(Value::Array(checks)) => checks.iter().any(|check| check.as_str() != Some("serfHealth")),
        _ => false,
    };
    if ["Checks", "NodeChecks", "ServiceChecks"].into_iter().any(has_checks) {
        return Err(bad(format!(
            "a session in {home} cannot depend on health checks of another datacenter; leave out its checks"
        )));
    }
    let mut spec = Map::new();
    for name in ["Name", "TTL", "LockDelay", "Behavior"] {
        if let Some(value) = field(name) {
            spec.insert(name.to_owned(), value.clone());
        }
    }
    spec.insert("NodeChecks".to_owned(), json!([]));
    Ok(Value::Object(spec).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_for_elsewhere_lives_by_its_ttl_alone() {
        let of = |body: &str| for_elsewhere(body.as_bytes(), &"primary".into());
        let body =
            of(r#"{"name":"n","ttl":"15s","Node":"web-7","NodeChecks":["serfHealth"],"LockDelay":"1s"}"#);
        assert_eq!(body.unwrap(), r#"{"LockDelay":"1s","Name":"n","NodeChecks":[],"TTL":"15s"}"#);
        for without in ["", "{}", r#"{"TTL":""}"#, r#"{"TTL":null}"#] {
            assert!(of(without).unwrap_err().to_string().contains("needs a TTL"), "{without}");
        }
        assert!(of(r#"{"TTL":"15s","Checks":["service:web"]}"#).unwrap_err().to_string().contains("checks"));
        assert!(matches!(of("[").unwrap_err(), Refusal::Bad(_)));
    }

    #[test]
    fn old_places_are_forgotten() {
        let mut places = Places::default();
        for n in 0..=MAX_PLACES {
            places.put(SessionId::from(n.to_string()), "primary".into());
        }
        let get = |n: usize| places.get(&SessionId::from(n.to_string()));
        assert_eq!((1..=MAX_PLACES).filter(|n| get(*n).is_some()).count(), MAX_PLACES);
        assert_eq!(get(0), None);
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_session_is_refused_or_depends_on_no_check(
            at in 0_usize..70,
            put in proptest::collection::vec(0_u8.., 1..8),
        ) {
            let mut body = br#"{"name":"n","ttl":"15s","NodeChecks":["serfHealth"],"LockDelay":"1s"}"#.to_vec();
            let from = at.min(body.len());
            body.splice(from..(from + put.len()).min(body.len()), put);
            if let Ok(made) = for_elsewhere(&body, &"primary".into()) {
                let made: Value = serde_json::from_slice(&made).unwrap();
                proptest::prop_assert_eq!(&made["NodeChecks"], &json!([]));
                proptest::prop_assert!(made.get("TTL").is_some() && made.get("Checks").is_none());
            }
        }
    }
}
