//! Scripts: event lists in, action lists out, by theme; and a model client.

mod gating;
mod model;
mod nack;
mod reconnect;
mod rig;
mod sotw;
mod sotw_gating;
mod sotw_rig;
mod subscribing;
