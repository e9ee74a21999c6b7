//! The Consul-compatible endpoint: what a client asks, where that is executed, and what Consul would have answered.
//!
//! Everything that decides is pure and has a file of its own; [`crate::sync::engine`] does what they say.

pub mod answer;
pub mod ask;
pub mod audit;
pub mod merge;
pub mod message;
pub mod passed;
pub mod rights;
pub mod route;
pub mod translate;

use std::future::Future;

pub use crate::sync::endpoint::{
    message::{Origin, PASSED, Request, Response},
    passed::Passed,
};
use crate::sync::store::StoreError;

/// The local Consul's HTTP interface as it is: requests that replication has nothing to do with, and reads.
pub trait Raw: Clone + Send + Sync + 'static {
    /// One exchange with the local Consul: method, `target`, headers and body as they are, with the request's own token
    /// and no other. Every status is an answer. A blocking query takes as long as it asks for.
    ///
    /// # Errors
    /// There was no answer.
    fn ask(&self, request: &Request) -> impl Future<Output = Result<Response, StoreError>> + Send;

    /// The same, as soon as the answer's head is there: a long body is read no faster than it is taken.
    ///
    /// # Errors
    /// There was no answer.
    fn open(&self, request: &Request) -> impl Future<Output = Result<Passed, StoreError>> + Send {
        async move { self.ask(request).await.map(Passed::Whole) }
    }
}
