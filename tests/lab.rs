//! The whole, on real parts: two federated datacenters of real Consul servers and agents, real Envoys and Causeway
//! agents, as `causeway lab` brings them up.
//!
//! One lab serves all scenarios that clean up after themselves. They run one after the other in one test, since a
//! process of libtest has no place to stop a shared lab; each is told by name, and one that fails hides no other.

mod acl;
pub(crate) mod actors;
mod addresses;
mod change;
mod command;
pub(crate) mod diff;
mod features;
mod hatches;
mod health;
mod kept;
mod limits;
pub(crate) mod live;
mod load;
mod native;
mod protocols;
mod recovery;
pub(crate) mod rig;
mod settings;
mod traffic;
mod warming;

use std::{future::Future, pin::Pin};

use crate::lab::rig::Rig;

type Scenario = for<'a> fn(&'a mut Rig) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// Names a scenario after its function.
macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((stringify!($module::$name), (|rig| Box::pin($module::$name(rig))) as Scenario)),*]
    };
}

#[test]
fn two_federated_datacenters() {
    all_scenarios(false);
}

/// Consul denies by default, and every process has a token of few rights.
#[test]
fn two_federated_datacenters_with_acls() {
    all_scenarios(true);
}

fn all_scenarios(has_acls: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let failures = runtime.block_on(async {
        let mut rig = Rig::start(has_acls).await;
        let scenarios = scenarios![
            traffic::the_dashboard_counts_over_the_mesh,
            traffic::bytes_pass_both_gateways_and_both_sidecars_speak_mtls,
            traffic::servers_know_each_other_only_through_the_gateways,
            traffic::every_envoy_is_synced,
            diff::every_envoy_has_what_is_intended,
            traffic::no_private_key_is_shown,
            acl::no_token_is_shown,
            acl::least_rights_are_enough,
            live::an_instance_comes_and_goes_in_the_other_datacenter,
            live::a_check_turns_critical_and_back,
            live::no_healthy_instance_is_left_in_the_other_datacenter,
            live::an_intention_denies_and_allows,
            live::an_upstream_is_added_and_removed,
            live::the_gateway_of_the_other_datacenter_moves,
            live::no_envoy_was_restarted,
            diff::what_is_not_as_intended_is_told,
            warming::no_cluster_lacked_anything,
            recovery::the_other_gateway_goes_and_comes_back,
            recovery::the_counter_goes_and_comes_back,
            warming::no_cluster_lacked_anything,
            recovery::an_agent_killed_and_restarted_sends_nothing_again,
            recovery::an_agent_restarted_without_its_consul_sends_nothing_again,
            recovery::a_second_agent_sends_nothing_again,
            change::no_request_fails,
            settings::traffic_shows_each,
            warming::no_cluster_lacked_anything,
            diff::every_envoy_has_what_is_intended,
        ];
        let mut failures = Vec::new();
        for (name, scenario) in scenarios {
            let started = causeway::lifecycle::now();
            let outcome = scenario(&mut rig).await;
            let took = started.elapsed().as_secs_f32();
            println!("{name}: {} ({took:.1} s)", if outcome.is_ok() { "ok" } else { "FAILED" });
            failures.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
        }
        println!("\n{}", rig.table());
        if !failures.is_empty() {
            rig.keep_logs();
        }
        rig.stop().await;
        failures
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
