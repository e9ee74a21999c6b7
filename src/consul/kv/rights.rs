//! `/v1/internal/acl/authorize`: what a token may do. Consul answers for the token that asks, and needs no other right
//! for that.
//!
//! A Consul client agent answers from its cache of tokens and policies (`acl.token_ttl`, `acl.policy_ttl`, 30 s each by
//! default): what was just taken away may still be told as given there.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::consul::{
    acl::rights::has_leader,
    client::{Bearer, Client, MAX_BODY_BYTES, RawRequest, Reply},
    kv::{KvError, judge},
};

/// The most questions that Consul takes at once.
pub const MAX_QUESTIONS: usize = 64;

const PATH: &str = "/v1/internal/acl/authorize";

/// Whether it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Question {
    /// On what: `key`, `session`, `operator`.
    pub resource: &'static str,
    /// Which one; none for `operator`.
    pub segment: String,
    /// Do what: `read`, `list`, `write`, `write-prefix`.
    pub access: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireAnswer {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    segment: String,
    #[serde(default)]
    access: String,
    #[serde(default)]
    allow: bool,
}

impl Client {
    /// Whether the bearer may do each of these. All of them where Consul has no ACLs.
    ///
    /// # Errors
    /// [`KvError::Refused`] with status 403 of a token that Consul does not know.
    pub async fn rights(
        &self,
        bearer: &Bearer,
        questions: &[Question],
        deadline: Duration,
    ) -> Result<Vec<bool>, KvError> {
        let mut rights = Vec::with_capacity(questions.len());
        for some in questions.chunks(MAX_QUESTIONS) {
            rights.extend(self.some_rights(bearer, some, deadline).await?);
        }
        Ok(rights)
    }

    async fn some_rights(
        &self,
        bearer: &Bearer,
        questions: &[Question],
        deadline: Duration,
    ) -> Result<Vec<bool>, KvError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        let request = RawRequest {
            method: Method::POST,
            target: PATH.into(),
            headers,
            body: Bytes::from(serde_json::to_vec(questions).expect("texts are always JSON")),
            bearer: bearer.clone(),
        };
        let reply = self.open(request, deadline).await.map_err(KvError::of_read)?;
        let reply = reply.reply(MAX_BODY_BYTES, deadline).await.map_err(KvError::of_read)?;
        let said = said(&reply, questions);
        let is_no = match &said {
            Ok(rights) => rights.contains(&false),
            Err(error) => matches!(error, KvError::Refused { status: 403, .. }),
        };
        if is_no {
            has_leader(self).await.map_err(KvError::Unusable)?;
        }
        said
    }
}

fn said(reply: &Reply, questions: &[Question]) -> Result<Vec<bool>, KvError> {
    match reply.status {
        StatusCode::UNAUTHORIZED if reply.excerpt().contains("ACL support disabled") => {
            Ok(vec![true; questions.len()])
        }
        StatusCode::OK => {
            let answers: Vec<WireAnswer> =
                reply.json().map_err(|error| KvError::Unusable(error.to_string()))?;
            let fits = |(answer, question): (&WireAnswer, &Question)| {
                answer.resource == question.resource
                    && answer.segment == question.segment
                    && answer.access == question.access
            };
            if answers.len() != questions.len() || !answers.iter().zip(questions).all(fits) {
                return Err(KvError::Unusable(format!("{PATH}: the answer is about other rights")));
            }
            Ok(answers.iter().map(|answer| answer.allow).collect())
        }
        _ => Err(judge::refused_read(reply)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &'static str) -> Result<Vec<bool>, KvError> {
        told_of(status, Bytes::from_static(body.as_bytes()))
    }

    fn told_of(status: u16, body: Bytes) -> Result<Vec<bool>, KvError> {
        let questions = [
            Question { resource: "key", segment: "a/".into(), access: "read" },
            Question { resource: "operator", segment: String::new(), access: "write" },
        ];
        let status = StatusCode::from_u16(status).unwrap();
        said(&Reply::recorded("POST".into(), status, &HeaderMap::new(), body), &questions)
    }

    #[test]
    fn every_answer_of_consul_has_one_meaning() {
        let both = r#"[{"Resource":"key","Segment":"a/","Access":"read","Allow":true},{"Resource":"operator","Access":"write","Allow":false}]"#;
        assert_eq!(told(200, both), Ok(vec![true, false]));
        assert_eq!(told(401, "ACL support disabled"), Ok(vec![true, true]));
        assert!(matches!(told(403, "ACL not found"), Err(KvError::Refused { status: 403, .. })));
    }

    #[test]
    fn what_is_no_answer_grants_nothing() {
        let short = r#"[{"Resource":"key","Segment":"a/","Access":"read","Allow":true}]"#;
        let turned = r#"[{"Resource":"operator","Access":"write","Allow":true},{"Resource":"key","Segment":"a/","Access":"read","Allow":true}]"#;
        for (status, body) in
            [(200, short), (200, turned), (200, "[]"), (200, "<html>"), (401, "who"), (500, ""), (204, "")]
        {
            assert!(told(status, body).is_err(), "{status} {body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_answer_grants_nothing_that_consul_did_not(at in 0_usize..240, put in "[\\x00-\\x7f]{1,8}") {
            let both = r#"[{"Resource":"key","Segment":"a/","Access":"read","Allow":false},{"Resource":"operator","Access":"write","Allow":false}]"#;
            let mut body = both.to_owned();
            body.insert_str(at.min(both.len()), &put);
            if let Ok(rights) = told_of(200, body.into()) {
                proptest::prop_assert_eq!(rights, [false, false]);
            }
        }
    }
}
