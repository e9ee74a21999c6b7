//! `/v1/session`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    consul::wire::{WireError, read::whole},
    model::session::{Behavior, SessionId, SessionSpec},
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireSpec<'a> {
    name: &'a str,
    #[serde(rename = "TTL")]
    ttl: String,
    lock_delay: String,
    behavior: &'static str,
    /// Left out they would be the node's health, so that a flap of the agent would end the session. 1.8 goes by the
    /// first name, later releases by the second.
    checks: [&'a str; 0],
    node_checks: [&'a str; 0],
}

#[derive(Deserialize)]
struct WireId {
    #[serde(rename = "ID")]
    id: String,
}

/// The body that makes such a session on the node of the agent that is asked.
pub fn create(spec: &SessionSpec) -> Vec<u8> {
    let wire = WireSpec {
        name: &spec.name,
        ttl: duration(spec.ttl),
        lock_delay: duration(spec.lock_delay),
        behavior: match spec.behavior {
            Behavior::Release => "release",
            Behavior::Delete => "delete",
        },
        checks: [],
        node_checks: [],
    };
    serde_json::to_vec(&wire).expect("texts are always JSON")
}

/// As people write it, since Consul shows the text again.
fn duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// The id of the session that was made.
pub fn created(body: &[u8]) -> Result<SessionId, WireError> {
    let WireId { id } = whole(body)?;
    match id.is_empty() {
        true => Err(WireError::Shape("the session has no id".into())),
        false => Ok(SessionId::from(id)),
    }
}

/// Whether the one session in the answer is this one.
pub fn is_about(body: &[u8], id: &SessionId) -> bool {
    whole::<[WireId; 1]>(body).is_ok_and(|[found]| found.id == id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_bound_to_nothing_but_its_ttl() {
        let spec = SessionSpec {
            name: "a".into(),
            ttl: Duration::from_secs(10),
            lock_delay: Duration::from_millis(1500),
            behavior: Behavior::Delete,
        };
        assert_eq!(
            String::from_utf8(create(&spec)).unwrap(),
            r#"{"Name":"a","TTL":"10s","LockDelay":"1500ms","Behavior":"delete","Checks":[],"NodeChecks":[]}"#
        );
        assert_eq!(created(br#"{"ID":"bbc5efa1"}"#).unwrap().as_str(), "bbc5efa1");
        assert!(is_about(br#"[{"ID":"bbc5efa1","Name":"a"}]"#, &SessionId::from("bbc5efa1")));
        for other in ["[]", "null", r#"[{"ID":"other"}]"#] {
            assert!(!is_about(other.as_bytes(), &SessionId::from("bbc5efa1")), "{other}");
        }
        for bad in ["{}", "[]", "", r#"{"ID":""}"#] {
            assert!(created(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
