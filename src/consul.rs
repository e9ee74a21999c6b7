//! The Consul client's contract with the least that serves it over plain HTTP; the real client takes this place.

/// The client.
pub mod client {
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper_util::{client::legacy::Client as Http, rt::TokioExecutor};
    use serde::de::DeserializeOwned;

    use crate::config::consul::{ConsulAddress, ConsulSettings};

    /// The client.
    #[derive(Clone, Debug)]
    pub struct Client(ConsulSettings);
    /// A failure.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct ClientError(String);
    /// An answer.
    #[derive(Clone, Debug)]
    pub struct Reply(u16, Bytes);

    impl Reply {
        /// Only 2xx.
        pub fn ok(self) -> Result<Self, ClientError> {
            if self.0 / 100 == 2 {
                Ok(self)
            } else {
                Err(ClientError(format!("{} {}", self.0, String::from_utf8_lossy(&self.1))))
            }
        }
        /// The body.
        pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
            serde_json::from_slice(&self.1).map_err(|e| ClientError(e.to_string()))
        }
    }
    impl Client {
        /// A client.
        pub fn new(settings: ConsulSettings) -> Result<Self, ClientError> {
            Ok(Self(settings))
        }
        /// GET.
        pub async fn get(&self, p: &str, _q: &[(&str, &str)], d: Duration) -> Result<Reply, ClientError> {
            self.send("GET", p, None, d).await
        }
        /// PUT.
        pub async fn put(
            &self,
            p: &str,
            _q: &[(&str, &str)],
            body: Option<serde_json::Value>,
            d: Duration,
        ) -> Result<Reply, ClientError> {
            self.send("PUT", p, body, d).await
        }
        async fn send(
            &self,
            method: &str,
            path: &str,
            body: Option<serde_json::Value>,
            deadline: Duration,
        ) -> Result<Reply, ClientError> {
            let ConsulAddress::Http { authority } = &self.0.address else {
                return Err(ClientError("only http".into()));
            };
            let mut request =
                hyper::Request::builder().method(method).uri(format!("http://{authority}{path}"));
            if let Some(token) = &self.0.token {
                request = request.header("x-consul-token", token.expose());
            }
            let body = body.map(|b| b.to_string()).unwrap_or_default();
            let request =
                request.body(Full::new(Bytes::from(body))).map_err(|e| ClientError(e.to_string()))?;
            let run = async {
                let http = Http::builder(TokioExecutor::new()).build_http();
                let reply = http.request(request).await.map_err(|e| ClientError(format!("{e:?}")))?;
                let status = reply.status().as_u16();
                let body = reply.into_body().collect().await.map_err(|e| ClientError(e.to_string()))?;
                Ok(Reply(status, body.to_bytes()))
            };
            tokio::time::timeout(deadline, run).await.map_err(|_| ClientError("deadline".into()))?
        }
    }
}

use crate::config::consul::{ConsulAddress, ConsulSettings};

impl ConsulAddress {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::Http { authority: text.trim_start_matches("http://").to_owned() })
    }
}
impl ConsulSettings {
    /// Settings from the environment.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut settings = Self::default();
        if let Some(address) = env("CONSUL_HTTP_ADDR") {
            settings.address = ConsulAddress::parse(&address).map_err(|e| vec![e])?;
        }
        settings.token = env("CONSUL_HTTP_TOKEN").map(Into::into);
        settings.token_file = env("CONSUL_HTTP_TOKEN_FILE").map(Into::into);
        Ok(settings)
    }
}
