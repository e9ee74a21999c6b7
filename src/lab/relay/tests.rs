use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A limit that only a fault reaches.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long nothing must happen: longer than a relay takes to pass a byte, also on a busy machine.
const QUIET: Duration = Duration::from_millis(300);

/// A link to an echo: all that a gateway is to it.
struct Bench {
    link: Link,
    address: SocketAddrV4,
    gateway: TcpListener,
}

/// Links have addresses of their own in a lab, and callers come from others.
const LINK: Ipv4Addr = Ipv4Addr::new(127, 255, 254, 1);

async fn bench() -> Bench {
    let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let std::net::SocketAddr::V4(behind) = gateway.local_addr().unwrap() else { unreachable!() };
    let free = std::net::TcpListener::bind((LINK, 0)).unwrap().local_addr().unwrap().port();
    let address = SocketAddrV4::new(LINK, free);
    Bench { link: Link::start(address, behind).await.unwrap(), address, gateway }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have come about long ago")
}

async fn connect(address: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.connect(address.into()).await
}

impl Bench {
    /// A caller's end and the gateway's end of one connection over the link.
    async fn pair(&self) -> (TcpStream, TcpStream) {
        let (caller, accepted) =
            soon(async { tokio::join!(connect(self.address), self.gateway.accept()) }).await;
        (caller.unwrap(), accepted.unwrap().0)
    }
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"word").await.unwrap();
    arrives(to).await;
}

async fn arrives(at: &mut TcpStream) {
    let mut word = [0; 4];
    soon(at.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"word");
}

async fn is_silent(at: &mut TcpStream) {
    let read = tokio::time::timeout(QUIET, at.read(&mut [0; 4])).await;
    assert!(read.is_err(), "{read:?}");
}

async fn is_reset(at: &mut TcpStream) {
    let error = soon(at.read(&mut [0; 4])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

async fn nobody_answers(address: SocketAddrV4) {
    let connected = tokio::time::timeout(QUIET, connect(address)).await;
    assert!(connected.is_err(), "{connected:?}");
}

#[tokio::test]
async fn an_open_link_passes_bytes_and_ends_and_breaks() {
    let bench = bench().await;
    let (mut caller, mut gateway) = bench.pair().await;
    passes(&mut caller, &mut gateway).await;
    caller.shutdown().await.unwrap();
    assert_eq!(soon(gateway.read(&mut [0; 4])).await.unwrap(), 0);
    passes(&mut gateway, &mut caller).await;
    drop(gateway);
    assert_eq!(soon(caller.read(&mut [0; 4])).await.unwrap(), 0);

    let (mut caller, gateway) = bench.pair().await;
    gateway.set_zero_linger().unwrap();
    drop(gateway);
    is_reset(&mut caller).await;
    drop(bench.gateway);
    is_reset(&mut soon(connect(bench.address)).await.unwrap()).await;
}

#[tokio::test]
async fn what_a_cut_link_holds_goes_on_afterwards() {
    let bench = bench().await;
    let (mut caller, mut gateway) = bench.pair().await;
    bench.link.set(LinkState::Cut).await.unwrap();
    caller.write_all(b"word").await.unwrap();
    is_silent(&mut gateway).await;
    gateway.write_all(b"word").await.unwrap();
    is_silent(&mut caller).await;
    nobody_answers(bench.address).await;
    nobody_answers(bench.address).await;
    let mut waiting = Box::pin(connect(bench.address));
    assert!(tokio::time::timeout(QUIET, &mut waiting).await.is_err());
    bench.link.set(LinkState::Open).await.unwrap();
    arrives(&mut gateway).await;
    arrives(&mut caller).await;
    let mut late = soon(waiting).await.unwrap();
    let (mut accepted, _) = soon(bench.gateway.accept()).await.unwrap();
    passes(&mut late, &mut accepted).await;
}

#[tokio::test]
async fn a_reset_link_resets_both_sides_and_refuses() {
    let bench = bench().await;
    let (mut caller, mut gateway) = bench.pair().await;
    passes(&mut caller, &mut gateway).await;
    bench.link.set(LinkState::Reset).await.unwrap();
    is_reset(&mut caller).await;
    is_reset(&mut gateway).await;
    let refused = soon(connect(bench.address)).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(bench.link.state(), LinkState::Reset);
    bench.link.set(LinkState::Open).await.unwrap();
    let (mut caller, mut gateway) = bench.pair().await;
    passes(&mut caller, &mut gateway).await;
}

#[tokio::test]
async fn one_direction_stalls_and_the_other_passes() {
    let bench = bench().await;
    let (mut caller, mut gateway) = bench.pair().await;
    bench.link.set(LinkState::OneWay { stalled: Direction::In }).await.unwrap();
    passes(&mut gateway, &mut caller).await;
    caller.write_all(b"word").await.unwrap();
    is_silent(&mut gateway).await;
    nobody_answers(bench.address).await;
    bench.link.set(LinkState::OneWay { stalled: Direction::Out }).await.unwrap();
    arrives(&mut gateway).await;
    gateway.write_all(b"word").await.unwrap();
    is_silent(&mut caller).await;
}

#[tokio::test]
async fn a_slow_link_takes_its_time_in_each_direction() {
    const DELAY: Duration = Duration::from_millis(120);
    let bench = bench().await;
    let (mut caller, mut gateway) = bench.pair().await;
    bench.link.set(LinkState::Slow(Slow { delay: DELAY, bytes_per_second: None })).await.unwrap();
    let began = lifecycle::now();
    passes(&mut caller, &mut gateway).await;
    passes(&mut gateway, &mut caller).await;
    assert!(began.elapsed() >= 2 * DELAY);

    let rate = NonZeroU32::new(100_000);
    let slow = Slow { delay: Duration::ZERO, bytes_per_second: rate };
    bench.link.set(LinkState::Slow(slow)).await.unwrap();
    let began = lifecycle::now();
    let sent = vec![7; 30_000];
    let mut seen = vec![0; sent.len()];
    let (wrote, read) =
        soon(async { tokio::join!(caller.write_all(&sent), gateway.read_exact(&mut seen)) }).await;
    wrote.and(read.map(drop)).unwrap();
    assert!(seen == sent && began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let std::net::SocketAddr::V4(address) = taken.local_addr().unwrap() else { unreachable!() };
    let error = Link::start(address, address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{address} cannot be listened on")), "{error}");
}
