//! Peers that ask for nothing, and peers that fall silent.

use std::sync::atomic::AtomicUsize;

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    lifecycle::{now, spawn},
    xds::server::bind_tcp,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Nine bytes of header: length, type, flags, stream.
const NO_SETTINGS: [u8; 9] = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
/// `POST http /` in HPACK's static table, on stream 1, which stays open.
const REQUEST: [u8; 12] = [0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84];
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Far beyond all limits here; with paused time it costs nothing.
const LONG: Duration = Duration::from_secs(600);

/// Far beyond what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn manners(keepalive: Keepalive) -> Manners {
    Manners { max_age: None, max_streams: 1, keepalive }
}

/// Speaks HTTP/2 by hand: asks once if it is to, reads what comes until the end, and answers so many pings.
async fn peer<I: AsyncRead + AsyncWrite>(io: I, asks: bool, answers: usize, pings: Arc<AtomicUsize>) {
    let (mut from, mut to) = split(io);
    to.write_all(PREFACE).await.unwrap();
    to.write_all(&NO_SETTINGS).await.unwrap();
    if asks {
        to.write_all(&REQUEST).await.unwrap();
    }
    let mut header = [0; 9];
    while from.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await.unwrap();
        if header[3] == PING && header[4] & ACK == 0 && pings.fetch_add(1, Ordering::SeqCst) < answers {
            header[4] |= ACK;
            to.write_all(&[&header[..], &payload].concat()).await.unwrap();
        }
    }
}

/// How long such a peer is served, and how many pings it was sent.
async fn served(asks: bool, answers: usize) -> (Option<Duration>, usize) {
    let (_open, stop) = Stop::pair();
    let connections = Connections::new(Routes::default(), manners(KEEPALIVE), stop);
    let (client, io) = tokio::io::duplex(1024);
    let pings = Arc::new(AtomicUsize::new(0));
    let began = now();
    let _peer = spawn("test.peer", peer(client, asks, answers, pings.clone()));
    let ended = timeout(LONG, connections.converse(TokioIo::new(io), Peer::Unix)).await;
    (ended.ok().map(|()| began.elapsed()), pings.load(Ordering::SeqCst))
}

fn in_seconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_cut() {
    let (_open, stop) = Stop::pair();
    let connections = Connections::new(Routes::default(), manners(KEEPALIVE), stop);
    let (_client, io) = tokio::io::duplex(1024);
    let began = now();
    connections.converse(TokioIo::new(io), Peer::Unix).await;
    assert_eq!(began.elapsed().as_secs(), FIRST_REQUEST_LIMIT.as_secs());
    // Nor is one kept that does all but ask.
    assert_eq!(in_seconds(served(false, usize::MAX).await.0), Some(FIRST_REQUEST_LIMIT.as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_cut() {
    let (interval, limit) = (KEEPALIVE.interval.as_secs(), KEEPALIVE.limit.as_secs());
    let (time, pings) = served(true, 0).await;
    assert_eq!((in_seconds(time), pings), (Some(interval + limit), 1));
    let (time, pings) = served(true, 2).await;
    assert_eq!((in_seconds(time), pings), (Some(3 * interval + limit), 3), "silent after two answers");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_is_kept() {
    let (time, pings) = served(true, usize::MAX).await;
    assert_eq!(time, None);
    assert!(pings >= 10, "{pings} pings in {LONG:?}");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_cut_over_tcp() {
    let listener = bind_tcp(([127, 51, 0, 24], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let keepalive = Keepalive { interval: Duration::from_millis(200), limit: Duration::from_millis(100) };
    let (_open, stop) = Stop::pair();
    let connections = Connections::new(Routes::default(), manners(keepalive), stop);
    let _serving = spawn("test.serve", connections.serve(listener));
    let began: Instant = now();
    let pings = Arc::new(AtomicUsize::new(0));
    let silent = peer(TcpStream::connect(address).await.unwrap(), true, 1, pings.clone());
    timeout(PATIENCE, silent).await.expect("the connection is cut");
    assert!(began.elapsed() >= 2 * keepalive.interval, "cut after {:?}", began.elapsed());
    assert_eq!(pings.load(Ordering::SeqCst), 2, "one that was answered, one that was not");
}

#[test]
fn ages_differ_by_a_tenth_at_most() {
    let age = Duration::from_secs(1_000);
    for _ in 0..1_000 {
        assert!((900..=1_100).contains(&jittered(age).as_secs()));
    }
}
