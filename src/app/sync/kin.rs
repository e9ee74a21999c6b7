//! Looks at the registrations of the datacenter's other sync agents: an agent that is configured otherwise is told of here,
//! and refused by the engine.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use crate::{
    consul::watch::Watches,
    lifecycle::Stop,
    model::{
        catalog::Topic,
        instance::Instance,
        name::{Datacenter, NodeName, ServiceName},
        sync::PrefixTable,
    },
    sync::{
        engine::kin::{Kin, disagreements, heard},
        peer::{self, register::PREFIX_META},
    },
};

/// Who wants the list of agents.
const OWNER: &str = "sync.kin";

/// Which agent looks, and with what prefixes.
pub(super) struct Own {
    pub(super) datacenter: Datacenter,
    pub(super) node: NodeName,
    pub(super) prefixes: PrefixTable,
}

/// Tells `seen` what the others say of themselves, until the stop.
pub(super) async fn run(own: Own, watches: Watches, seen: watch::Sender<Option<Arc<Vec<Kin>>>>, stop: Stop) {
    let service = ServiceName::from(peer::SERVICE);
    let topic = Topic::Connect { dc: own.datacenter.clone(), service: service.clone() };
    watches.want(OWNER, [topic].into()).await;
    let mut catalog = watches.catalog();
    let mut told = Vec::new();
    loop {
        // What is not known says nothing of anybody: the last that was heard stays.
        let kin: Option<Vec<Kin>> = {
            let catalog = catalog.borrow_and_update();
            let instances = catalog.connect(&own.datacenter, &service).known();
            instances.map(|instances| instances.iter().filter(|it| it.node != own.node).map(kin).collect())
        };
        if let Some(kin) = kin {
            let texts = disagreements(&own.node, &own.prefixes, &kin);
            for text in texts.iter().filter(|text| !told.contains(*text)) {
                warn!(why = text, "another sync agent of this datacenter is configured otherwise");
            }
            told = texts;
            seen.send_if_modified(|seen| {
                let is_new = seen.as_deref() != Some(&kin);
                *seen = Some(Arc::new(kin));
                is_new
            });
        }
        tokio::select! {
            biased;
            () = stop.wait() => return watches.want(OWNER, Default::default()).await,
            changed = catalog.changed() => if changed.is_err() { return },
        }
    }
}

fn kin(instance: &Instance) -> Kin {
    let prefixes = instance.meta.iter().filter(|(name, _)| name.starts_with(PREFIX_META));
    Kin {
        node: instance.node.clone(),
        address: instance.lan.to_string(),
        prefixes: prefixes.filter_map(|(_, text)| heard(text)).collect(),
    }
}
