//! The way to other agents: [`Peers`] over gRPC.
//!
//! One connection for each target carries all its calls; each follower has one of its own. Every connection begins with
//! `Hello`, which changes nothing: whatever fails until then was executed by nobody, and is [`PeerError::Unreached`] or
//! [`PeerError::Misfit`]. What fails later is [`PeerError::Unknown`] unless the request never left this process or the
//! other agent itself says otherwise.

mod follow;
mod link;
mod pool;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    lifecycle,
    model::{
        instance::{Host, HostPort},
        name::Datacenter,
        sync::Position,
    },
    sync::peer::{
        Absent, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError, Peers, Target,
        convert,
        facts::Facts,
        grpc::{link::Link, pool::Slot},
    },
};

/// A target that cannot be reached is known to be so by then, whatever time the caller has.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Of several ways to a target each gets its share of that, but not less than two turns across a continent.
const WAY_LIMIT: Duration = Duration::from_millis(500);
/// An answer to a greeting. For another datacenter some records are read from Consul.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// So many targets are remembered beyond those in use: agents of the own datacenter come and go.
const SPARE_SLOTS: usize = 64;

/// Opens connections. Clones open them in the same way.
pub trait Connect: Clone + Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens one.
    fn connect(&self, to: &HostPort) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Over TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Connect for Tcp {
    type Io = TcpStream;

    async fn connect(&self, to: &HostPort) -> io::Result<TcpStream> {
        let stream = match &to.host {
            Host::Ip(ip) => TcpStream::connect((*ip, to.port)).await?,
            Host::Name(name) => TcpStream::connect((name.as_str(), to.port)).await?,
        };
        // A message is written whole: waiting to fill a packet would only delay its end.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Other agents over gRPC. Clones share connections; with the last one they close.
pub struct GrpcPeers<C = Tcp>(Arc<Shared<C>>);

struct Shared<C> {
    connector: C,
    facts: Facts,
    /// What connections are opened with: the latest that the engine said of this agent.
    me: watch::Sender<Hello>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    followers: Mutex<JoinSet<()>>,
}

impl<C> Clone for GrpcPeers<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Connect> GrpcPeers<C> {
    /// Ways to the peers of these facts. `me` opens connections until the engine greets with something newer.
    pub fn new(facts: Facts, me: Hello, connector: C) -> Self {
        let (me, slots, followers) = (watch::Sender::new(me), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { connector, facts, me, slots, followers }))
    }

    /// The connection that carries the calls to a target, opened if there is none.
    async fn link(&self, to: &Target) -> Result<Arc<Link>, PeerError> {
        let slot = {
            let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() > SPARE_SLOTS {
                slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.is_open());
            }
            slots.entry(key(to)).or_default().clone()
        };
        slot.link(|preferred| self.open(to, preferred)).await
    }

    /// A new connection, by the way that worked last if it still is one, and greeted.
    async fn open(&self, to: &Target, preferred: Option<HostPort>) -> Result<Link, PeerError> {
        let identity = self.0.facts.identity.borrow().clone();
        let identity = identity.ok_or_else(|| {
            let text = "this agent has no certificate yet: Consul has not given one for causeway-sync, which takes \
                        service:write on it where Consul has ACLs";
            PeerError::Unreached(text.into())
        })?;
        let (dc, mut ways) = self.ways(to, identity.datacenter())?;
        if let Some(at) = preferred.and_then(|preferred| ways.iter().position(|way| *way == preferred)) {
            ways.rotate_left(at);
        }
        let (config, sni) = identity.client(&dc).map_err(|error| PeerError::Misfit(error.to_string()))?;
        let hello = self.0.me.borrow().clone();
        let each = (CONNECT_LIMIT / u32::try_from(ways.len()).unwrap_or(u32::MAX)).max(WAY_LIMIT);
        let until = lifecycle::now() + CONNECT_LIMIT;
        let mut told = PeerError::Unreached(format!("datacenter {dc} has no way that leads to it"));
        for way in ways {
            let end = until.min(lifecycle::now() + each);
            let opening = link::open(&self.0.connector, &way, config.clone(), sni.clone());
            let opened = timeout_at(end, async { opening.await?.greet(&dc, hello.clone()).await }).await;
            match opened.unwrap_or_else(|_| Err(PeerError::Unreached(format!("{way}: no answer in time")))) {
                Ok(link) => return Ok(link),
                // What does not fit tells more than what is closed.
                Err(error @ PeerError::Misfit(_)) => told = error,
                Err(error) if !matches!(told, PeerError::Misfit(_)) => told = error,
                Err(_) => {}
            }
        }
        Err(told)
    }

    fn ways(&self, to: &Target, own: &Datacenter) -> Result<(Datacenter, Vec<HostPort>), PeerError> {
        match to {
            Target::Datacenter(dc) => {
                let ways = self.0.facts.routes.borrow().to(dc).map_err(PeerError::Unreached)?;
                Ok((dc.clone(), ways))
            }
            Target::Doer(doer) => {
                let address = doer.address.rsplit_once(':').and_then(|(host, port)| {
                    Some(HostPort::new(host.trim_matches(['[', ']']), port.parse().ok()?))
                });
                let address = address.ok_or_else(|| {
                    PeerError::Unreached(format!("{} has no usable address: {}", doer.node, doer.address))
                })?;
                Ok((own.clone(), vec![address]))
            }
        }
    }

    async fn link_until(&self, to: &Target, until: Instant) -> Result<Arc<Link>, PeerError> {
        let late = |_| PeerError::Unreached("no connection came about in time".into());
        timeout_at(until, self.link(to)).await.map_err(late)?
    }
}

impl<C: Connect> Peers for GrpcPeers<C> {
    async fn hello(&self, to: &Target, hello: Hello) -> Result<HelloReply, PeerError> {
        self.0.me.send_if_modified(|me| {
            let is_new = *me != hello;
            me.clone_from(&hello);
            is_new
        });
        let until = lifecycle::now() + HELLO_LIMIT;
        let link = self.link_until(to, until).await?;
        link.hello(hello, until).await
    }

    async fn forward(
        &self,
        to: &Target,
        request: Forward,
        deadline: Duration,
    ) -> Result<Forwarded, PeerError> {
        let until = lifecycle::now() + deadline;
        let request = convert::forward_out(request);
        let bytes = request.encoded_len();
        if bytes > convert::MAX_MESSAGE_BYTES {
            return Err(PeerError::Refused(format!(
                "the request is {bytes} bytes, and agents pass on at most {}; send less at once",
                convert::MAX_MESSAGE_BYTES
            )));
        }
        let link = self.link_until(to, until).await?;
        link.forward(request, until).await
    }

    async fn follow(
        &self,
        to: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        let link = self.open(to, None).await?;
        let (items, pump) = follow::begin(link, start, acks).await?;
        let mut followers = self.0.followers.lock().unwrap_or_else(PoisonError::into_inner);
        while followers.try_join_next().is_some() {}
        followers.spawn(pump);
        Ok(items)
    }

    async fn absent(&self, to: &Target, absent: Absent, deadline: Duration) -> Result<(), PeerError> {
        let until = lifecycle::now() + deadline;
        let link = self.link_until(to, until).await?;
        link.absent(convert::absent_out(absent), until).await
    }
}

fn key(to: &Target) -> String {
    match to {
        Target::Datacenter(dc) => format!("datacenter {dc}"),
        Target::Doer(doer) => format!("agent {}", doer.address),
    }
}
