//! Answers that an earlier run of the agent kept, and those of topics that were let go while Consul was silent: at hand
//! until Consul answers.
//!
//! Consul comes first. A topic that is asked for gets its kept answer only when asking failed, or was not answered within
//! [`PATIENCE`]: where Consul can be asked nobody is ever served what was true yesterday. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    consul::fallback::UNKNOWN,
    model::{
        agent::AgentFacts,
        catalog::{Answer, Heard, Topic, Topics},
    },
};

/// How long a topic waits for Consul before its kept answer is used. A healthy Consul answers within milliseconds, one
/// that holds its breath is given up after ten seconds only.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long kept answers stay at hand once Consul says all that it is asked for again: proxies that were away come back
/// meanwhile.
const KEPT: Duration = Duration::from_secs(600);
/// Between two times that the shelf is shown: it empties answer by answer.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// The shelf.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// Kept answers, marked stale.
    kept: Topics,
    /// Topics of them that are asked for, with the end of the patience with Consul.
    awaited: BTreeMap<Topic, Instant>,
    /// The same by time.
    ends: BTreeSet<(Instant, Topic)>,
    started: Instant,
    /// Whose answers these are, until the local agent says whether it is the same.
    owner: Option<AgentFacts>,
    /// Whether Consul has answered anything at all.
    is_heard: bool,
    /// Whether the local agent answers. It does also where all servers are gone.
    is_agent_heard: bool,
    /// Since when Consul says all that it is asked for.
    calm_since: Option<Instant>,
    /// When to show what is on it now, if it was not shown yet.
    show_at: Option<Instant>,
}

impl Shelf {
    pub(crate) fn new(kept: Topics, now: Instant) -> Self {
        let owner = match kept.get(&Topic::Agent).map(|heard| &*heard.answer) {
            Some(Answer::Agent(facts)) => Some(facts.clone()),
            _ => None,
        };
        Self {
            kept,
            awaited: BTreeMap::new(),
            ends: BTreeSet::new(),
            started: now,
            owner,
            is_heard: false,
            is_agent_heard: false,
            calm_since: None,
            show_at: None,
        }
    }

    /// Consul is asked for a topic from now on. As long as it has not answered anything, all topics have one patience
    /// together: what a proxy needs is found out in steps.
    pub(crate) fn asked(&mut self, topic: &Topic, now: Instant) {
        if self.kept.contains_key(topic) {
            let since = if self.is_heard { now } else { self.started };
            let end = since + PATIENCE;
            self.unawait(topic);
            self.awaited.insert(topic.clone(), end);
            self.ends.insert((end, topic.clone()));
        }
    }

    /// What is at hand of a topic.
    pub(crate) fn kept(&self, topic: &Topic) -> Option<&Heard> {
        self.kept.get(topic)
    }

    /// Consul answered. Gives whether it is another agent than the one whose answers were kept: then none is left.
    pub(crate) fn answered(&mut self, topic: &Topic, answer: &Answer, now: Instant) -> bool {
        self.is_heard = true;
        drop(self.lost(topic, now));
        let Answer::Agent(facts) = answer else { return false };
        self.is_agent_heard = true;
        let is_foreign = self.owner.take().is_some_and(|owner| !is_same(&owner, facts));
        if is_foreign {
            self.clear(now);
        }
        is_foreign
    }

    /// Consul gives no answer: what was kept of the topic, if it was not given before.
    pub(crate) fn lost(&mut self, topic: &Topic, now: Instant) -> Option<Heard> {
        if *topic == Topic::Agent {
            self.is_agent_heard = false;
        }
        let heard = self.kept.remove(topic)?;
        self.unawait(topic);
        self.changed(now);
        Some(heard)
    }

