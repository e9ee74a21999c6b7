//! Owns one connection over a link: its bytes in both directions, as the link's state lets them pass.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddrV4,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::Instant,
};

use crate::{
    lab::relay::{Direction, Flow, LinkState, Slow},
    lifecycle,
};

/// What one connection may have under way in one direction: enough for 3 MB/s at 80 ms.
const MAX_UNDER_WAY_BYTES: usize = 256 << 10;
/// One read.
const CHUNK_BYTES: usize = 16 << 10;

/// Both directions of a link, which its connections share.
#[derive(Debug, Default)]
pub(super) struct Lines {
    inward: Mutex<Line>,
    outward: Mutex<Line>,
}

/// One direction of a link: when it is free for the next bytes.
#[derive(Debug, Default)]
struct Line {
    free_at: Option<Instant>,
}

impl Line {
    /// When bytes that enter now leave. Those of other connections that entered before leave before.
    fn due(&mut self, now: Instant, bytes: usize, slow: Slow) -> Instant {
        let Some(rate) = slow.bytes_per_second else { return now + slow.delay };
        let takes = Duration::from_secs_f64(bytes as f64 / f64::from(rate.get()));
        let sent = self.free_at.map_or(now, |free_at| free_at.max(now)) + takes;
        self.free_at = Some(sent);
        sent + slow.delay
    }
}

impl Lines {
    fn due(&self, direction: Direction, bytes: usize, flow: Flow) -> Instant {
        let now = lifecycle::now();
        let Flow::Slowed(slow) = flow else { return now };
        let line = match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        };
        line.lock().unwrap_or_else(PoisonError::into_inner).due(now, bytes, slow)
    }
}

/// Carries one caller's connection until both sides have closed it, one side broke it, or the link is reset. Unless both
/// closed it, both see a reset.
pub(super) async fn carry(
    caller: TcpStream,
    gateway: SocketAddrV4,
    states: watch::Receiver<LinkState>,
    lines: Arc<Lines>,
) {
    let mut resets = states.clone();
    tokio::select! {
        biased;
        // The end of the link itself is a reset as well.
        _ = resets.wait_for(|state| *state == LinkState::Reset) => {}
        // Whom it fails is told by the socket's end.
        _ = both_ways(caller, gateway, &states, &lines) => {}
    }
}

async fn both_ways(
    mut caller: TcpStream,
    gateway: SocketAddrV4,
    states: &watch::Receiver<LinkState>,
    lines: &Lines,
) -> io::Result<()> {
    // From here on a socket that is dropped resets its connection.
    caller.set_zero_linger()?;
    let mut gateway = TcpStream::connect(gateway).await?;
    gateway.set_zero_linger()?;
    for stream in [&caller, &gateway] {
        stream.set_nodelay(true)?;
    }
    let (from_caller, to_caller) = caller.split();
    let (from_gateway, to_gateway) = gateway.split();
    let pump = |direction| Pump {
        direction,
        states: states.clone(),
        lines,
        queue: VecDeque::new(),
        under_way_bytes: 0,
    };
    tokio::try_join!(
        pump(Direction::In).run(from_caller, to_gateway),
        pump(Direction::Out).run(from_gateway, to_caller),
    )?;
    for stream in [&caller, &gateway] {
        SockRef::from(stream).set_linger(None)?;
    }
    Ok(())
}

struct Chunk {
    due: Instant,
    bytes: Bytes,
}

/// One direction of one connection.
struct Pump<'a> {
    direction: Direction,
    states: watch::Receiver<LinkState>,
    lines: &'a Lines,
    queue: VecDeque<Chunk>,
    under_way_bytes: usize,
}

impl Pump<'_> {
    /// Until the sender has closed and all of its bytes have left.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        let mut is_ended = false;
        loop {
            let flow = self.states.borrow_and_update().flow(self.direction);
            let moves = flow != Flow::Stalls;
            if moves && is_ended && self.queue.is_empty() {
                return to.shutdown().await;
            }
            let reads = moves && !is_ended && self.under_way_bytes < MAX_UNDER_WAY_BYTES;
            buffer.reserve(CHUNK_BYTES);
            tokio::select! {
                biased;
                changed = self.states.changed() => changed.map_err(|_| io::ErrorKind::ConnectionAborted)?,
                written = send(&mut to, self.queue.front(), flow), if moves => self.left(written?),
                read = from.read_buf(&mut buffer), if reads => match read? {
                    0 => is_ended = true,
                    _ => self.entered(buffer.split().freeze(), flow),
                },
            }
        }
    }

    fn entered(&mut self, bytes: Bytes, flow: Flow) {
        self.under_way_bytes += bytes.len();
        let due = self.lines.due(self.direction, bytes.len(), flow);
        self.queue.push_back(Chunk { due, bytes });
    }

    fn left(&mut self, count: usize) {
        self.under_way_bytes -= count;
        let Some(first) = self.queue.front_mut() else { return };
        first.bytes.advance(count);
        if first.bytes.is_empty() {
            self.queue.pop_front();
        }
    }
}

/// Writes of the first chunk once it is due, and at once when the link is slow no more. Cancel-safe. Never, of none.
async fn send(to: &mut WriteHalf<'_>, first: Option<&Chunk>, flow: Flow) -> io::Result<usize> {
    let Some(chunk) = first else { return std::future::pending().await };
    if flow != Flow::Passes {
        tokio::time::sleep_until(chunk.due).await;
    }
    to.write(&chunk.bytes).await
}

#[cfg(test)]
mod tests;
