//! Settings: what a user can write in the configuration file and in the environment.

pub mod consul;
