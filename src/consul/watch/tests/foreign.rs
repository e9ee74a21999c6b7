//! Values on disk that turn out to be another agent's.

use super::*;

fn from_disk(heard: Heard) -> Heard {
    let stale = Some(Stale { reason: "kept".into(), is_from_disk: true });
    Heard { stale, ..heard }
}

/// An owner with what the agent of this node kept, of its own and of these services.
fn kept_by(node: &str, services: &[&str]) -> Owner {
    let mut topics = Topics::from([(Topic::Agent, from_disk(agent(node)))]);
    topics.extend(services.iter().map(|service| (health(service), kept(2))));
    owner(topics)
}

#[tokio::test(start_paused = true)]
async fn of_another_agents_values_only_the_failure_is_still_told() {
    let mut owner = kept_by("vm", &["web", "db", "late"]);
    owner.want(&[Topic::Agent, health("web"), health("db"), health("late")]);
    assert!(owner.lose(&health("web")));
    assert!(owner.hear(&health("db"), fresh(3)), "Consul's own answer");
    tokio::time::sleep(crate::consul::shelf::PATIENCE).await;
    owner.tend_shelf(lifecycle::now());
    assert_eq!(count(&owner.catalog, "late"), Some(2), "Consul has not answered, and nothing failed");
    assert_eq!(owner.desk.metrics.topics_from_disk.get(), 3, "the agent, web and late");

    assert!(owner.hear(&Topic::Agent, agent("another")));
    let told = |service: &str| owner.catalog.trouble(&health(service)).map(ToString::to_string);
    assert_eq!((count(&owner.catalog, "web"), told("web")), (None, Some("no answer".to_owned())));
    assert_eq!((count(&owner.catalog, "late"), told("late")), (None, None), "it waits for its first answer");
    assert_eq!((count(&owner.catalog, "db"), told("db")), (Some(3), None));
    assert_eq!(owner.desk.metrics.topics_from_disk.get(), 0);
    assert_eq!(owner.desk.metrics.topics_silent.get(), 1, "web is as silent as before");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_another_agent_comes_into_use_later() {
    let mut owner = kept_by("vm", &["web"]);
    owner.want(&[Topic::Agent]);
    owner.hear(&Topic::Agent, agent("another"));
    owner.want(&[Topic::Agent, health("web")]);
    assert!(owner.lose(&health("web")));
    tokio::time::sleep(crate::consul::shelf::PATIENCE).await;
    owner.tend_shelf(lifecycle::now());
    assert_eq!(count(&owner.catalog, "web"), None);
    assert!(owner.shelved().is_empty(), "nor is it kept on: {:?}", owner.shelved());
}

#[tokio::test(start_paused = true)]
async fn the_same_agent_s_values_stay_in_use() {
    let mut owner = kept_by("vm", &["web"]);
    owner.want(&[Topic::Agent, health("web")]);
    owner.lose(&health("web"));
    owner.hear(&Topic::Agent, agent("vm"));
    assert_eq!(count(&owner.catalog, "web"), Some(2));
    assert_eq!(stale(&owner.catalog, "web"), Some("no answer".to_owned()));
    assert_eq!(owner.desk.metrics.topics_from_disk.get(), 1);
}
