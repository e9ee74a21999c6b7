//! An agent's disk: what is written there is there after a crash, what is half written is not.

use std::sync::{Arc, Mutex};

use causeway::{model::name::NodeName, sync::positions::Disk};
use futures_util::future::BoxFuture;

use super::Net;

/// What is on a disk. Clones are the same one.
pub(crate) type Content = Arc<Mutex<String>>;

/// One agent's way to its disk.
pub(crate) struct SimDisk {
    net: Net,
    node: NodeName,
    content: Content,
}

impl SimDisk {
    pub(crate) fn new(net: &Net, node: &NodeName, content: Content) -> Self {
        Self { net: net.clone(), node: node.clone(), content }
    }
}

impl Disk for SimDisk {
    fn write(&self, body: String) -> BoxFuture<'static, Result<(), String>> {
        let (net, content, lane) = (self.net.clone(), self.content.clone(), format!("{} disk", self.node));
        Box::pin(async move {
            net.near(&lane).await;
            *content.lock().unwrap() = body;
            Ok(())
        })
    }
}
