//! What breaks in a lab of real parts, and what becomes of the traffic and of what the Envoys know.
//!
//! One lab of three servers in each datacenter, with links that can be cut, has the faults one after the other. Each is
//! judged four ways: by requests inside the datacenter and over the link, by the endpoints that the Envoys show in their
//! admin interfaces (against the catalogs' checks, where one turned unhealthy), by the agents' own word that they have heard
//! Consul again, and by what the Envoys have afterwards against what is intended for them. The run fills the table of
//! `docs/reliability.md` with `UPDATE_RELIABILITY=1`; without, only the table's list of faults is compared.

mod agent;
mod answers;
mod checks;
mod consul;
mod disk;
mod faulty;
mod flow;
mod network;
mod table;
mod watch;
mod world;

use crate::reliability::world::World;

#[test]
fn traffic_outlives_every_fault() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let problems = runtime.block_on(async {
        let mut world = World::start().await;
        network::all(&mut world).await;
        agent::all(&mut world).await;
        disk::full(&mut world).await;
        consul::all(&mut world).await;
        answers::all(&mut world).await;
        world.end().await
    });
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
