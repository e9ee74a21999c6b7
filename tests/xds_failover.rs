//! Failover as the real Envoy does it: an aggregate of two targets, with traffic.

use std::{collections::BTreeMap, net::SocketAddr};

use causeway::{
    lifecycle::{Task, spawn},
    mesh::{
        cluster::{self, Manner},
        endpoints::Members,
    },
    model::{chain::Protocol, mesh::TlsParams},
    xds::resource::{
        Resource,
        cluster::{Cluster, Discovery, HttpVersion, UpstreamTls},
        endpoints::{
            Endpoint,
            EndpointHealth::{self, Healthy, Unhealthy},
        },
        filter::{HttpManager, NetworkFilter, Routes},
        secret::TlsSecrets,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    xds_envoy::Rig,
    xds_rig::{FreeAddress, PATIENCE, chain, listener, route, tcp},
};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// So many connections in a row tell where all of them go.
const MANY: usize = 30;

/// A server that says who it is.
struct Backend {
    at: SocketAddr,
    _task: Task<()>,
}

impl Backend {
    async fn start(says: &'static str) -> Self {
        Self::on(TcpListener::bind("127.52.0.1:0").await.unwrap(), says)
    }

    fn on(sockets: TcpListener, says: &'static str) -> Self {
        let at = sockets.local_addr().unwrap();
        let serve = async move {
            while let Ok((mut socket, _)) = sockets.accept().await {
                // A client that is gone already is nobody's concern.
                let _ = socket.write_all(says.as_bytes()).await;
            }
        };
        Self { at, _task: spawn("test.backend", serve) }
    }
}

/// An address on which nothing listens.
fn free() -> FreeAddress {
    FreeAddress::take([127, 52, 0, 2].into()).unwrap()
}

fn target(
    name: &str,
    members: &[(SocketAddr, EndpointHealth)],
    http: HttpVersion,
    is_last: bool,
) -> Vec<Resource> {
    let members: BTreeMap<_, _> =
        members.iter().map(|(at, health)| ((*at).into(), Endpoint { weight: 1, health: *health })).collect();
    let manner = Manner { connect_timeout_ms: 1_000, http, balance: None };
    let secrets = TlsSecrets { leaf: "leaf".into(), roots: "roots".into() };
    let params = TlsParams::default();
    let tls = UpstreamTls { sni: name.into(), sans: [name.to_owned()].into(), secrets, params };
    let plain = Cluster { tls: None, ..cluster::upstream(name, Discovery::Eds, manner, tls) };
    Members::Addresses(members).into_successive(plain, is_last).collect()
}

/// An upstream that listens on `at`, with these members of its first target and those of its second.
fn upstream(
    at: SocketAddr,
    filter: NetworkFilter,
    first: &[(SocketAddr, EndpointHealth)],
    second: &[(SocketAddr, EndpointHealth)],
) -> Vec<Resource> {
    let is_http = matches!(filter, NetworkFilter::Http(_));
    let http = HttpVersion::of(if is_http { Protocol::Http2 } else { Protocol::Tcp });
    let children = vec!["first".to_owned(), "second".to_owned()];
    let mut resources = target("first", first, http, false);
    resources.extend(target("second", second, http, true));
    resources.push(cluster::aggregate("both", children, 1_000));
    resources.push(Resource::Listener(listener(
        "both",
        &at.to_string(),
        vec![chain("both", &[], vec![filter])],
    )));
    resources
}

/// Who answers a connection; nobody, if it ends without a word.
async fn answer(at: SocketAddr) -> Option<String> {
    let mut text = String::new();
    TcpStream::connect(at).await.ok()?.read_to_string(&mut text).await.ok()?;
    Some(text).filter(|text| !text.is_empty())
}

/// Connects until `who` answers, and then many times more: nobody else may. Returns the connections before.
async fn all_go_to(who: &str, at: SocketAddr) -> usize {
    let mut before = 0;
    let reached = async {
        while answer(at).await.as_deref() != Some(who) {
            before += 1;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{who} never answers"));
    for n in 0..MANY {
        assert_eq!(answer(at).await.as_deref(), Some(who), "connection {n} after {before}");
    }
    before
}

#[tokio::test]
async fn the_next_target_takes_over_when_no_endpoint_is_healthy_and_not_before() {
    let (first, second) = (Backend::start("first").await, Backend::start("second").await);
    let (front, dead) = (free(), free());
    let (at, dead) = (front.at, dead.at);
    let with =
        |health| upstream(at, tcp("both"), &[(first.at, health), (dead, Unhealthy)], &[(second.at, Healthy)]);
    // Half of the first target's endpoints are unhealthy: Envoy by itself would send the next one a share.
    let mut rig = Rig::start(with(Healthy)).await;
    all_go_to("first", at).await;
    for (health, who) in [(Unhealthy, "second"), (Healthy, "first")] {
        rig.offer(with(health));
        rig.settled(6).await;
        all_go_to(who, at).await;
    }
}

#[tokio::test]
async fn one_address_that_nobody_answers_on_is_given_up_for_the_next_target() {
    let second = Backend::start("second").await;
    let (front, dead) = (free(), free());
    let (at, dead) = (front.at, dead.at);
    let _rig = Rig::start(upstream(at, tcp("both"), &[(dead, Healthy)], &[(second.at, Healthy)])).await;
    let failed = all_go_to("second", at).await;
    println!("connections that failed before the next target took over: {failed}");
    assert!((1..20).contains(&failed), "{failed}");
}

#[tokio::test]
async fn the_last_address_is_tried_on_however_often_nobody_answered() {
    let (front, first, second) = (free(), free(), free());
    let (at, unhealthy) = (front.at, free());
    // One that is known to be unhealthy is nothing to fall back to, and none that counts.
    let last = [(second.at, Healthy), (unhealthy.at, Unhealthy)];
    let rig = Rig::start(upstream(at, tcp("both"), &[(first.at, Healthy)], &last)).await;
    let spared = async || {
        let stat = rig.admin().stat("cluster.second.outlier_detection.ejections_overflow").await;
        stat.unwrap().is_some_and(|count| count > 0)
    };
    let tried = async {
        while !spared().await {
            assert_eq!(answer(at).await, None);
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.unwrap();
    let _second = Backend::on(second.held.listen(64).unwrap(), "second");
    assert_eq!(all_go_to("second", at).await, 0);
}

#[tokio::test]
async fn an_address_of_the_last_target_that_nobody_answers_on_is_given_up_for_another_one_of_it() {
    let (front, first, dead) = (free(), free(), free());
    let (at, alive) = (front.at, Backend::start("alive").await);
    let last = [(dead.at, Healthy), (alive.at, Healthy)];
    let _rig = Rig::start(upstream(at, tcp("both"), &[(first.at, Healthy)], &last)).await;
    let given_up = async {
        // In turns at first: so many answers in a row do not come by chance.
        let mut in_a_row = 0;
        while in_a_row < MANY {
            in_a_row = if answer(at).await.is_some() { in_a_row + 1 } else { 0 };
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.unwrap();
}

#[tokio::test]
async fn the_protocol_behind_an_aggregate_is_that_of_its_targets() {
    let sockets = TcpListener::bind("127.52.0.1:0").await.unwrap();
    let (front, second) = (free(), Backend::start("second").await);
    let at = front.at;
    let filter = NetworkFilter::Http(HttpManager {
        stat_prefix: "both".into(),
        http2: false,
        routes: Routes::Inline(route("both", "both")),
        filters: vec![],
        forward_client_cert: false,
        tracing: None,
    });
    let first = [(sockets.local_addr().unwrap(), Healthy)];
    let _rig = Rig::start(upstream(at, filter, &first, &[(second.at, Healthy)])).await;
    let read = async {
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: both\r\n\r\n").await.unwrap();
        let mut preface = vec![0; PREFACE.len()];
        sockets.accept().await.unwrap().0.read_exact(&mut preface).await.unwrap();
        preface
    };
    assert_eq!(tokio::time::timeout(PATIENCE, read).await.unwrap(), PREFACE);
}
