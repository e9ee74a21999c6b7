//! With which token a service's leaf certificate is asked for: with one that a proxy presented and that passed the
//! check, so that the agent's own needs no right to any service's identity.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::model::{catalog::Topic, name::ServiceName, secret::SecretText};

/// Whose token is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The agent's own, or none.
    Own,
    /// That of a proxy of the service.
    Proxy(SecretText),
}

/// The latest tokens for leaf certificates. Clones share them.
#[derive(Clone, Debug)]
pub struct LeafTokens(watch::Sender<State>);

#[derive(Clone, Debug)]
struct State {
    source: Source,
    /// By service, the oldest first.
    passed: BTreeMap<ServiceName, Vec<Passed>>,
}

#[derive(Clone, Debug)]
struct Passed {
    holder: u64,
    credential: Credential,
    /// Consul has refused a leaf to it since.
    is_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Unknown,
    Agent,
    Proxies,
}

impl LeafTokens {
    /// Leaves are asked for with the agent's own token.
    pub fn own() -> Self {
        Self::of(Source::Agent)
    }

    /// Nothing is asked for until it is known whether Consul has ACLs ([`Self::tell`]).
    pub fn of_proxies() -> Self {
        Self::of(Source::Unknown)
    }

    fn of(source: Source) -> Self {
        Self(watch::Sender::new(State { source, passed: BTreeMap::new() }))
    }

    /// Says whether Consul has ACLs: without, the agent's own token, or none, does for every leaf.
    pub fn tell(&self, has_acls: bool) {
        let source = if has_acls { Source::Proxies } else { Source::Agent };
        self.0.send_if_modified(|state| std::mem::replace(&mut state.source, source) != source);
    }

    /// Adds what `holder` may ask for the service's leaf with. The oldest is used until it is withdrawn or refused:
    /// another token brings another certificate.
    pub fn pass(&self, service: &ServiceName, holder: u64, credential: Credential) {
        self.0.send_modify(|state| {
            let of_service = state.passed.entry(service.clone()).or_default();
            of_service.retain(|passed| passed.holder != holder);
            of_service.push(Passed { holder, credential, is_refused: false });
        });
    }

    /// Takes away what `holder` passed.
    pub fn withdraw(&self, service: &ServiceName, holder: u64) {
        self.0.send_if_modified(|state| {
            let Some(of_service) = state.passed.get_mut(service) else { return false };
            let before = of_service.len();
            of_service.retain(|passed| passed.holder != holder);
            let has_changed = of_service.len() != before;
            if of_service.is_empty() {
                state.passed.remove(service);
            }
            has_changed
        });
    }

    /// Takes note that Consul has refused a leaf to what the key holds, which passed its check before: its token was
    /// deleted since, or has lost the right. Gives whether the key holds another now.
    pub(crate) fn refused(&self, key: &mut Key) -> bool {
        let (Some(held), Some((_, service))) = (&key.held, &key.changes) else { return false };
        self.0.send_if_modified(|state| {
            let of_service = state.passed.get_mut(service).into_iter().flatten();
            let with_it = of_service.filter(|passed| passed.credential == *held && !passed.is_refused);
            with_it.map(|passed| passed.is_refused = true).count() > 0
        });
        let now = self.0.borrow().credential(service);
        let has_another = now.is_some() && now != key.held;
        if has_another {
            key.held = now;
        }
        has_another
    }

    /// The key to one topic.
    pub(crate) fn key(&self, topic: &Topic) -> Key {
        let Topic::Leaf(service) = topic else { return Key { held: Some(Credential::Own), changes: None } };
        let state = self.0.subscribe();
        let held = state.borrow().credential(service);
        Key { held, changes: Some((state, service.clone())) }
    }
}

impl State {
    fn credential(&self, service: &ServiceName) -> Option<Credential> {
        match self.source {
            Source::Unknown => None,
            Source::Agent => Some(Credential::Own),
            Source::Proxies => {
                let passed = self.passed.get(service)?;
                // Where all were refused the first stays: it may be that Consul refuses everybody for a while.
                let good = passed.iter().find(|passed| !passed.is_refused).or(passed.first());
                good.map(|passed| passed.credential.clone())
            }
        }
    }
}

