//! A small client of Envoy's admin interface: one request with a deadline, and its statistics as numbers.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use crate::fetch;

/// Envoy answers from memory; even a large dump takes well under a second.
const DEADLINE: Duration = Duration::from_secs(5);

/// The admin interface of one Envoy.
#[derive(Clone, Debug)]
pub struct Admin {
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    Url(String),
    Unix(PathBuf),
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
        Self { at: At::Url(url.trim_end_matches('/').to_owned()) }
    }

    /// The admin interface on a Unix socket.
    pub fn on_socket(path: PathBuf) -> Self {
        Self { at: At::Unix(path) }
    }

    /// The body of the answer to `GET path` (with its query, for example `/config_dump?include_eds`).
    pub async fn get(&self, path: &str) -> Result<Bytes, AdminError> {
        self.ask(Method::GET, path).await
    }

    /// Posts to `path`, which changes something (`/healthcheck/fail`).
    pub async fn post(&self, path: &str) -> Result<Bytes, AdminError> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, AdminError> {
        let answer = match &self.at {
            At::Unix(socket) => fetch::over_unix(socket, method, path, DEADLINE).await,
            At::Url(url) if method == Method::POST => fetch::post(&format!("{url}{path}"), DEADLINE).await,
            At::Url(url) => fetch::get(&format!("{url}{path}"), DEADLINE).await,
        };
        let error = |reason| AdminError { url: self.shown(path), reason };
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(answer.body),
            Ok(answer) => Err(error(format!("answered {}", answer.status))),
            Err(reason) => Err(error(reason)),
        }
    }

    fn shown(&self, path: &str) -> String {
        match &self.at {
            At::Url(url) => format!("{url}{path}"),
            At::Unix(socket) => format!("{path} at unix:{}", socket.display()),
        }
    }

    /// The answer to `GET path` as JSON.
    pub async fn json(&self, path: &str) -> Result<Value, AdminError> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body)
            .map_err(|error| AdminError { url: self.shown(path), reason: error.to_string() })
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
