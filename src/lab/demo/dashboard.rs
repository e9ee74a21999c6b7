//! Owns the dashboard: it asks the counter once a second and shows how that went. The page asks `/api/state` once
//! a second in turn, and needs nothing from elsewhere.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    fetch,
    lab::demo::{
        ListenError,
        link::{Attempt, Link, Sample, Watched},
        path::{self, EnvoyClusters, Hop},
        serve,
    },
    lifecycle::{self, Stop},
};

const PAGE: &str = include_str!("dashboard.html");
/// Between two attempts.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the counter may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long Envoy's admin interface may take; it is on this machine.
const ADMIN: Duration = Duration::from_millis(500);

/// What a dashboard is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it reaches the counter, `http://…`: the sidecar's upstream listener.
    pub counting: String,
    /// Its own datacenter.
    pub datacenter: String,
    /// Its Envoy's admin interface, `http://…`; without it the gateway's address is not shown.
    pub envoy_admin: Option<String>,
}

/// `GET /api/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DashboardState {
    /// The last count, kept while the link is down; none before the first answer.
    pub count: Option<u64>,
    /// Whether the link is up.
    pub link: Link,
    /// The hops of the request, the dashboard first.
    pub path: Vec<Hop>,
    /// The last minute, oldest first.
    pub history: Vec<Sample>,
    /// The time at the dashboard, milliseconds since the Unix epoch; ages are told from it.
    pub now_ms: u64,
}

/// Serves the page and asks the counter until the stop signal.
///
/// Errors: the address cannot be listened on.
pub async fn run(options: DashboardOptions, stop: Stop) -> Result<(), ListenError> {
    let listen = options.listen;
    let (sender, states) = watch::channel(Arc::new(picture(&options, &Watched::default(), None)));
    let asking = lifecycle::spawn("dashboard.ask", ask_forever(options, sender));
    let served = serve(listen, router(states), stop).await;
    drop(asking);
    served
}

fn router(states: watch::Receiver<Arc<DashboardState>>) -> Router {
    Router::new()
        .route("/", get(|| std::future::ready(page())))
        .route("/api/state", get(state))
        .route("/health", get(|| std::future::ready("ok\n")))
        .with_state(states)
}

fn page() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-cache")], Html(PAGE))
}

async fn state(State(states): State<watch::Receiver<Arc<DashboardState>>>) -> impl IntoResponse {
    let mut state = DashboardState::clone(&states.borrow());
    state.now_ms = wall_ms();
    ([(header::CACHE_CONTROL, "no-store")], Json(state))
}

async fn ask_forever(options: DashboardOptions, states: watch::Sender<Arc<DashboardState>>) {
    let mut watched = Watched::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (attempt, clusters) = tokio::join!(ask(&options.counting), clusters(&options));
        watched.record(attempt);
        states.send_replace(Arc::new(picture(&options, &watched, clusters.as_ref())));
    }
}

async fn ask(counting: &str) -> Attempt {
    let began = lifecycle::now();
    let answer = fetch::get_json(counting, ANSWER).await;
    let latency = lifecycle::now() - began;
    Attempt { at_ms: wall_ms(), latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX), answer }
}

async fn clusters(options: &DashboardOptions) -> Option<EnvoyClusters> {
    let admin = options.envoy_admin.as_deref()?;
    fetch::get_json(&format!("{admin}/clusters?format=json"), ADMIN).await.ok()
}

fn picture(
    options: &DashboardOptions,
    watched: &Watched,
    clusters: Option<&EnvoyClusters>,
) -> DashboardState {
    let upstream = options.counting.trim_start_matches("http://").trim_end_matches('/');
    let answer = watched.last.as_ref().filter(|_| watched.link.up);
    DashboardState {
        count: watched.last.as_ref().map(|answer| answer.count),
        link: watched.link.clone(),
        path: path::hops(&options.datacenter, upstream, clusters, answer),
        history: watched.history.iter().copied().collect(),
        now_ms: wall_ms(),
    }
}

fn wall_ms() -> u64 {
    let since = lifecycle::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_counter_that_is_not_there_is_a_link_down_with_its_reason() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let options = DashboardOptions {
            listen: free,
            counting: format!("http://{free}"),
            datacenter: "primary".into(),
            envoy_admin: None,
        };
        let (sender, mut states) = watch::channel(Arc::new(picture(&options, &Watched::default(), None)));
        let _asking = lifecycle::spawn("test.ask", ask_forever(options, sender));
        states.changed().await.unwrap();
        let state = states.borrow().clone();
        assert!(!state.link.up && state.count.is_none());
        let error = state.link.error.as_deref().unwrap();
        assert!(error.contains("refused"), "{error}");
        assert_eq!(state.path.len(), 6);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "src=", "<link", "@import", "url("] {
            assert!(!PAGE.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
        }
    }
}
