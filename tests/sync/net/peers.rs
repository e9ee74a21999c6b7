//! An agent's way to other agents.

use std::{sync::Arc, time::Duration};

use causeway::{
    lifecycle::{self, process},
    model::{
        name::{Datacenter, NodeName},
        sync::Position,
    },
    sync::peer::{
        Absent, FOLLOW_QUEUE, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError,
        Peers, Served, Target,
    },
};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{Net, answer_until};

/// How long a connection is tried.
const CONNECT: Duration = Duration::from_secs(1);

/// After so long without anything on it a connection counts as cut, as HTTP/2's PINGs find out.
const DEAD: Duration = Duration::from_secs(20);

/// What an agent answers, whatever it is made of.
pub(crate) trait Door: Send + Sync {
    fn hello(
        self: Arc<Self>,
        from: Datacenter,
        hello: Hello,
    ) -> BoxFuture<'static, Result<HelloReply, PeerError>>;
    fn forward(
        self: Arc<Self>,
        from: Datacenter,
        request: Forward,
    ) -> BoxFuture<'static, Result<Forwarded, PeerError>>;
    fn follow(
        self: Arc<Self>,
        from: Datacenter,
        start: FollowStart,
        acks: watch::Receiver<Position>,
        items: Items,
    ) -> BoxFuture<'static, ()>;
    fn absent(self: Arc<Self>, from: Datacenter, absent: Absent)
    -> BoxFuture<'static, Result<(), PeerError>>;
}

type Items = mpsc::Sender<Result<FollowItem, PeerError>>;

impl<S: Served> Door for S {
    fn hello(
        self: Arc<Self>,
        from: Datacenter,
        hello: Hello,
    ) -> BoxFuture<'static, Result<HelloReply, PeerError>> {
        Box::pin(async move { Served::hello(&*self, &from, hello).await })
    }

    fn forward(
        self: Arc<Self>,
        from: Datacenter,
        request: Forward,
    ) -> BoxFuture<'static, Result<Forwarded, PeerError>> {
        Box::pin(async move { Served::forward(&*self, &from, request).await })
    }

    fn follow(
        self: Arc<Self>,
        from: Datacenter,
        start: FollowStart,
        acks: watch::Receiver<Position>,
        items: Items,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move { Served::follow(&*self, &from, start, acks, items).await })
    }

    fn absent(
        self: Arc<Self>,
        from: Datacenter,
        absent: Absent,
    ) -> BoxFuture<'static, Result<(), PeerError>> {
        Box::pin(async move { Served::absent(&*self, &from, absent).await })
    }
}

/// The answer to a request, which may have arrived twice.
struct Answered<T> {
    result: T,
    is_doubled: bool,
}

/// An agent that was found.
struct Other {
    node: NodeName,
    datacenter: Datacenter,
    life: u64,
    door: Arc<dyn Door>,
}

/// One agent's way to others. Clones are the same one.
#[derive(Clone)]
pub(crate) struct SimPeers {
    net: Net,
    datacenter: Datacenter,
    node: NodeName,
    life: u64,
}

impl SimPeers {
    pub(crate) fn new(net: &Net, datacenter: &Datacenter, node: &NodeName, life: u64) -> Self {
        Self { net: net.clone(), datacenter: datacenter.clone(), node: node.clone(), life }
    }

    /// Connects: nothing is sent before both ways are there.
    async fn find(&self, to: &Target) -> Result<Other, PeerError> {
        let found: Vec<Other> = {
            let inner = self.net.lock();
            let is_meant = |node: &NodeName, datacenter: &Datacenter| match to {
                Target::Datacenter(name) => name == datacenter,
                Target::Doer(doer) => doer.node == *node,
            };
            let doors = inner.doors.iter().filter(|(node, (datacenter, ..))| is_meant(node, datacenter));
            doors
                .map(|(node, (datacenter, life, door))| Other {
                    node: node.clone(),
                    datacenter: datacenter.clone(),
                    life: *life,
                    door: door.clone(),
                })
                .collect()
        };
        let unreached = |what: &str| Err(PeerError::Unreached(format!("{to:?}: {what}")));
        if found.is_empty() {
            return unreached("nobody listens");
        }
        let at = self.net.pick(&self.lane(to), found.len());
        let Some(other) = found.into_iter().nth(at) else { return unreached("nobody listens") };
        if self.is_cut_from(&other) || self.is_cut_to(&other) {
            tokio::time::sleep(CONNECT).await;
            return unreached("no answer to a connection");
        }
        if self.net.happens(&self.lane(to), |weather| weather.refused) {
            return unreached("connection reset");
        }
        Ok(other)
    }

    fn lane(&self, to: impl std::fmt::Debug) -> String {
        format!("{} {to:?}", self.node)
    }

    fn is_cut_to(&self, other: &Other) -> bool {
        self.net.is_cut(&self.datacenter, &other.datacenter)
    }

    fn is_cut_from(&self, other: &Other) -> bool {
        self.net.is_cut(&other.datacenter, &self.datacenter)
    }

    async fn way(&self, other: &Other) {
        let lane = self.lane(&other.node);
        if other.datacenter == self.datacenter {
            self.net.near(&lane).await
        } else {
            self.net.far(&lane).await
        }
    }

