//! gRPC health checking: whether this agent serves, for load balancers and for those who start Envoys.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::{
    lifecycle::Stop,
    xds::server::{connection::Carrier, csds, services::Discovery},
};

/// The service of health checks.
pub(super) fn service(ready: watch::Receiver<bool>, stop: Stop) -> HealthServer<Checks> {
    HealthServer::new(Checks { ready, stop })
}

/// Answers from the readiness of the agent: all services serve, or none does.
#[derive(Clone)]
pub(super) struct Checks {
    ready: watch::Receiver<bool>,
    stop: Stop,
}

impl Checks {
    fn status(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && service != csds::NAME && !Discovery::NAMES.contains(&service) {
            ServingStatus::ServiceUnknown
        } else if *self.ready.borrow() && !self.stop.is_set() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Waits for a status other than that one; none when there will be no other.
    async fn after(&mut self, service: &str, last: ServingStatus) -> Option<ServingStatus> {
        loop {
            let now = self.status(service);
            if now != last {
                return Some(now);
            }
            if self.stop.is_set() {
                return None;
            }
            let stop = self.stop.clone();
            tokio::select! {
                () = stop.wait() => {}
                changed = self.ready.changed() => if changed.is_err() {
                    stop.wait().await;
                },
            }
        }
    }
}

#[tonic::async_trait]
impl Health for Checks {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("there is no service {service}"))),
            status => Ok(Response::new(told(status))),
        }
    }

    /// The status now and at every change; ends with the agent.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let leave = request.extensions().get::<Carrier>().map(|carrier| carrier.leave.clone());
        let service = request.into_inner().service;
        let start = (self.clone(), service, ServingStatus::Unknown);
        let changes = stream::unfold(start, |(mut checks, service, last)| async move {
            let status = checks.after(&service, last).await?;
            Some((Ok(told(status)), (checks, service, status)))
        });
        // Its connection may end before the agent does, whose end is told first.
        let stop = self.stop.clone();
        let left = async move {
            match leave {
                Some(leave) => leave.wait().await,
                None => std::future::pending().await,
            }
            if stop.is_set() {
                std::future::pending().await
            }
        };
        Ok(Response::new(Box::pin(changes.take_until(left))))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
