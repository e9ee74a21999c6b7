//! The agent's HTTP interface as the commands for keys and replication use it: where it is, whose rights a request has,
//! and what becomes of its answers.

use std::{path::PathBuf, time::Duration};

use anyhow::{anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::mpsc;

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::{
        client::{Bearer, Client, ClientError, MAX_BODY_BYTES, OpenReply, RawRequest},
        wire::kv::Pairs,
    },
    model::{kv::Pair, secret::SecretText},
};

/// For an answer to begin, and between its pieces. A write may wait for a home that takes over.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How much of an unwanted answer an error shows, in characters.
const EXCERPT_CHARS: usize = 400;

/// How to reach the agent, with the variables of Consul's own tools for the rest.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Agent")]
pub struct EndpointFlags {
    /// The causeway agent's HTTP interface
    #[arg(long, value_name = "URL", env = "CAUSEWAY_HTTP_ADDR", default_value = "http://127.0.0.1:18500")]
    http_addr: String,
    /// ACL token; others on this machine can see it in the list of processes, prefer --token-file
    /// [env: CONSUL_HTTP_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// File that holds the ACL token [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

/// A client of the agent.
pub struct Endpoint {
    client: Client,
    address: String,
}

/// An answer with any status.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Parts of a query, encoded when sent. One without a value has none.
pub type Query<'a> = [(&'a str, Option<&'a str>)];

impl EndpointFlags {
    /// A client for these flags, laid over the environment.
    pub fn endpoint(&self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Endpoint> {
        let mut settings = ConsulSettings::from_env(env).map_err(|problems| anyhow!(problems.join("\n")))?;
        settings.address = ConsulAddress::parse(self.http_addr.trim_end_matches('/'))
            .map_err(|problem| anyhow!("--http-addr: {problem}"))?;
        if self.token.is_some() || self.token_file.is_some() {
            settings.token = self.token.as_ref().map(SecretText::from);
            settings.token_file = self.token_file.clone();
        }
        Ok(Endpoint { client: Client::new(settings)?, address: self.http_addr.clone() })
    }
}

impl Endpoint {
    /// One exchange. `path` is encoded already.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut open = self.open(method, path, query, headers, body, DEADLINE).await?;
        let body = open.whole(MAX_BODY_BYTES, DEADLINE).await.map_err(|error| self.told(error))?;
        Ok(Answer { status: open.status, headers: open.headers, body })
    }

    /// A GET whose answer may take so long to begin.
    pub async fn get(&self, path: &str, query: &Query<'_>, deadline: Duration) -> anyhow::Result<Answer> {
        let mut open = self.open(Method::GET, path, query, &[], Bytes::new(), deadline).await?;
        let body = open.whole(MAX_BODY_BYTES, DEADLINE).await.map_err(|error| self.told(error))?;
        Ok(Answer { status: open.status, headers: open.headers, body })
    }

    /// All keys that begin so, in their order, page by page; gives the headers of the answer. A list from which Consul
    /// says that it left something out is an error.
    pub async fn scan(
        &self,
        prefix: &str,
        query: &Query<'_>,
        deadline: Duration,
        pages: mpsc::Sender<Vec<Pair>>,
    ) -> anyhow::Result<HeaderMap> {
        let query: Vec<_> = query.iter().copied().chain([("recurse", None)]).collect();
        let mut open = self.open(Method::GET, &key_path(prefix), &query, &[], Bytes::new(), deadline).await?;
        if open.headers.get("x-consul-results-filtered-by-acls").is_some_and(|value| value == "true") {
            bail!("the token may not see all keys below `{prefix}`; give it the right to read them all");
        }
        if open.status == StatusCode::NOT_FOUND {
            let body = open.whole(MAX_BODY_BYTES, DEADLINE).await.map_err(|error| self.told(error))?;
            return match is_nothing(open.status, &open.headers, &body) {
                true => Ok(open.headers),
                false => Err(refused(open.status, &body)),
            };
        }
        if open.status != StatusCode::OK {
            let body = open.whole(MAX_BODY_BYTES, DEADLINE).await.map_err(|error| self.told(error))?;
            return Err(refused(open.status, &body));
        }
        let mut list = Pairs::of(prefix);
        while let Some(piece) = open.piece(DEADLINE).await.map_err(|error| self.told(error))? {
            let page = list.page(&piece)?;
            if !page.is_empty() && pages.send(page).await.is_err() {
                bail!("the list of `{prefix}` was given up");
            }
        }
        list.end()?;
        Ok(open.headers)
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        headers: &[(&'static str, &str)],
        body: Bytes,
        deadline: Duration,
    ) -> anyhow::Result<OpenReply> {
        let mut target = path.to_owned();
        for (place, (name, value)) in query.iter().enumerate() {
            target.push(if place == 0 { '?' } else { '&' });
            target.push_str(&crate::fetch::path_segment(name));
            if let Some(value) = value {
                target.push('=');
                target.push_str(&crate::fetch::path_segment(value));
            }
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value =
                HeaderValue::from_str(value).map_err(|_| anyhow!("`{value}` cannot be a header's value"))?;
            map.insert(*name, value);
        }
        let request = RawRequest { method, target, headers: map, body, bearer: Bearer::Own };
        self.client.open(request, deadline).await.map_err(|error| self.told(error))
    }

    fn told(&self, error: ClientError) -> anyhow::Error {
        match error {
            ClientError::Connect { reason, .. } => anyhow!(
                "ask the causeway agent at {}: {reason}; is `causeway agent` running? Name its address with \
                 `--http-addr` or CAUSEWAY_HTTP_ADDR",
                self.address
            ),
            other => anyhow!("ask the causeway agent at {}: {other}", self.address),
        }
    }
}

impl Answer {
    /// The answer itself if its status is 2xx.
    ///
    /// # Errors
    /// It is not: what the agent said.
    pub fn ok(self) -> anyhow::Result<Self> {
        if self.status.is_success() { Ok(self) } else { Err(refused(self.status, &self.body)) }
    }

    /// Whether it says that there is no such key.
    pub fn is_nothing(&self) -> bool {
        is_nothing(self.status, &self.headers, &self.body)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Consul's way to say that there is no such key: a 404 without a word, of what has an index. Any other is of somebody
/// who does not know what is asked.
fn is_nothing(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    status == StatusCode::NOT_FOUND && body.is_empty() && headers.contains_key("x-consul-index")
}

/// The path of a key.
pub fn key_path(key: &str) -> String {
    let parts: Vec<&str> = ["v1", "kv"].into_iter().chain(key.split('/')).collect();
    crate::consul::client::path(&parts)
}

fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    match excerpt(body).as_str() {
        "" => anyhow!("the agent answered with {status}"),
        line => anyhow!("the agent answered with {status}: {line}"),
    }
}

/// The start of an unwanted answer, as one line.
pub fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(EXCERPT_CHARS).collect()
}
