//! Locks across datacenters: held at the home of their key, by a session of the home's Consul, each grant with a token
//! greater than all before it.
//!
//! [`lease`] is the holder's side, [`waiters`] the line at home, [`wire`] what both say to each other: all pure.
//! [`locks`] executes at home.

pub mod lease;
pub mod locks;
pub mod waiters;
pub mod wire;