/// What one topic may be asked for with, as it changes.
#[derive(Debug)]
pub(crate) struct Key {
    held: Option<Credential>,
    changes: Option<(watch::Receiver<State>, ServiceName)>,
}

impl Key {
    /// The credential; none as long as nobody may ask.
    pub(crate) fn held(&self) -> Option<&Credential> {
        self.held.as_ref()
    }

    /// Waits until it is another one. Cancel-safe. Topics that need no proxy's token keep theirs for ever.
    pub(crate) async fn changed(&mut self) {
        let Some((state, service)) = &mut self.changes else { return std::future::pending().await };
        loop {
            let now = state.borrow_and_update().credential(service);
            if now != self.held {
                self.held = now;
                return;
            }
            if state.changed().await.is_err() {
                // Nobody is left to change it.
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(tokens: &LeafTokens) -> Option<Credential> {
        tokens.key(&Topic::Leaf("web".into())).held().cloned()
    }

    fn proxy(token: &str) -> Credential {
        Credential::Proxy(token.into())
    }

    #[test]
    fn a_leaf_waits_for_a_token_that_passed_and_keeps_the_oldest() {
        let (tokens, web) = (LeafTokens::of_proxies(), ServiceName::from("web"));
        assert_eq!(held(&tokens), None);
        tokens.pass(&web, 1, proxy("a"));
        assert_eq!(held(&tokens), None, "it is not known yet whether there are ACLs");
        tokens.tell(true);
        tokens.pass(&web, 2, proxy("b"));
        assert_eq!(held(&tokens), Some(proxy("a")));
        tokens.withdraw(&web, 1);
        assert_eq!(held(&tokens), Some(proxy("b")));
        tokens.withdraw(&web, 2);
        assert_eq!(held(&tokens), None);
        tokens.tell(false);
        assert_eq!(held(&tokens), Some(Credential::Own));
    }

    #[test]
    fn a_token_that_is_refused_gives_way_to_one_that_is_not() {
        let (tokens, web) = (LeafTokens::of_proxies(), ServiceName::from("web"));
        tokens.tell(true);
        tokens.pass(&web, 1, proxy("a"));
        let mut key = tokens.key(&Topic::Leaf(web.clone()));
        assert!(!tokens.refused(&mut key), "there is no other");
        assert_eq!(key.held(), Some(&proxy("a")));
        tokens.pass(&web, 2, proxy("a"));
        tokens.pass(&web, 3, proxy("b"));
        assert!(tokens.refused(&mut key));
        assert_eq!(key.held(), Some(&proxy("b")));
        assert_eq!(held(&tokens), Some(proxy("b")), "for whoever asks next too");
        tokens.refused(&mut key);
        assert_eq!(held(&tokens), Some(proxy("a")), "all were refused");
        tokens.pass(&web, 3, proxy("b"));
        assert_eq!(held(&tokens), Some(proxy("b")), "it passed again");
        tokens.withdraw(&web, 3);
        assert_eq!(held(&tokens), Some(proxy("a")));
        assert!(!tokens.refused(&mut tokens.key(&Topic::Roots)));
    }

    #[tokio::test]
    async fn a_key_changes_only_with_its_own_service() {
        let tokens = LeafTokens::of_proxies();
        tokens.tell(true);
        let mut key = tokens.key(&Topic::Leaf("web".into()));
        tokens.pass(&"db".into(), 1, proxy("a"));
        let none = tokio::time::timeout(std::time::Duration::from_millis(20), key.changed()).await;
        assert!(none.is_err());
        tokens.pass(&"web".into(), 2, proxy("b"));
        key.changed().await;
        assert_eq!(key.held(), Some(&proxy("b")));
        assert_eq!(tokens.key(&Topic::Roots).held(), Some(&Credential::Own));
    }

    #[test]
    fn no_token_is_shown() {
        let tokens = LeafTokens::of_proxies();
        tokens.pass(&"web".into(), 1, proxy("hush"));
        assert!(!format!("{tokens:?}").contains("hush"));
    }
}
