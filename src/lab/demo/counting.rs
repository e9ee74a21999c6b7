//! Owns the counter: one more at each request, told with who counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};

use crate::{
    lab::demo::{ListenError, serve},
    lifecycle::Stop,
};

/// What the counter answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many requests this instance has answered, this one included.
    pub count: u64,
    /// Which instance counted.
    pub instance: String,
    /// Where it is.
    pub datacenter: String,
}

struct Counter {
    count: AtomicU64,
    instance: String,
    datacenter: String,
}

/// Counts until the stop signal.
///
/// Errors: the address cannot be listened on.
pub async fn run(
    listen: SocketAddr,
    instance: String,
    datacenter: String,
    stop: Stop,
) -> Result<(), ListenError> {
    serve(listen, router(instance, datacenter), stop).await
}

fn router(instance: String, datacenter: String) -> Router {
    let counter = Arc::new(Counter { count: AtomicU64::new(0), instance, datacenter });
    Router::new()
        .route("/", get(count))
        .route("/health", get(|| std::future::ready("ok\n")))
        .with_state(counter)
}

async fn count(State(counter): State<Arc<Counter>>) -> Json<Count> {
    Json(Count {
        count: counter.count.fetch_add(1, Ordering::Relaxed) + 1,
        instance: counter.instance.clone(),
        datacenter: counter.datacenter.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::{fetch, lifecycle};

    #[tokio::test]
    async fn counts_requests_and_not_health_checks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = router("one".into(), "secondary".into());
        let _serving =
            lifecycle::spawn("test.serve", async move { axum::serve(listener, router).await.unwrap() });
        let deadline = Duration::from_secs(5);
        for expected in 1..=3 {
            fetch::get(&format!("{url}/health"), deadline).await.unwrap();
            let answer: Count = fetch::get_json(&url, deadline).await.unwrap();
            assert_eq!(
                answer,
                Count { count: expected, instance: "one".into(), datacenter: "secondary".into() }
            );
        }
    }
}
