//! The peer service: in process over loopback with a certificate authority of its own, and in a lab through real mesh
//! gateways with certificates that Consul gave.

mod calls;
mod cuts;
mod double;
mod following;
mod lab;
mod rig;
mod strangers;
