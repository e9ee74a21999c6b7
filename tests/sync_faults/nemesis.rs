//! What goes wrong: drawn from a seed, done to the lab, and taken back.

use std::{fmt, num::NonZeroU32, time::Duration};

use causeway::{
    lab::{
        plan::{PREFIXES, PRIMARY, SECONDARY},
        relay::{Direction, LinkState, Slow},
    },
    sync::layout::Duty,
};
use nix::sys::signal::Signal;

use crate::lab_sync::world::{World, until};

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// The agent that commits what is written below this prefix.
    Home(&'static str),
    /// The agent that applies this prefix's journal.
    Applier(&'static str),
    /// A datacenter's mesh gateway.
    Gateway(&'static str),
    /// A server of Consul's that does not lead.
    Follower(&'static str),
    /// The one that leads.
    Leader(&'static str),
    /// All but one of them, so that none leads.
    Majority(&'static str),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL, and started again at the end.
    Kill(Victim),
    /// SIGSTOP, and SIGCONT at the end.
    Stop(Victim),
    /// Nothing passes between the datacenters.
    Cut,
    /// Nothing passes from here to the other one.
    OneWay(&'static str),
    /// What passes takes so long more, in each direction.
    Slow { delay_ms: u64 },
    /// Connections are reset, and new ones refused.
    Reset,
    /// `consul snapshot restore` to a state of before.
    Restore(&'static str),
}

/// A process of the lab.
type Process = (String, &'static str);

/// What was done, so that it can be taken back.
pub(super) struct Done {
    killed: Vec<Process>,
    stopped: Vec<Process>,
    is_linked: bool,
}

/// The kinds of the matrix, each with a victim by the seed.
pub(super) fn matrix(rng: &mut fastrand::Rng) -> Vec<Fault> {
    let mut prefix = || PREFIXES[rng.usize(0..PREFIXES.len())].0;
    let agents = [Victim::Home(prefix()), Victim::Applier(prefix())];
    let mut datacenter = || if rng.bool() { PRIMARY } else { SECONDARY };
    let mut victims = agents.to_vec();
    victims.extend([
        Victim::Gateway(datacenter()),
        Victim::Follower(datacenter()),
        Victim::Leader(datacenter()),
    ]);
    let mut faults: Vec<Fault> = victims.iter().copied().map(Fault::Kill).collect();
    faults.extend(victims.into_iter().map(Fault::Stop));
    faults.push(Fault::Stop(Victim::Majority(datacenter())));
    faults.extend([Fault::Cut, Fault::OneWay(PRIMARY), Fault::OneWay(SECONDARY), Fault::Reset]);
    faults.extend([Fault::Restore(PRIMARY), Fault::Restore(SECONDARY)]);
    faults.push(Fault::Slow { delay_ms: rng.u64(20..120) });
    rng.shuffle(&mut faults);
    faults
}

/// Each kind once, in as few rounds as it takes: what is independent happens together.
pub(super) fn once() -> Vec<Vec<Fault>> {
    let (config, locks) = ("config/", "locks/");
    vec![
        vec![Fault::Kill(Victim::Home(config)), Fault::Stop(Victim::Applier(config))],
        vec![Fault::Stop(Victim::Home(locks)), Fault::Kill(Victim::Applier(locks))],
        vec![Fault::Kill(Victim::Gateway(SECONDARY))],
        vec![Fault::Stop(Victim::Gateway(PRIMARY))],
        vec![Fault::Kill(Victim::Follower(PRIMARY)), Fault::Stop(Victim::Follower(SECONDARY))],
        vec![Fault::Kill(Victim::Leader(PRIMARY)), Fault::Stop(Victim::Leader(SECONDARY))],
        vec![Fault::Stop(Victim::Majority(PRIMARY))],
        vec![Fault::Cut],
        vec![Fault::OneWay(SECONDARY)],
        vec![Fault::Slow { delay_ms: 40 }],
        vec![Fault::Reset],
        vec![Fault::Restore(PRIMARY)],
    ]
}

impl Fault {
    /// How long it lasts at least, by the seed. What must be noticed first takes its time beside that.
    pub(super) fn length(self, rng: &mut fastrand::Rng) -> Duration {
        Duration::from_millis(match self {
            Self::Reset | Self::Restore(_) => rng.u64(500..2_000),
            // Below the lease and beyond it.
            Self::Stop(Victim::Home(_) | Victim::Applier(_)) => rng.u64(1_000..18_000),
            _ => rng.u64(2_000..12_000),
        })
    }

    /// Whether agents are hit.
    pub(super) fn is_of_agents(self) -> bool {
        matches!(
            self,
            Self::Kill(Victim::Home(_) | Victim::Applier(_))
                | Self::Stop(Victim::Home(_) | Victim::Applier(_))
        )
    }

    /// Whether nobody of one datacenter has an answer from the other.
    pub(super) fn is_partition(self) -> bool {
        matches!(
            self,
            Self::Kill(Victim::Gateway(_)) | Self::Stop(Victim::Gateway(_)) | Self::Cut | Self::OneWay(_)
        )
    }

    /// Its name without its victim.
    pub(super) fn kind(self) -> &'static str {
        let of_victim = |kill: &'static str, stop: &'static str| match self {
            Self::Stop(_) => stop,
            _ => kill,
        };
        match self {
            Self::Kill(victim) | Self::Stop(victim) => match victim {
                Victim::Home(_) => of_victim("kill -9: home agent", "SIGSTOP: home agent"),
                Victim::Applier(_) => of_victim("kill -9: applier", "SIGSTOP: applier"),
                Victim::Gateway(_) => of_victim("kill -9: gateway", "SIGSTOP: gateway"),
                Victim::Follower(_) => of_victim("kill -9: server", "SIGSTOP: server"),
                Victim::Leader(_) => of_victim("kill -9: leader", "SIGSTOP: leader"),
                Victim::Majority(_) => {
                    of_victim("kill -9: two of three servers", "SIGSTOP: two of three servers")
                }
            },
            Self::Cut => "link cut",
            Self::OneWay(_) => "one-way",
            Self::Slow { .. } => "slow",
            Self::Reset => "link reset",
            Self::Restore(_) => "snapshot restore",
        }
    }

    /// The datacenter whose Consul goes back to an older state.
    pub(super) fn restored(self) -> Option<&'static str> {
        match self {
            Self::Restore(datacenter) => Some(datacenter),
            _ => None,
        }
    }

    /// Does it. A restore is not done here: it needs the clients' help.
    pub(super) fn begin(self, world: &World) -> Done {
        let mut done = Done { killed: Vec::new(), stopped: Vec::new(), is_linked: false };
        match self {
            Self::Kill(victim) => {
                done.killed = victim.processes(world);
                for (node, process) in &done.killed {
                    world.wait(world.lab().kill(node, process)).unwrap();
                }
            }
            Self::Stop(victim) => {
                done.stopped = victim.processes(world);
                for (node, process) in &done.stopped {
                    world.lab().signal(node, process, Signal::SIGSTOP).unwrap();
                }
            }
            Self::Restore(_) => {}
            link => {
                done.is_linked = true;
                for datacenter in [PRIMARY, SECONDARY] {
                    set(world, datacenter, link.into_datacenter(datacenter));
                }
            }
        }
        done
    }

    /// What it does to the link that leads into a datacenter.
    fn into_datacenter(self, datacenter: &str) -> LinkState {
        match self {
            Self::Cut => LinkState::Cut,
            Self::Reset => LinkState::Reset,
            Self::Slow { delay_ms } => LinkState::Slow(Slow {
                delay: Duration::from_millis(delay_ms),
                bytes_per_second: NonZeroU32::new(1 << 20),
            }),
            // What comes from there are the calls of one link and the answers of the other.
            Self::OneWay(from) if from == datacenter => LinkState::OneWay { stalled: Direction::Out },
            Self::OneWay(_) => LinkState::OneWay { stalled: Direction::In },
            Self::Kill(_) | Self::Stop(_) | Self::Restore(_) => LinkState::Open,
        }
    }
}

impl Done {
    /// The nodes whose agents are gone.
    pub(super) fn agents(&self) -> impl Iterator<Item = String> {
        let all = self.killed.iter().chain(&self.stopped);
        all.filter(|(_, process)| *process == "causeway").map(|(node, _)| node.clone())
    }

    /// Takes it back.
    pub(super) fn heal(&self, world: &World) {
        for (node, process) in &self.stopped {
            world.lab().signal(node, process, Signal::SIGCONT).unwrap();
        }
        for (node, process) in &self.killed {
            world.wait(world.lab().restart(node, process)).unwrap();
        }
        if self.is_linked {
            [PRIMARY, SECONDARY].iter().for_each(|datacenter| set(world, datacenter, LinkState::Open));
        }
    }
}

impl Victim {
    fn processes(self, world: &World) -> Vec<Process> {
        let agent = |datacenter, prefix, duty| vec![(world.doer(datacenter, prefix, duty), "causeway")];
        match self {
            Self::Home(prefix) => agent(home_of(prefix), prefix, Duty::Home),
            Self::Applier(prefix) => agent(other(home_of(prefix)), prefix, Duty::Applier),
            Self::Gateway(datacenter) => vec![(format!("{datacenter}-gateway"), "envoy")],
            Self::Leader(datacenter) => vec![(leader(world, datacenter), "consul")],
            Self::Follower(datacenter) => followers(world, datacenter).into_iter().take(1).collect(),
            Self::Majority(datacenter) => {
                // With its leader, so that nobody has to notice first that it is one no more.
                let leader = (leader(world, datacenter), "consul");
                followers(world, datacenter).into_iter().take(1).chain([leader]).collect()
            }
        }
    }
}

fn set(world: &World, datacenter: &str, state: LinkState) {
    world.wait(world.lab().link(datacenter).unwrap().set(state)).unwrap();
}

fn leader(world: &World, datacenter: &str) -> String {
    until(&format!("{datacenter} has a leader"), || {
        let leader = world.wait(world.lab().leader(datacenter));
        leader.map(|node| node.name.clone()).map_err(|error| error.to_string())
    })
}

fn followers(world: &World, datacenter: &str) -> Vec<Process> {
    let leader = leader(world, datacenter);
    let servers = world.lab().plan().servers(datacenter);
    servers.filter(|node| node.name != leader).map(|node| (node.name.clone(), "consul")).collect()
}

/// Where a prefix of the lab is written.
pub(super) fn home_of(prefix: &str) -> &'static str {
    let home = PREFIXES.iter().find(|(text, _)| *text == prefix);
    home.map(|(_, home)| *home).unwrap()
}

/// The other datacenter.
pub(super) fn other(datacenter: &str) -> &'static str {
    if datacenter == PRIMARY { SECONDARY } else { PRIMARY }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(prefix) => write!(f, "home agent of {prefix}"),
            Self::Applier(prefix) => write!(f, "applier of {prefix}"),
            Self::Gateway(datacenter) => write!(f, "gateway of {datacenter}"),
            Self::Follower(datacenter) => write!(f, "server of {datacenter}"),
            Self::Leader(datacenter) => write!(f, "leader of {datacenter}"),
            Self::Majority(datacenter) => write!(f, "two of three servers of {datacenter}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(victim) => write!(f, "kill -9: {victim}"),
            Self::Stop(victim) => write!(f, "SIGSTOP: {victim}"),
            Self::Cut => write!(f, "link cut"),
            Self::OneWay(from) => write!(f, "one-way: nothing passes from {from}"),
            Self::Slow { delay_ms } => write!(f, "slow: {delay_ms} ms each way, 1 MiB/s"),
            Self::Reset => write!(f, "link reset"),
            Self::Restore(datacenter) => write!(f, "snapshot restore in {datacenter}"),
        }
    }
}
