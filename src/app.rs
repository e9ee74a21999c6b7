//! Wiring: the agent's tasks and what flows between them. Decides nothing; nothing imports it but the command line.

mod access;
pub mod agent;
mod interest;
mod keep;
pub mod metrics;
mod publish;
mod sources;
mod sync;

#[cfg(test)]
mod tests;
