//! Consul's JSON: lenient types of its own shape (`Wire...`) and their conversion into the words of the domain, one
//! file per family of topics.
//!
//! Unknown fields are ignored and null lists are empty. Items of a list are read one at a time: one that cannot be
//! understood becomes a [`Note`] and the rest goes on, unless nothing is left or the rest would allow more than the
//! whole. Pure.

pub mod agent;
pub mod ca;
pub mod chain;
pub mod defaults;
mod expose;
pub mod instance;
pub mod intention;
pub mod kv;
pub mod mesh;
pub mod query;
mod read;
mod refused;
pub mod registration;
pub mod resolver;
pub mod services;
pub mod session;

use crate::model::note::Note;

/// A value and what could not be understood on the way.
pub type Read<T> = (T, Vec<Note>);

/// Why a whole answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is not the JSON that Consul sends there.
    #[error("the answer is not understood: {0}; is this Consul's HTTP API?")]
    Shape(String),
    /// It is of what this agent does not serve.
    #[error("{0}")]
    Unsupported(String),
    /// Consul is not ready to say.
    #[error("{0}")]
    NotReady(&'static str),
}

#[cfg(test)]
mod tests;
