//! A small client of Envoy's admin interface: one request with a deadline, and its statistics as numbers.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use crate::fetch::{self, Answer};

/// Envoy answers from memory; even a large dump takes well under a second.
const DEADLINE: Duration = Duration::from_secs(5);

/// The admin interface of one Envoy.
#[derive(Clone, Debug)]
pub struct Admin {
    url: String,
}

/// Why the admin interface gave no answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "ask Envoy's admin interface for {url}: {reason}; is Envoy running, and is its admin interface there?"
)]
pub struct AdminError {
    url: String,
    reason: String,
}

impl Admin {
    /// The admin interface at `url`, for example `http://127.0.0.1:19000`. A question is given up after five seconds.
    pub fn new(url: impl Into<String>) -> Self {
        let url: String = url.into();
        Self { url: url.trim_end_matches('/').to_owned() }
    }

    /// The body of the answer to `GET path` (with its query, for example `/config_dump?include_eds`).
    pub async fn get(&self, path: &str) -> Result<Bytes, AdminError> {
        let url = format!("{}{path}", self.url);
        let answer = fetch::get(&url, DEADLINE).await;
        body(answer, url)
    }

    /// Posts to `path`, which changes something (`/healthcheck/fail`).
    pub async fn post(&self, path: &str) -> Result<Bytes, AdminError> {
        let url = format!("{}{path}", self.url);
        let answer = fetch::post(&url, DEADLINE).await;
        body(answer, url)
    }

    /// The answer to `GET path` as JSON.
    pub async fn json(&self, path: &str) -> Result<Value, AdminError> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body)
            .map_err(|error| AdminError { url: format!("{}{path}", self.url), reason: error.to_string() })
    }

    /// `node.id` of the Envoy that answers, by which its agent knows it; empty when its bootstrap gives none.
    pub async fn node_id(&self) -> Result<String, AdminError> {
        let info = self.json("/server_info").await?;
        Ok(info["node"]["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Counters and gauges whose full name (tags still in it) matches the regular expression `filter`. Histograms
    /// and texts are left out.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>, AdminError> {
        let answer = self.json(&format!("/stats?format=json&filter={}", fetch::path_segment(filter))).await?;
        let stats = answer["stats"].as_array().map(Vec::as_slice).unwrap_or_default();
        let number = |stat: &Value| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?));
        Ok(stats.iter().filter_map(number).collect())
    }

    /// One counter or gauge by its full name; none when Envoy has no such statistic.
    pub async fn stat(&self, name: &str) -> Result<Option<u64>, AdminError> {
        Ok(self.stats(&format!("^{}$", name.replace('.', "\\."))).await?.remove(name))
    }
}

fn body(answer: Result<Answer, String>, url: String) -> Result<Bytes, AdminError> {
    match answer {
        Ok(answer) if answer.status.is_success() => Ok(answer.body),
        Ok(answer) => Err(AdminError { url, reason: format!("answered {}", answer.status) }),
        Err(reason) => Err(AdminError { url, reason }),
    }
}
