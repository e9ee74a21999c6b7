//! Keys and locks between the lab's two datacenters, through their mesh gateways: unchanged tools and client libraries
//! against the agents' addresses, answers beside Consul's own, and workers that are paused past their leases. Faults are in `sync_faults.rs`.
//!
//! One lab serves all scenarios, one after the other, as in `lab.rs`.

mod answers;
pub(crate) mod ask;
mod counter;
mod denied;
pub(crate) mod fencing;
mod rights;
mod tools;
pub(crate) mod world;

use crate::lab_sync::world::World;

type Scenario = fn(&World);

/// Names a scenario after its function.
macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((stringify!($module::$name), $module::$name as Scenario)),*]
    };
}

#[test]
fn keys_and_locks_between_two_datacenters() {
    run(
        World::start(),
        &scenarios![
            tools::consul_kv_does_what_it_does_against_consul,
            tools::consul_lock_excludes_the_other_datacenter,
            tools::consul_lock_with_several_holders,
            tools::consul_watch_sees_what_the_other_datacenter_writes,
            answers::they_are_consuls_own,
            answers::a_nodes_own_are_its_consuls,
            counter::a_library_hands_a_lock_from_one_datacenter_to_the_other,
            counter::two_processes_in_both_datacenters_lose_no_increment,
            fencing::what_a_paused_worker_writes_is_refused,
        ],
    );
}

#[test]
fn the_same_where_acls_deny_by_default() {
    run(
        World::start_with_acls(),
        &scenarios![
            tools::consul_kv_does_what_it_does_against_consul,
            tools::consul_lock_excludes_the_other_datacenter,
            tools::consul_lock_with_several_holders,
            tools::consul_watch_sees_what_the_other_datacenter_writes,
            counter::a_library_hands_a_lock_from_one_datacenter_to_the_other,
            counter::two_processes_in_both_datacenters_lose_no_increment,
            denied::they_are_consuls_own,
            rights::a_token_can_do_through_every_agent_what_it_could_do_at_home,
        ],
    );
}

fn run(world: World, scenarios: &[(&str, Scenario)]) {
    let mut failures: Vec<&str> = Vec::new();
    for &(name, scenario) in scenarios {
        let started = causeway::lifecycle::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(&world)));
        println!(
            "{name}: {} ({:.1} s)",
            if outcome.is_ok() { "ok" } else { "FAILED" },
            started.elapsed().as_secs_f32()
        );
        failures.extend(outcome.err().map(|_| name));
    }
    world.stop(!failures.is_empty());
    assert!(failures.is_empty(), "failed, each with its reason above: {failures:?}");
}