    /// What waited for Consul long enough.
    pub(crate) fn overdue(&mut self, now: Instant) -> Topics {
        let mut overdue = Topics::new();
        while let Some((end, _)) = self.ends.first()
            && *end <= now
            && let Some((_, topic)) = self.ends.pop_first()
        {
            self.awaited.remove(&topic);
            overdue.extend(self.kept.remove_entry(&topic));
            self.changed(now);
        }
        overdue
    }

    /// Nobody asks for the topic any more; `silent` is its answer if Consul did not confirm it of late. That is at hand
    /// should somebody come back before Consul does.
    pub(crate) fn let_go(&mut self, topic: &Topic, silent: Option<Heard>, now: Instant) {
        self.unawait(topic);
        if let Some(heard) = silent {
            self.calm_since = None;
            self.kept.insert(topic.clone(), heard);
            self.changed(now);
        }
    }

    /// Whether Consul is silent on anything that is asked for and was known, which is told whenever that may have changed.
    pub(crate) fn told(&mut self, is_silent: bool, now: Instant) {
        if is_silent || !self.is_agent_heard {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
    }

    /// What is on it, if that was not shown yet: before anything that came here leaves another place.
    pub(crate) fn unshown(&mut self) -> Option<Topics> {
        self.show_at.take().map(|_| self.kept.clone())
    }

    /// When something is to be done: [`Self::overdue`], then [`Self::shown`].
    pub(crate) fn due(&self) -> Option<Instant> {
        let patience = self.ends.first().map(|(end, _)| *end);
        [patience, self.over_at(), self.show_at].into_iter().flatten().min()
    }

    /// What is on it, if that was not shown yet and the time has come. What nobody came for is cleared away.
    pub(crate) fn shown(&mut self, now: Instant) -> Option<Topics> {
        if self.over_at().is_some_and(|at| at <= now) {
            self.clear(now);
        }
        self.show_at.filter(|at| *at <= now).and_then(|_| self.unshown())
    }

    fn over_at(&self) -> Option<Instant> {
        self.calm_since.map(|at| at + KEPT).filter(|_| !self.kept.is_empty())
    }

    fn clear(&mut self, now: Instant) {
        self.kept.clear();
        self.awaited.clear();
        self.ends.clear();
        self.changed(now);
    }

    fn unawait(&mut self, topic: &Topic) {
        if let Some(end) = self.awaited.remove(topic) {
            self.ends.remove(&(end, topic.clone()));
        }
    }

    fn changed(&mut self, now: Instant) {
        self.show_at.get_or_insert(now + SHOWN_EVERY);
    }
}

/// Whether both are facts of the same agent. A token that may not read the agent does not tell the node.
fn is_same(a: &AgentFacts, b: &AgentFacts) -> bool {
    let is_told = [a, b].iter().all(|facts| facts.node.as_str() != UNKNOWN);
    a.datacenter == b.datacenter && (a.node == b.node || !is_told)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{catalog::Stale, registration::Defaults};

    fn facts(node: &str) -> Answer {
        Answer::Agent(AgentFacts::sample(node))
    }

    fn kept(answer: Answer) -> Heard {
        let stale = Some(Stale { reason: "kept".into(), is_from_disk: true });
        Heard { answer: Arc::new(answer), notes: [].into(), stale }
    }

    fn defaults() -> Answer {
        Answer::Defaults(Defaults::default())
    }

    fn shelf(now: Instant) -> Shelf {
        let topics = [
            (Topic::Agent, kept(facts("vm"))),
            (Topic::ProxyDefaults, kept(defaults())),
            (Topic::ServiceDefaults("web".into()), kept(defaults())),
        ];
        Shelf::new(topics.into(), now)
    }

    #[tokio::test(start_paused = true)]
    async fn consul_comes_first_and_a_failure_brings_out_what_was_kept() {
        let now = Instant::now();
        let mut shelf = shelf(now);
        shelf.asked(&Topic::Agent, now);
        shelf.asked(&Topic::ProxyDefaults, now);
        shelf.asked(&Topic::Mesh, now);
        assert_eq!(shelf.due(), Some(now + PATIENCE));
        assert!(!shelf.answered(&Topic::Agent, &facts("vm"), now));
        assert_eq!(shelf.lost(&Topic::Agent, now), None, "Consul's answer counts, whatever comes later");
        assert_eq!(shelf.lost(&Topic::ProxyDefaults, now), Some(kept(defaults())));
        assert_eq!(shelf.lost(&Topic::ProxyDefaults, now), None);
        assert_eq!(shelf.lost(&Topic::Mesh, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_consul_that_says_nothing_is_waited_for_once() {
        let now = Instant::now();
        let mut shelf = shelf(now);
        shelf.asked(&Topic::Agent, now);
        assert!(shelf.overdue(now + PATIENCE - Duration::from_millis(1)).is_empty());
        let later = now + PATIENCE;
        assert!(shelf.overdue(later).contains_key(&Topic::Agent));
        shelf.asked(&Topic::ProxyDefaults, later);
        assert!(shelf.overdue(later).contains_key(&Topic::ProxyDefaults), "the next step waits no more");
        shelf.answered(&Topic::Agent, &facts("vm"), later);
        let web = Topic::ServiceDefaults("web".into());
        shelf.asked(&web, later);
        assert!(shelf.overdue(later).is_empty(), "Consul answers, so each topic has its own patience");
        shelf.let_go(&web, None, later);
        assert!(shelf.overdue(later + PATIENCE).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_came_for_goes_when_consul_is_back_for_long() {
        let now = Instant::now();
        let mut shelf = shelf(now);
        shelf.told(false, now);
        assert_eq!(shelf.due(), None, "without Consul it stays");
        shelf.answered(&Topic::Agent, &facts("vm"), now);
        assert_eq!(shelf.shown(now), None);
        assert_eq!(shelf.shown(now + SHOWN_EVERY).map(|kept| kept.len()), Some(2));
        assert_eq!(shelf.due(), None, "a local agent answers also when the servers are gone");
        shelf.told(true, now);
        assert_eq!(shelf.due(), None);
        shelf.told(false, now);
        shelf.told(false, now + KEPT / 2);
        assert_eq!(shelf.due(), Some(now + KEPT));
        shelf.told(true, now + KEPT / 2);
        assert_eq!(shelf.due(), None, "it is away again");
        shelf.told(false, now);
        assert_eq!(shelf.shown(now + KEPT), None);
        let shown_at = shelf.due().unwrap();
        assert_eq!(shelf.shown(shown_at), Some(Topics::new()));
        assert_eq!(shelf.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_let_go_later_has_its_own_ten_minutes() {
        let now = Instant::now();
        let mut shelf = shelf(now);
        shelf.answered(&Topic::Agent, &facts("vm"), now);
        shelf.told(false, now);
        let later = now + KEPT / 2;
        shelf.let_go(&Topic::Mesh, Some(kept(defaults())), later);
        shelf.told(false, later);
        shelf.unshown();
        assert_eq!(shelf.due(), Some(later + KEPT));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_of_another_agent_are_not_used() {
        let now = Instant::now();
        let mut other = shelf(now);
        assert!(other.answered(&Topic::Agent, &facts("another"), now));
        assert_eq!(other.lost(&Topic::ProxyDefaults, now), None);
        let mut untold = shelf(now);
        assert!(!untold.answered(&Topic::Agent, &facts(UNKNOWN), now));
        assert!(untold.lost(&Topic::ProxyDefaults, now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_let_go_in_silence_is_at_hand() {
        let now = Instant::now();
        let mut shelf = Shelf::new(Topics::new(), now);
        shelf.let_go(&Topic::Roots, None, now);
        assert_eq!(shelf.due(), None);
        shelf.let_go(&Topic::Mesh, Some(kept(defaults())), now);
        shelf.asked(&Topic::Mesh, now);
        assert_eq!(shelf.lost(&Topic::Mesh, now), Some(kept(defaults())));
    }
}
