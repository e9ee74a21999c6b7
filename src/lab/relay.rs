//! Owns one way between the datacenters: a TCP relay in front of a gateway's WAN address, which can be cut, slowed,
//! reset, or made to pass one way only while the lab runs. It must not know what passes.
//!
//! A relay is no wire. What differs: a caller is connected before the gateway was dialled, so a gateway that is gone
//! shows as a reset instead of a refusal; and while the link stalls, the machine's own buffers still take some bytes.

use std::{io, net::SocketAddrV4, num::NonZeroU32, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    lab::{LabError, relay::line::Lines},
    lifecycle::{self, Task},
};

mod line;

/// Connections of one link. Each may hold two buffers, so this bounds a relay's memory; further callers wait.
const MAX_CONNECTIONS: usize = 512;
/// Callers not yet accepted while the link works.
const BACKLOG: i32 = 128;
/// Changes not yet made: one at a time is usual.
const ORDERS: usize = 4;
/// How long the connection may take that fills a silent door. Nobody but the system itself answers it.
const PLUG_LIMIT: Duration = Duration::from_millis(500);
/// After the system refused to accept, for lack of descriptors mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What a link does to what passes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Everything passes.
    #[default]
    Open,
    /// Nothing passes, as in a cut network: connections stall and nobody is told; new ones are neither accepted nor
    /// refused. What stalled goes on when the link is open again.
    Cut,
    /// Connections are reset and new ones refused.
    Reset,
    /// Everything passes, later.
    Slow(Slow),
    /// As cut in one direction; the other one passes. New connections need both.
    OneWay {
        /// What does not pass.
        stalled: Direction,
    },
}

/// How slow a link is, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// From entering the link to leaving it: half of what it adds to a round trip.
    pub delay: Duration,
    /// Of all connections together; none without a limit.
    pub bytes_per_second: Option<NonZeroU32>,
}

/// A direction, seen from the gateway that the link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the callers to the gateway.
    In,
    /// From the gateway to its callers.
    Out,
}

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Passes,
    Slowed(Slow),
    Stalls,
}

/// What happens to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    Silent,
    Shut,
}

impl LinkState {
    fn flow(self, direction: Direction) -> Flow {
        match self {
            Self::Open => Flow::Passes,
            Self::Slow(slow) => Flow::Slowed(slow),
            Self::OneWay { stalled } if stalled != direction => Flow::Passes,
            Self::Cut | Self::Reset | Self::OneWay { .. } => Flow::Stalls,
        }
    }

    fn door(self) -> Door {
        match self {
            Self::Open | Self::Slow(_) => Door::Open,
            Self::Cut | Self::OneWay { .. } => Door::Silent,
            Self::Reset => Door::Shut,
        }
    }
}

/// A link while it is there. Dropping it ends all that goes over it.
#[derive(Debug)]
pub struct Link {
    listen: SocketAddrV4,
    orders: mpsc::Sender<Order>,
    states: watch::Receiver<LinkState>,
    _keeper: Task<()>,
}

#[derive(Debug)]
struct Order {
    state: LinkState,
    done: oneshot::Sender<io::Result<()>>,
}

impl Link {
    /// An open link: what connects to `listen` is connected with `gateway`.
    ///
    /// Errors: the address cannot be listened on.
    pub async fn start(listen: SocketAddrV4, gateway: SocketAddrV4) -> Result<Self, LabError> {
        let (state_sender, states) = watch::channel(LinkState::Open);
        let (orders, inbox) = mpsc::channel(ORDERS);
        let mut keeper = Keeper {
            listen,
            gateway,
            state: state_sender,
            lines: Arc::default(),
            listener: None,
            plug: None,
            open: JoinSet::new(),
        };
        keeper.obey(LinkState::Open).await.map_err(|reason| busy(listen, reason))?;
        let _keeper = lifecycle::spawn("lab.link", keeper.run(inbox));
        Ok(Self { listen, orders, states, _keeper })
    }

    /// Changes what the link does, for what passes it now and what comes. Returns once it is so.
    ///
    /// Errors: after [`LinkState::Reset`], when somebody else has taken the address.
    pub async fn set(&self, state: LinkState) -> Result<(), LabError> {
        let (done, outcome) = oneshot::channel();
        let gone = || io::Error::other("the link's task has ended");
        let outcome = match self.orders.send(Order { state, done }).await {
            Ok(()) => outcome.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        outcome.map_err(|reason| busy(self.listen, reason))
    }

    /// What the link does now.
    pub fn state(&self) -> LinkState {
        *self.states.borrow()
    }
}

fn busy(listen: SocketAddrV4, reason: io::Error) -> LabError {
    LabError::Busy { address: *listen.ip(), port: listen.port(), reason }
}

/// The task that accepts and that changes the state.
struct Keeper {
    listen: SocketAddrV4,
    gateway: SocketAddrV4,
    state: watch::Sender<LinkState>,
    lines: Arc<Lines>,
    listener: Option<TcpListener>,
    /// Our own connection in the queue of a silent door: the system drops what asks while the queue is full.
    plug: Option<TcpStream>,
    open: JoinSet<()>,
}

impl Keeper {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let accepts = self.state.borrow().door() == Door::Open && self.open.len() < MAX_CONNECTIONS;
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(Order { state, done }) = order else { return };
                    // Whoever asked may have given up waiting.
                    let _ = done.send(self.obey(state).await);
                }
                Some(_) = self.open.join_next() => {}
                caller = accept(self.listener.as_ref()), if accepts => self.connect(caller).await,
            }
        }
    }

    async fn connect(&mut self, accepted: io::Result<(TcpStream, std::net::SocketAddr)>) {
        match accepted {
            // Nobody serves a plug that was pulled; it may be found in the queue after the door opened.
            Ok((caller, from)) if from.ip() != *self.listen.ip() => {
                let states = self.state.subscribe();
                self.open.spawn(line::carry(caller, self.gateway, states, Arc::clone(&self.lines)));
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }

    async fn obey(&mut self, state: LinkState) -> io::Result<()> {
        self.state.send_replace(state);
        self.plug = None;
        match state.door() {
            Door::Open => listen(self.listener().await?, BACKLOG),
            Door::Silent => {
                listen(self.listener().await?, 0)?;
                self.plug = plug(self.listen).await;
                Ok(())
            }
            Door::Shut => {
                self.listener = None;
                while self.open.join_next().await.is_some() {}
                Ok(())
            }
        }
    }

    async fn listener(&mut self) -> io::Result<&TcpListener> {
        if self.listener.is_none() {
            self.listener = Some(TcpListener::bind(self.listen).await?);
        }
        self.listener.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Never anything without a listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, std::net::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Linux takes another backlog of a socket that listens already.
fn listen(listener: &TcpListener, backlog: i32) -> io::Result<()> {
    SockRef::from(listener).listen(backlog)
}

/// With a backlog of 0 the queue holds one connection. Ours comes from the link's own address, which tells it from a
/// caller. When it is not taken, some caller was quicker, and the queue is full all the same.
async fn plug(listen: SocketAddrV4) -> Option<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddrV4::new(*listen.ip(), 0).into()).ok()?;
    tokio::time::timeout(PLUG_LIMIT, socket.connect(listen.into())).await.ok()?.ok()
}

#[cfg(test)]
mod tests;
