//! `consul snapshot restore` under the agents: what a replica had and the home lost is kept and shown, nothing is guessed,
//! and a person's word heals it.

use std::process::Command;

use serde_json::Value;

use crate::{
    lab_sync::{
        ask::ask,
        world::{AGENTS, World, until},
    },
    sync::history::Restored,
    sync_faults::{clients::Load, nemesis::other, promise::prefix_of, watcher::Watcher},
};

/// Acknowledged writes between the snapshot and the restore, which loses them.
const LOST: u64 = 40;

/// Restores a datacenter's Consul to what it was some writes ago.
pub(super) fn restore(
    world: &World,
    load: &Load,
    watcher: &Watcher<'_>,
    datacenter: &str,
    name: &str,
) -> Restored {
    // What was acknowledged by now is in the snapshot.
    let saved = load.now();
    let file = world.path(&format!("{name}.snap")).display().to_string();
    let consul = world.consul(&format!("{datacenter}-server"));
    // Consul's tool reads again what it got, and at times finds its end missing.
    until("Consul saves a snapshot", || {
        let saved = world.run(&consul, &["snapshot", "save", &file]);
        if saved.status.success() { Ok(()) } else { Err(format!("{saved:?}")) }
    });
    let wanted = load.acknowledged() + LOST;
    until("clients wrote more than the snapshot has", || {
        let have = load.acknowledged();
        if have >= wanted { Ok(()) } else { Err(format!("{have} of {wanted}")) }
    });
    // What the home forgets now has been looked at, so that replicas can be judged by it.
    let restored = load.at_rest(|| {
        watcher.settle();
        watcher.restored(datacenter, || {
            let restored = world.run(&consul, &["snapshot", "restore", &file]);
            assert!(restored.status.success(), "{restored:?}");
        });
        load.now()
    });
    let prefixes = vec![prefix_of(datacenter).to_owned()];
    Restored { datacenter: datacenter.to_owned(), prefixes, saved, restored }
}

/// The replica of what was restored holds and says why; approved, it goes on.
pub(super) fn approve(world: &World, datacenter: &str) {
    let (prefix, replica) = (prefix_of(datacenter), other(datacenter));
    let (node, reason) = until(&format!("the replica of {prefix} in {replica} holds"), || {
        holding(world, prefix).ok_or_else(|| "no agent says so".to_owned())
    });
    assert!(reason.contains("causeway sync approve"), "a hold without a remedy: {reason}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(["sync", "approve", prefix, "--http-addr", &world.agent(&node)]);
    let approved = command.output().unwrap();
    assert!(approved.status.success(), "{approved:?}");
}

/// Who holds the replica of a prefix, and why.
pub(super) fn holding(world: &World, prefix: &str) -> Option<(String, String)> {
    AGENTS.iter().flat_map(|(_, nodes)| nodes).find_map(|node| {
        let reply = ask("GET", &format!("{}/v1/sync/status", world.agent(node)), &[], b"").ok()?;
        let status: Value = serde_json::from_slice(&reply.body).ok()?;
        let of_prefix = status["prefixes"].as_array()?.iter().find(|one| one["prefix"] == prefix)?.clone();
        let replica = &of_prefix["as_replica"];
        let reason = replica["reason"].as_str().filter(|_| replica["stage"] == "hold")?;
        Some(((*node).to_owned(), reason.to_owned()))
    })
}
