//! The agent's HTTP interface.

pub mod wire;
