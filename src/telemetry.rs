//! What the agent tells of itself to operators: log lines, traces, metrics. It knows none of what is told.

pub mod logs;
pub mod metrics;
mod traces;
