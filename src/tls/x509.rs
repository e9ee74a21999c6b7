//! What certificates say, what those of a Consul cluster must say, and when they are renewed. Pure: files and their
//! owners come in as facts, the time is an argument, and nothing here signs.

pub mod certificate;
pub mod check;
pub mod finding;
pub mod key;
pub mod lifetime;
pub mod moment;
pub mod pem;
pub mod profile;
pub mod renewal;
pub mod set;
pub mod trust;
