//! Whether an empty list is the truth. To a token that may not read what is in it Consul answers with an empty one too, and
//! before 1.11 without a word (hashicorp/consul#12623); so it does to every token while it cannot ask what tokens may do.
//!
//! Two things tell. Every datacenter has nodes, and services on them, those of Consul's own servers at least: whoever
//! sees none there is not shown what there is. And Consul says what a token may read; its client agents remember that
//! for half a minute, which is why the first is looked at as well.

use std::{
    collections::{BTreeMap, BTreeSet},
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
        poller::Turns,
        topic,
    },
    lifecycle,
    model::{
        catalog::{Answer, Topic},
        instance::Instance,
        intention::{Intention, Party},
        name::Datacenter,
    },
};

const DEADLINE: Duration = Duration::from_secs(10);
/// A look that found nothing is not made again for so long.
const STILL_BLIND: Duration = Duration::from_secs(1);
/// Consul takes 64 questions at once.
const MOST_OF_A_KIND: usize = 32;
const AUTHORIZE: &str = "/v1/internal/acl/authorize";

/// What is seen of each datacenter; of the own one also before its name is known. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Sights(Arc<Mutex<BTreeMap<Option<Datacenter>, Last>>>);

/// The last look. Whoever looks holds it.
type Last = Arc<tokio::sync::Mutex<Option<Sight>>>;

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

/// Whose list is empty, and how to ask about it.
pub(crate) struct About<'a> {
    pub(crate) client: &'a Client,
    pub(crate) turns: &'a Turns,
    pub(crate) topic: &'a Topic,
    /// What it listed before.
    pub(crate) before: Option<&'a Answer>,
    /// The agent's own datacenter, once it is known.
    pub(crate) local: Option<&'a Datacenter>,
}

impl Sights {
    /// Confirms that an empty list of a topic is the truth, and that what was there `before`, if that is known, is gone.
    /// Looks began no earlier than `since`.
    ///
    /// # Errors
    /// The reason why that is not known.
    pub(crate) async fn confirm(&self, about: &About<'_>, since: Instant) -> Result<(), Doubt> {
        // Where none is named the agent's own servers make the list.
        let dc = about.topic.datacenter().or(about.local);
        self.look(about, dc, since).await?;
        if about.before.is_some() && matches!(about.topic, Topic::PreparedQuery { .. }) {
            self.everywhere(about, since).await?;
        }
        match rights_of(about.topic, about.before) {
            Some(rights) => may_read(about, dc, &rights).await,
            None => Ok(()),
        }
    }

    /// Where a prepared query fails over to cannot be told from its result, and Consul counts a datacenter that does not
    /// answer as one that has nothing.
    async fn everywhere(&self, about: &About<'_>, since: Instant) -> Result<(), Doubt> {
        let all: Vec<String> = about.ask("/v1/catalog/datacenters", None).await?;
        for dc in all {
            self.look(about, Some(&Datacenter::from(dc.as_str())), since).await?;
        }
        Ok(())
    }

    /// Many lists may become empty at once: they share a look, and one that found nothing for a moment.
    async fn look(&self, about: &About<'_>, dc: Option<&Datacenter>, since: Instant) -> Result<(), Doubt> {
        let of_dc = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(dc.cloned()).or_default().clone()
        };
        let mut last = of_dc.lock().await;
        let counts = |sight: &&Sight| {
            sight.began >= since || (sight.seen.is_err() && sight.began.elapsed() < STILL_BLIND)
        };
        if let Some(sight) = last.as_ref().filter(counts) {
            return sight.seen.clone();
        }
        let began = lifecycle::now();
        let seen = sees(about, dc).await;
        *last = Some(Sight { began, seen: seen.clone() });
        seen
    }
}

impl About<'_> {
    async fn ask<T: DeserializeOwned>(&self, path: &str, dc: Option<&Datacenter>) -> Result<T, Doubt> {
        let _turn = self.turns.turn().await;
        let dc = dc.map(|dc| ("dc", dc.as_str()));
        told(self.client.get(path, dc.as_slice(), DEADLINE).await)
    }
}

