//! The words of the domain: names, what the catalog says, discovery chains, intentions, certificates.
//!
//! Pure values with an order. This module knows no wire format and no runtime; everything that is hashed, shown,
//! compared or sent keeps its parts in ordered containers, so that equal input gives equal bytes.

pub mod agent;
pub mod ca;
pub mod catalog;
pub mod chain;
pub mod filter;
pub mod instance;
pub mod intention;
pub mod kv;
pub mod mesh;
pub mod name;
pub mod note;
pub mod query;
pub mod registration;
pub mod resolver;
pub mod secret;
pub mod session;
pub mod settings;
pub mod sync;
