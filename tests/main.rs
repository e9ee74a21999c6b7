//! The integration tests, one binary.

mod consul;
