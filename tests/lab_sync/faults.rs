//! Agents die by SIGKILL while clients write: what was acknowledged is there, and nobody has to do anything.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use causeway::{
    lab::plan::{PRIMARY, SECONDARY},
    sync::layout::Duty,
};
use serde_json::Value;

use crate::lab_sync::{
    ask::ask,
    world::{AGENTS, World, until},
};

/// Acknowledged writes before the kill, and after it.
const WRITES: usize = 30;

/// Writes keys of its own until it is told to stop; what was acknowledged is noted.
struct Writer<'a> {
    address: String,
    name: &'a str,
    acked: Mutex<BTreeSet<String>>,
    refused: Mutex<BTreeSet<u16>>,
    done: AtomicBool,
}

impl<'a> Writer<'a> {
    fn new(world: &World, node: &str, name: &'a str) -> Self {
        let address = world.agent(node);
        Self {
            address,
            name,
            acked: Mutex::default(),
            refused: Mutex::default(),
            done: AtomicBool::new(false),
        }
    }

    fn run(&self, prefix: &str) {
        for number in 0_u32.. {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("{prefix}{}/{number}", self.name);
            match ask("PUT", &format!("{}/v1/kv/{key}", self.address), &[], key.as_bytes()) {
                Ok(reply) if reply.status == 200 && reply.text().trim() == "true" => {
                    self.acked.lock().unwrap().insert(key);
                }
                Ok(reply) => {
                    self.refused.lock().unwrap().insert(reply.status);
                }
                Err(_) => {}
            }
        }
    }

    fn until_acked(&self, more: usize) {
        let wanted = self.acked.lock().unwrap().len() + more;
        until(&format!("{} has {more} more writes acknowledged", self.name), || {
            let have = self.acked.lock().unwrap().len();
            if have >= wanted {
                Ok(())
            } else {
                Err(format!("{have} of {wanted}; refused with {:?}", self.refused.lock().unwrap()))
            }
        });
    }
}

/// Kills the agent with this duty while others write through all other agents.
fn killed_under_traffic(world: &World, datacenter: &str, duty: Duty, prefix: &str) {
    let victim = world.doer(datacenter, "config/", duty);
    let others = AGENTS.iter().flat_map(|(_, nodes)| nodes).filter(|node| **node != victim);
    let writers: Vec<Writer<'_>> = others.map(|node| Writer::new(world, node, node)).collect();
    std::thread::scope(|scope| {
        let finish = Finish(&writers);
        for writer in &writers {
            scope.spawn(|| writer.run(prefix));
        }
        writers.iter().for_each(|writer| writer.until_acked(WRITES));
        world.kill_agent(&victim);
        writers.iter().for_each(|writer| writer.until_acked(WRITES));
        let successor = world.doer(datacenter, "config/", duty);
        assert_ne!(successor, victim, "another agent took over");
        world.restart_agent(&victim);
        writers.iter().for_each(|writer| writer.until_acked(WRITES));
        drop(finish);
    });
    for writer in writers {
        let acked = writer.acked.into_inner().unwrap();
        let refused = writer.refused.into_inner().unwrap();
        assert!(refused.iter().all(|status| [503, 504].contains(status)), "{}: {refused:?}", writer.name);
        for datacenter in [PRIMARY, SECONDARY] {
            let consul = world.consul(&format!("{datacenter}-server"));
            until(&format!("all that {} wrote is in {datacenter}", writer.name), || {
                let there = keys(&consul, &format!("{prefix}{}/", writer.name))?;
                let missing: Vec<_> = acked.difference(&there).take(3).collect();
                if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:?}")) }
            });
        }
    }
    world.run(&world.agent(&victim), &["kv", "delete", "-recurse", prefix]);
}

/// Ends the writers also when an assertion fails, since the scope waits for them.
struct Finish<'w, 'a>(&'w [Writer<'a>]);

impl Drop for Finish<'_, '_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|writer| writer.done.store(true, Ordering::Relaxed));
    }
}

fn keys(consul: &str, prefix: &str) -> Result<BTreeSet<String>, String> {
    let reply = ask("GET", &format!("{consul}/v1/kv/{prefix}?keys&consistent"), &[], b"")?;
    let keys: Value =
        serde_json::from_slice(&reply.body).map_err(|error| format!("{error}: {}", reply.text()))?;
    Ok(keys.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
}

pub(super) fn the_home_agent_is_killed_under_traffic(world: &World) {
    killed_under_traffic(world, PRIMARY, Duty::Home, "config/home-killed/");
}

pub(super) fn the_applier_is_killed_under_traffic(world: &World) {
    killed_under_traffic(world, SECONDARY, Duty::Applier, "config/applier-killed/");
}
