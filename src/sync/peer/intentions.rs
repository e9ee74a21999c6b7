//! Whether the agents of a datacenter may connect: Consul's own word on the intentions of `causeway-sync`.
//!
//! Callers differ by datacenter alone, so there is one verdict for each, asked for beforehand and again whenever an
//! intention changes. A Consul that gives no answer changes no verdict. The verdict comes on top of the certificate's:
//! Consul looks neither at the chain nor at the trust domain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    consul::client::{Client, ClientError},
    lifecycle::Stop,
    model::{
        catalog::{Catalog, Topic},
        name::{Datacenter, TrustDomain},
    },
    sync::peer::{SERVICE, identity::Names},
};

/// The agent answers from its cache; a longer wait means that it hangs.
const ASK: Duration = Duration::from_secs(5);
/// The cache of Consul's agent may be older than the change that was just seen, by one blocking query of its own.
const SETTLE: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1_500),
    Duration::from_secs(5),
];
/// A token without intention:read sees no change, and learns of it by this.
const REGULARLY: Duration = Duration::from_secs(30);
/// Without an answer.
const AGAIN: Duration = Duration::from_secs(2);

/// What Consul says of a datacenter's agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may connect.
    Allowed,
    /// They may not, for this reason.
    Denied(String),
}

/// The verdicts so far. A datacenter without one has not been asked about.
pub type Verdicts = BTreeMap<Datacenter, Verdict>;

/// What must be watched: whatever can change a verdict.
pub(super) fn needs() -> BTreeSet<Topic> {
    [Topic::Roots, Topic::Intentions, Topic::IntentionEntries].into()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireVerdict {
    authorized: bool,
    #[serde(default)]
    reason: String,
}

/// Asks, and keeps what was said.
pub(super) struct Judge {
    pub(super) client: Client,
    pub(super) datacenters: BTreeSet<Datacenter>,
    pub(super) verdicts: watch::Sender<Arc<Verdicts>>,
}

impl Judge {
    /// Until the stop.
    pub(super) async fn run(self, mut catalog: watch::Receiver<Arc<Catalog>>, stop: Stop) {
        let mut seen = Arc::<Catalog>::default();
        let (mut settle, mut trouble) = (SETTLE.iter(), None);
        loop {
            let now = catalog.borrow_and_update().clone();
            if has_changed(&now, &seen) {
                settle = SETTLE.iter();
            }
            seen = now;
            let mut pause = AGAIN;
            if let Some(roots) = seen.roots().known() {
                let outcome = self.ask_all(&roots.trust_domain).await;
                if outcome.is_ok() {
                    pause = settle.next().copied().unwrap_or(REGULARLY);
                }
                trouble = told(trouble, outcome.err());
            }
            tokio::select! {
                biased;
                () = stop.wait() => return,
                is_open = until_changed(&mut catalog, &seen) => if !is_open { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Asks about every datacenter. The error is the last of those that came up.
    async fn ask_all(&self, trust_domain: &TrustDomain) -> Result<(), String> {
        let names = Names { trust_domain: trust_domain.clone(), datacenters: self.datacenters.clone() };
        let mut outcome = Ok(());
        for dc in &self.datacenters {
            match self.ask(&names.id(dc)).await {
                Ok(verdict) => self.tell(dc, verdict),
                Err(error) => outcome = Err(error.to_string()),
            }
        }
        outcome
    }

    async fn ask(&self, id: &str) -> Result<Verdict, ClientError> {
        // Consul wants a serial number and has no use for it.
        let body = json!({ "Target": SERVICE, "ClientCertURI": id, "ClientCertSerial": "00" });
        let reply = self.client.post("/v1/agent/connect/authorize", &[], Some(body), ASK).await?.ok()?;
        let verdict: WireVerdict = reply.json()?;
        Ok(match verdict.authorized {
            true => Verdict::Allowed,
            false => Verdict::Denied(verdict.reason),
        })
    }

    fn tell(&self, dc: &Datacenter, verdict: Verdict) {
        self.verdicts.send_if_modified(|verdicts| {
            if verdicts.get(dc) == Some(&verdict) {
                return false;
            }
            match &verdict {
                Verdict::Allowed => info!(%dc, "intentions allow the peers of this datacenter"),
                Verdict::Denied(reason) => {
                    warn!(%dc, reason, "intentions deny the peers of this datacenter")
                }
            }
            Arc::make_mut(verdicts).insert(dc.clone(), verdict);
            true
        });
    }
}

/// Tells the log of trouble that is new, and of its end. Gives the trouble to compare the next with.
fn told(before: Option<String>, now: Option<String>) -> Option<String> {
    match (&before, &now) {
        (_, Some(error)) if before != now => {
            warn!(error, "intentions of the peer service not known; the last verdicts stay");
        }
        (Some(_), None) => info!("intentions of the peer service are known again"),
        _ => {}
    }
    now
}

fn has_changed(now: &Catalog, seen: &Catalog) -> bool {
    needs().iter().any(|topic| now.heard(topic) != seen.heard(topic))
}

/// Waits until something can change a verdict; false once the catalog is no longer kept. Cancel-safe.
async fn until_changed(catalog: &mut watch::Receiver<Arc<Catalog>>, seen: &Catalog) -> bool {
    catalog.wait_for(|now| has_changed(now, seen)).await.is_ok()
}