async fn sees(about: &About<'_>, dc: Option<&Datacenter>) -> Result<(), Doubt> {
    let servers: Vec<IgnoredAny> = about.ask("/v1/health/service/consul", dc).await?;
    if !servers.is_empty() {
        return Ok(());
    }
    // The token may see others than those.
    let nodes: Vec<IgnoredAny> = about.ask("/v1/catalog/nodes", dc).await?;
    let services: BTreeMap<String, IgnoredAny> = about.ask("/v1/catalog/services", dc).await?;
    let of = dc.map_or_else(String::new, |dc| format!(" of {dc}"));
    match (nodes.is_empty(), services.is_empty()) {
        (true, _) => Err(denied(&format!("the token is shown no node{of}"), topic::READ_ALL)),
        (_, true) => Err(denied(&format!("the token is shown no service{of}"), topic::READ_ALL)),
        _ => Ok(()),
    }
}

async fn may_read(about: &About<'_>, dc: Option<&Datacenter>, rights: &Rights) -> Result<(), Doubt> {
    let (Rights::All(questions) | Rights::Any(questions)) = rights;
    let (body, dc) = (Some(json!(questions)), dc.map(|dc| ("dc", dc.as_str())));
    let asked = {
        let _turn = about.turns.turn().await;
        about.client.post(AUTHORIZE, dc.as_slice(), body, DEADLINE).await
    };
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
    if is_allowed { Ok(()) } else { Err(denied("the token may not read it", topic::right(about.topic))) }
}

fn denied(reason: &str, remedy: &str) -> Doubt {
    (Fault::Denied, format!("{reason}; {remedy}").into())
}

/// What Consul said. Whatever else became of the question is no answer to it.
fn told<T: DeserializeOwned>(asked: Result<Reply, ClientError>) -> Result<T, Doubt> {
    let told = asked.and_then(|reply| reply.ok()?.json());
    told.map_err(|error| (Fault::Busy, error.to_string().into()))
}

/// To see what the topic lists, and what it listed before; none where nothing can be said of that.
fn rights_of(topic: &Topic, before: Option<&Answer>) -> Option<Rights> {
    let (mut nodes, mut services) = (BTreeSet::new(), BTreeSet::new());
    if let Topic::Connect { service, .. } | Topic::Health { service, .. } = topic {
        services.insert(service.as_str());
    }
    match before {
        Some(Answer::Intentions(intentions)) => return intentions.first().map(of_intention),
        Some(Answer::Services(listed)) => services.extend(listed.keys().map(|name| name.as_str())),
        Some(before) => {
            let all = instances(before);
            nodes.extend(all.iter().map(|instance| instance.node.as_str()));
            services.extend(all.iter().map(|instance| instance.service.as_str()));
        }
        None => {}
    }
    let nodes = nodes.into_iter().take(MOST_OF_A_KIND).map(|name| read("node", name));
    let services = services.into_iter().take(MOST_OF_A_KIND).map(|name| read("service", name));
    let questions: Vec<Value> = nodes.chain(services).collect();
    (!questions.is_empty()).then_some(Rights::All(questions))
}

fn instances(answer: &Answer) -> Vec<&Instance> {
    match answer {
        Answer::Instances(instances) => instances.iter().collect(),
        Answer::Query(result) => result.instances.iter().collect(),
        Answer::FederationStates(states) => states.values().flatten().collect(),
        _ => Vec::new(),
    }
}

/// Consul shows an intention to whoever may read those of either end.
fn of_intention(intention: &Intention) -> Rights {
    let name = |party: &Party| match party {
        Party::Service(name) => name.to_string(),
        Party::AnyService | Party::Anything => "*".to_owned(),
    };
    let ends = [&intention.source, &intention.destination];
    Rights::Any(ends.map(|party| read("intention", &name(party))).to_vec())
}

fn read(resource: &str, segment: &str) -> Value {
    json!({"Resource": resource, "Segment": segment, "Access": "read"})
}

#[cfg(test)]
mod tests;
