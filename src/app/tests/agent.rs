//! One run of the agent: its own watches, publisher and door, over a simulated Consul.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    app::{
        access::{Access, AskConsul},
        interest::Interests,
        publish::Publisher,
        tests::consul::Consul,
    },
    config::consul::ConsulSettings,
    consul::{
        acl::leaf::LeafTokens,
        client::Client,
        metrics::ConsulMetrics,
        watch::{self as watches, Watches},
    },
    lifecycle::{self, Stop, StopSource, Task},
    mesh::Options,
    model::catalog::{Answer, Topic, Topics},
    state::{
        keep::{Keep, from_disk},
        memory::TokenMemory,
    },
};

/// The agent while it runs. Dropping it is `kill -9`.
pub(super) struct Agent {
    pub(super) access: Access,
    watches: Watches,
    tasks: Vec<Task<()>>,
    _settings: (watch::Sender<Options>, watch::Sender<Duration>),
    _stop: StopSource,
}

impl Agent {
    /// Starts it with what an earlier run kept.
    pub(super) fn start(consul: &Consul, kept: Topics) -> Self {
        let (source, stop) = Stop::pair();
        let dialled = consul.clone();
        let client = Client::over(ConsulSettings::default(), Box::new(move || dialled.dial())).unwrap();
        let leaf_tokens = LeafTokens::of_proxies();
        let (watches, catalog_task) = watches::start_with(
            client.clone(),
            leaf_tokens.clone(),
            kept,
            ConsulMetrics::default(),
            stop.clone(),
        );
        let interests = Interests::new();
        let (options, watch_options) = watch::channel(Options::default());
        let (publisher, _) = Publisher::new(watches.clone(), interests.clone(), watch_options);
        let (recheck, watch_recheck) = watch::channel(Duration::from_secs(60));
        let memory = TokenMemory::new(None, Duration::ZERO);
        let examiner = AskConsul::new(client);
        let access = Access::new(interests, examiner, leaf_tokens, memory, watch_recheck, watches.catalog());
        let wanted = watches.clone();
        let tasks = vec![
            catalog_task,
            lifecycle::spawn("agent.want", async move { wanted.want("agent", [Topic::Agent].into()).await }),
            lifecycle::spawn("mesh.publish", publisher.run(stop.clone())),
            lifecycle::spawn("access.follow", access.clone().follow(stop)),
        ];
        Self { access, watches, tasks, _settings: (options, recheck), _stop: source }
    }

    /// What is on disk should it be killed now.
    pub(super) fn kept(&self) -> Topics {
        let (catalog, shelf) =
            (self.watches.catalog().borrow().clone(), self.watches.shelf().borrow().clone());
        let keep = Keep::of(&catalog, &shelf, 0);
        let topics = keep.topics.iter().map(|(topic, heard)| {
            ((*topic).clone(), from_disk((*heard.answer).clone(), heard.notes.to_vec()))
        });
        let leaves = keep.leaves.iter().map(|leaf| {
            (Topic::Leaf(leaf.service.clone()), from_disk(Answer::Leaf((*leaf).clone()), Vec::new()))
        });
        topics.chain(leaves).collect()
    }

    /// Whether the owner of the catalog lives.
    pub(super) fn is_alive(&self) -> bool {
        self.watches.catalog().has_changed().is_ok()
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// The agent as its clients reach it; none while it is down.
pub(super) type Running = watch::Receiver<Option<Arc<Agent>>>;
