//! Unix sockets and IPv6 with traffic on the real Envoy: an upstream, the sidecar that it leads to over mutual TLS, and
//! the application behind that. Consul 1.8.7 registers no Unix sockets, so this goes without Consul.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use causeway::{
    lifecycle::spawn,
    mesh::{
        cluster::{self, Manner},
        endpoints::Members,
        listener,
    },
    model::{
        mesh::TlsParams,
        registration::{LocalAddress, UnixSocket},
    },
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Discovery, HttpVersion},
        endpoints::{Endpoint, EndpointHealth::Healthy},
        listener::{Direction, DownstreamTls, Listener},
        secret::{Secret, TlsSecrets},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::{
    xds_envoy::Rig,
    xds_rig::{FreeAddress, PATIENCE, SPIFFE_DB, certificates, chain, tcp},
};

/// What the application says to everybody.
const WORD: &str = "from the application";
/// So many connections in a row tell that none fails.
const MANY: usize = 10;
/// How many resources there are.
const ALL: usize = 7;

fn secrets() -> TlsSecrets {
    TlsSecrets { leaf: "leaf".into(), roots: "roots".into() }
}

/// An upstream that listens at `front`, the sidecar at `public`, and the application.
fn both_sidecars(front: Address, public: SocketAddr, application: Address) -> Vec<Resource> {
    let endpoint = Endpoint { weight: 1, health: Healthy };
    let members = Members::Addresses(BTreeMap::from([(public.into(), endpoint)]));
    let tls = cluster::upstream_tls("db", BTreeSet::from([SPIFFE_DB.to_owned()]), secrets());
    let manner = Manner { connect_timeout_ms: 1_000, http: HttpVersion::One, balance: None };
    let [leaf, roots] = certificates(SPIFFE_DB);
    let secret = |name: &str, content| Resource::Secret(Secret { name: name.into(), content });
    let mut resources = vec![
        secret("leaf", leaf),
        secret("roots", roots),
        Resource::Cluster(cluster::upstream("db", Discovery::Eds, manner, tls)),
        cluster::application("local_app", cluster::at(application), 1_000, HttpVersion::One, None),
        Resource::Listener(listening("front", front, Direction::Outbound, "db", None)),
    ];
    resources.extend(members.into_resource("db"));
    let tls = DownstreamTls { secrets: secrets(), alpn: Vec::new(), params: TlsParams::default() };
    let public = listening("public", public.into(), Direction::Inbound, "local_app", Some(tls));
    resources.push(Resource::Listener(public));
    assert_eq!(resources.len(), ALL);
    resources
}

fn listening(
    name: &str,
    address: Address,
    direction: Direction,
    cluster: &str,
    tls: Option<DownstreamTls>,
) -> Listener {
    let mut chain = chain(name, &[], vec![tcp(cluster)]);
    chain.tls = tls;
    Listener {
        name: name.into(),
        stat_prefix: Some(name.into()),
        address,
        direction,
        tls_inspector: false,
        exact_balance: false,
        chains: vec![chain],
    }
}

fn free(ip: impl Into<IpAddr>) -> FreeAddress {
    let ip = ip.into();
    FreeAddress::take(ip)
        .unwrap_or_else(|error| panic!("{ip} cannot be bound: {error}; this machine needs it on loopback"))
}

/// What a socket says until it ends; nothing, where nobody listens yet.
async fn words<S: AsyncRead + Unpin>(connected: io::Result<S>) -> Option<String> {
    let mut text = String::new();
    connected.ok()?.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// Connects until the application is heard, and then many times more: it always is.
async fn is_answered<S: AsyncRead + Unpin>(connect: impl AsyncFn() -> io::Result<S>) {
    let heard = async {
        while words(connect().await).await.as_deref() != Some(WORD) {}
        for n in 0..MANY {
            assert_eq!(words(connect().await).await.as_deref(), Some(WORD), "connection {n}");
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the application is heard");
}

#[tokio::test]
async fn an_upstream_and_an_application_are_on_unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let application = at("application");
    let sockets = UnixListener::bind(&application).unwrap();
    let _application = spawn("test.application", async move {
        while let Ok((mut socket, _)) = sockets.accept().await {
            // A client that is gone already is nobody's concern.
            let _ = socket.write_all(WORD.as_bytes()).await;
        }
    });
    for mode in [0o600, 0o666] {
        let public = free([127, 52, 0, 3]);
        let front = at(&format!("front-{mode:o}"));
        let bind = LocalAddress::Socket(UnixSocket { path: front.clone(), mode: Some(mode) });
        let bind = listener::address(&bind).unwrap();
        let rig = Rig::start(both_sidecars(bind, public.at, Address::pipe(&application))).await;
        rig.settled(ALL).await;
        is_answered(async || UnixStream::connect(&front).await).await;
        let has = Path::new(&front).metadata().unwrap().permissions().mode();
        assert_eq!(has & 0o777, mode, "{has:o}");
    }
}

#[tokio::test]
async fn an_upstream_a_sidecar_and_an_application_are_on_ipv6() {
    let [front, public] = [free(Ipv6Addr::LOCALHOST), free(Ipv6Addr::LOCALHOST)];
    let sockets = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let application = sockets.local_addr().unwrap();
    let _application = spawn("test.application", async move {
        while let Ok((mut socket, _)) = sockets.accept().await {
            // A client that is gone already is nobody's concern.
            let _ = socket.write_all(WORD.as_bytes()).await;
        }
    });
    let rig = Rig::start(both_sidecars(front.at.into(), public.at, application.into())).await;
    rig.settled(ALL).await;
    is_answered(async || TcpStream::connect(front.at).await).await;
}