    /// One call, on both ways at the mercy of the network. None when no answer arrives.
    async fn carry<T>(self, other: Other, act: BoxFuture<'static, T>) -> Option<T> {
        self.way(&other).await;
        if self.is_cut_to(&other) {
            return None;
        }
        let result = process::within(self.net.turns(&other.node), act).await;
        if !self.net.is_alive(&other.node, other.life)
            || self.net.happens(&self.lane(&other.node), |weather| weather.unanswered)
        {
            return None;
        }
        self.way(&other).await;
        if self.is_cut_from(&other) {
            return None;
        }
        Some(result)
    }

    async fn call<T: Send + 'static>(
        &self,
        to: &Target,
        within: Duration,
        act: impl Fn(Arc<dyn Door>, Datacenter) -> BoxFuture<'static, Result<T, PeerError>> + Send,
    ) -> Result<Answered<T>, PeerError> {
        let end = lifecycle::now() + within;
        let unknown = || PeerError::Unknown("no answer in time".to_owned());
        let other = timeout(within, self.find(to)).await.map_err(|_| unknown())??;
        let is_doubled = self.net.happens(&self.lane(to), |weather| weather.doubled);
        if is_doubled {
            let again = act(other.door.clone(), self.datacenter.clone());
            let (peers, other) = (
                self.clone(),
                Other {
                    node: other.node.clone(),
                    door: other.door.clone(),
                    datacenter: other.datacenter.clone(),
                    life: other.life,
                },
            );
            self.net.send(async move { drop(peers.carry(other, again).await) });
        }
        let (answer, answered) = oneshot::channel();
        let (peers, acting) = (self.clone(), act(other.door.clone(), self.datacenter.clone()));
        let flight = self.net.send(async move {
            if let Some(result) = peers.carry(other, acting).await {
                let _ = answer.send(result);
            }
        });
        let answer = answer_until(answered, end).await;
        self.unless_dead().await;
        let result = answer.unwrap_or_else(|| {
            // Who gives up resets the stream: the other end may hear of it in the middle of its work.
            if self.net.happens(&self.lane(to), |_| 50) {
                flight.abort();
            }
            Err(unknown())
        })?;
        Ok(Answered { result, is_doubled })
    }

    async fn unless_dead(&self) {
        if !self.net.is_alive(&self.node, self.life) {
            std::future::pending::<()>().await;
        }
    }

    /// Hands on what comes, in its order, until either end is gone or the way is cut for long.
    async fn relay(self, other: Other, mut from: mpsc::Receiver<Result<FollowItem, PeerError>>, to: Items) {
        let net = self.net.clone();
        let broken = || Err(PeerError::Unknown("the stream broke".to_owned()));
        loop {
            let item = tokio::select! {
                biased;
                () = to.closed() => return,
                item = from.recv() => item,
            };
            let Some(item) = item else { return };
            self.way(&other).await;
            let is_open = || {
                net.until(|faults| {
                    let is_cut = faults.cut.contains(&(other.datacenter.clone(), self.datacenter.clone()));
                    !is_cut && !faults.paused.contains(&other.node) && !faults.paused.contains(&self.node)
                })
            };
            let is_dead = timeout(DEAD, is_open()).await.is_err()
                || !net.is_alive(&other.node, other.life)
                || net.happens(&self.lane(&other.node), |weather| weather.broken);
            if is_dead {
                let _ = to.send(broken()).await;
                return;
            }
            if to.send(item).await.is_err() {
                return;
            }
        }
    }
}

impl Peers for SimPeers {
    async fn hello(&self, to: &Target, hello: Hello) -> Result<HelloReply, PeerError> {
        let answered = self.call(to, CONNECT * 2, move |door, from| door.hello(from, hello.clone())).await;
        Ok(answered?.result)
    }

    async fn forward(
        &self,
        to: &Target,
        request: Forward,
        deadline: Duration,
    ) -> Result<Forwarded, PeerError> {
        let is_read = request.method == "GET";
        let Answered { result, is_doubled } =
            self.call(to, deadline, move |door, from| door.forward(from, request.clone())).await?;
        // One of the two may find the home busy and the other one be carried out, before or after: that nothing was done is
        // true of one alone. HTTP/2 doubles nothing, and a client that sends its request again knows of both.
        if is_doubled && !is_read && result.status == 503 {
            return Err(PeerError::Unknown("refused, and sent twice".to_owned()));
        }
        Ok(result)
    }

    async fn follow(
        &self,
        to: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        let other = self.find(to).await?;
        self.way(&other).await;
        let (theirs, from) = mpsc::channel(FOLLOW_QUEUE);
        let (to_us, ours) = mpsc::channel(FOLLOW_QUEUE);
        let serving = other.door.clone().follow(self.datacenter.clone(), start, acks, theirs);
        let served = self.net.send(process::within(self.net.turns(&other.node), serving));
        let (peers, net) = (self.clone(), self.net.clone());
        net.send(async move {
            peers.relay(other, from, to_us).await;
            served.abort();
        });
        self.unless_dead().await;
        Ok(ours)
    }

    async fn absent(&self, to: &Target, absent: Absent, deadline: Duration) -> Result<(), PeerError> {
        self.call(to, deadline, move |door, from| door.absent(from, absent.clone())).await.map(drop)
    }
}
