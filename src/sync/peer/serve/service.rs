//! The service as generated code wants it: reads messages, asks the [`Served`], writes messages.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tonic::{Request, Response, Status, Streaming};

use crate::{
    model::name::Datacenter,
    sync::peer::{
        MAX_HOPS, MIN_VERSION, Served, VERSION, convert,
        serve::follow::{self, Downs},
        status,
        wire::{self as pb, sync_server},
    },
};

/// Who calls; among the extensions of each request.
#[derive(Clone)]
pub(super) struct Caller {
    /// From its certificate.
    pub(super) dc: Datacenter,
    /// Whether it has said Hello on this connection.
    pub(super) has_greeted: Arc<AtomicBool>,
}

/// Answers over a [`Served`].
pub(super) struct SyncService<S>(S);

impl<S: Served> SyncService<S> {
    pub(super) fn new(served: S) -> Self {
        Self(served)
    }
}

type Parts = tokio_stream::Iter<std::vec::IntoIter<Result<pb::ForwardReply, Status>>>;

#[tonic::async_trait]
impl<S: Served> sync_server::Sync for SyncService<S> {
    type ForwardStream = Parts;
    type FollowStream = Downs;

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloReply>, Status> {
        let caller = caller(&request)?;
        let hello = request.into_inner();
        let version = shared_version(convert::versions(&hello))?;
        let hello = convert::hello_in(hello).map_err(|error| status::not_understood(&error))?;
        if hello.datacenter != caller.dc {
            return Err(Status::failed_precondition(format!(
                "the caller says that it is of datacenter {}, and its certificate is of {}; correct its configuration",
                hello.datacenter, caller.dc
            )));
        }
        let reply = self.0.hello(&caller.dc, hello).await.map_err(status::status)?;
        caller.has_greeted.store(true, Ordering::Relaxed);
        Ok(Response::new(pb::HelloReply { version, ..convert::hello_reply_out(reply) }))
    }

    async fn forward(&self, request: Request<pb::ForwardRequest>) -> Result<Response<Parts>, Status> {
        let caller = greeted(&request)?;
        let forward = convert::forward_in(request.into_inner());
        let forward = forward.map_err(|error| status::not_understood(&error))?;
        if forward.hops > MAX_HOPS {
            return Err(Status::unavailable(format!(
                "the request was passed on {} times: the agents disagree on who is active, and will agree soon",
                forward.hops
            )));
        }
        let forwarded = self.0.forward(&caller.dc, forward).await.map_err(status::status)?;
        let parts: Vec<_> = convert::forwarded_out(forwarded).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn follow(&self, request: Request<Streaming<pb::FollowUp>>) -> Result<Response<Downs>, Status> {
        let caller = greeted(&request)?;
        follow::begin(self.0.clone(), caller.dc, request.into_inner()).await.map(Response::new)
    }

    async fn absent(&self, request: Request<pb::AbsentRequest>) -> Result<Response<pb::AbsentReply>, Status> {
        let caller = greeted(&request)?;
        let absent = convert::absent_in(request.into_inner());
        let absent = absent.map_err(|error| status::not_understood(&error))?;
        self.0.absent(&caller.dc, absent).await.map_err(status::status)?;
        Ok(Response::new(pb::AbsentReply {}))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("the caller is not known"))
}

fn greeted<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = caller(request)?;
    match caller.has_greeted.load(Ordering::Relaxed) {
        true => Ok(caller),
        false => Err(Status::failed_precondition("Hello comes first on every connection")),
    }
}

/// The newest version that both speak.
fn shared_version((min, max): (u32, u32)) -> Result<u32, Status> {
    let newest = max.min(VERSION);
    if newest >= min.max(MIN_VERSION) {
        return Ok(newest);
    }
    Err(Status::failed_precondition(format!(
        "no version of the protocol in common: the caller speaks {min} to {max}, this agent {MIN_VERSION} to {VERSION}; \
         update the older of the two, one release at a time"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_shared_version_is_spoken_and_none_names_both_ranges() {
        assert_eq!(shared_version((MIN_VERSION, VERSION + 1)).unwrap(), VERSION);
        assert_eq!(shared_version((0, VERSION)).unwrap(), VERSION);
        for (min, max) in [(VERSION + 1, VERSION + 2), (0, MIN_VERSION - 1), (VERSION, MIN_VERSION - 1)] {
            let status = shared_version((min, max)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition);
            assert!(status.message().contains(&format!("{min} to {max}")), "{}", status.message());
            assert!(status.message().contains(&format!("{MIN_VERSION} to {VERSION}")));
        }
    }
}
