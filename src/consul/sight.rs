//! Whether an empty list is the truth. To a token that may not read what is in it Consul answers with an empty one too, and
//! before 1.11 without a word (hashicorp/consul#12623); so it does to every token while it cannot ask what tokens may do.
//!
//! Two things tell. Every datacenter has nodes, and services on them, those of Consul's own servers at least: whoever
//! sees none there is not shown what there is. And Consul says what a token may read; its client agents remember that
//! for half a minute, which is why the first is looked at as well.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    consul::{
        client::{Client, ClientError, Reply},
        index::Fault,
    },
    lifecycle,
    model::{
        catalog::{Answer, Topic},
        instance::Instance,
        intention::Party,
        name::Datacenter,
    },
};

const DEADLINE: Duration = Duration::from_secs(10);
const AUTHORIZE: &str = "/v1/internal/acl/authorize";

/// What is seen of each datacenter. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Sights(Arc<Mutex<BTreeMap<Datacenter, Arc<tokio::sync::Mutex<Option<Sight>>>>>>);

/// One look.
#[derive(Clone)]
struct Sight {
    began: Instant,
    seen: Result<(), Doubt>,
}

/// Why an empty list is not believed: the token may not read it, or nothing could be asked.
pub(crate) type Doubt = (Fault, Arc<str>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireRight {
    #[serde(default)]
    allow: bool,
}

/// What a token must be allowed to read to see what was in an answer: all of some, or one of some.
#[derive(Debug, PartialEq)]
enum Rights {
    All(Vec<Value>),
    Any(Vec<Value>),
}

/// The datacenter whose servers make the topic's list.
pub(crate) fn datacenter<'a>(topic: &'a Topic, local: Option<&'a Datacenter>) -> Option<&'a Datacenter> {
    match topic {
        Topic::Connect { dc, .. }
        | Topic::Health { dc, .. }
        | Topic::Services { dc, .. }
        | Topic::PreparedQuery { dc, .. } => Some(dc),
        _ => local,
    }
}

/// Whether others may have a part in it: where a prepared query fails over to cannot be told from its result, and Consul
/// counts a datacenter that does not answer as one that has nothing.
pub(crate) fn is_of_all(topic: &Topic) -> bool {
    matches!(topic, Topic::PreparedQuery { .. })
}

impl Sights {
    /// Confirms that there is nothing where an empty list came from, and what was there `before`, if that is known, is
    /// gone. The look into the datacenter began no earlier than `since`.
    ///
    /// # Errors
    /// The reason why that is not known.
    pub(crate) async fn confirm(
        &self,
        client: &Client,
        dc: &Datacenter,
        before: Option<&Answer>,
        since: Instant,
    ) -> Result<(), Doubt> {
        self.look(client, dc, since).await?;
        match before.and_then(rights_of) {
            Some(rights) => may_read(client, dc, &rights).await,
            None => Ok(()),
        }
    }

    /// The same of all datacenters that Consul knows.
    ///
    /// # Errors
    /// One of them does not answer, or does not show what it has.
    pub(crate) async fn confirm_everywhere(&self, client: &Client, since: Instant) -> Result<(), Doubt> {
        let all: Vec<String> = told(client.get("/v1/catalog/datacenters", &[], DEADLINE).await)?;
        for dc in all {
            self.look(client, &Datacenter::from(dc.as_str()), since).await?;
        }
        Ok(())
    }

    /// Many lists may become empty at once: they share a look.
    async fn look(&self, client: &Client, dc: &Datacenter, since: Instant) -> Result<(), Doubt> {
        let of_dc =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(dc.clone()).or_default().clone();
        let mut last = of_dc.lock().await;
        if let Some(sight) = last.as_ref().filter(|sight| sight.began >= since) {
            return sight.seen.clone();
        }
        let began = lifecycle::now();
        let seen = sees(client, dc).await;
        *last = Some(Sight { began, seen: seen.clone() });
        seen
    }
}

async fn sees(client: &Client, dc: &Datacenter) -> Result<(), Doubt> {
    let query = [("dc", dc.as_str())];
    let nodes: Vec<IgnoredAny> = told(client.get("/v1/catalog/nodes", &query, DEADLINE).await)?;
    let services: BTreeMap<String, IgnoredAny> =
        told(client.get("/v1/catalog/services", &query, DEADLINE).await)?;
    match (nodes.is_empty(), services.is_empty()) {
        (true, _) => Err(denied(format!("the token is shown no node of {dc}"))),
        (_, true) => Err(denied(format!("the token is shown no service of {dc}"))),
        _ => Ok(()),
    }
}

async fn may_read(client: &Client, dc: &Datacenter, rights: &Rights) -> Result<(), Doubt> {
    let (Rights::All(questions) | Rights::Any(questions)) = rights;
    let body = Some(json!(questions));
    let asked = client.post(AUTHORIZE, &[("dc", dc.as_str())], body, DEADLINE).await;
    let has_no_acls = |reply: &Reply| {
        reply.status == StatusCode::UNAUTHORIZED && reply.excerpt().contains("ACL support disabled")
    };
    if asked.as_ref().is_ok_and(has_no_acls) {
        return Ok(());
    }
    let told: Vec<WireRight> = told(asked)?;
    let is_allowed = match rights {
        _ if told.len() != questions.len() => false,
        Rights::All(_) => told.iter().all(|right| right.allow),
        Rights::Any(_) => told.iter().any(|right| right.allow),
    };
    if is_allowed { Ok(()) } else { Err(denied("the token may not read what was in it".into())) }
}

fn denied(reason: String) -> Doubt {
    (Fault::Denied, reason.into())
}

/// What Consul said. Whatever else became of the question is no answer to it.
fn told<T: DeserializeOwned>(asked: Result<Reply, ClientError>) -> Result<T, Doubt> {
    let told = asked.and_then(|reply| reply.ok()?.json());
    told.map_err(|error| (Fault::Busy, error.to_string().into()))
}

/// To see the first of what was listed; none where nothing can be said of that.
fn rights_of(before: &Answer) -> Option<Rights> {
    let read =
        |resource: &str, segment: &str| json!({"Resource": resource, "Segment": segment, "Access": "read"});
    let of = |instances: &[Instance]| {
        let first = instances.first()?;
        Some(Rights::All(vec![read("node", first.node.as_str()), read("service", first.service.as_str())]))
    };
    match before {
        Answer::Instances(instances) => of(instances),
        Answer::Query(result) => of(&result.instances),
        Answer::Services(services) => {
            services.keys().next().map(|name| Rights::All(vec![read("service", name.as_str())]))
        }
        Answer::Intentions(intentions) => intentions.first().map(|first| {
            let name = |party: &Party| match party {
                Party::Service(name) => name.to_string(),
                Party::AnyService | Party::Anything => "*".to_owned(),
            };
            // Consul shows an intention to whoever may read those of either end.
            let ends = [&first.source, &first.destination];
            Rights::Any(ends.map(|party| read("intention", &name(party))).to_vec())
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
