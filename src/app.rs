//! Wiring: the agent's tasks and what flows between them. Decides nothing; nothing imports it but the command line.

pub mod agent;
mod interest;
mod publish;
mod sources;
