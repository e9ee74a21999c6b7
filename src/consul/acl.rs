//! What a token other than the agent's own may do, and with which token a leaf certificate is asked for.

pub mod leaf;
pub mod rights;
