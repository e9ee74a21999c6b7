//! Which tokens passed, and when Consul last said so: what lets a stream in while Consul cannot be asked. Pure.
//!
//! No token is kept. A mark is a hash of one under a random key, so that a file that got away tells nothing about a token,
//! not even about one that somebody chose badly; the key is in the same file, which only the agent may read.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{name::ServiceName, secret::SecretText};

/// Verdicts are of real tokens that Consul knew, so they are as many as proxies were; beyond this the oldest goes.
const MAX_VERDICTS: usize = 10_000;

/// A verdict is renewed when this part of its age is over, not at every check: with checks every five minutes the file
/// would be written all day.
const RENEWED_AFTER: u32 = 16;

/// A verdict from the future is believed only so far: clocks are set back a little at times, and nobody shall live
/// longer by it.
const MAX_AHEAD_S: u64 = 300;

/// The bytes of a key, and of a mark.
pub const BYTES: usize = blake3::KEY_LEN;

/// A token's hash under the key: tells tokens apart without holding them. It has no `Debug`, so that it is shown nowhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenMark(pub(crate) [u8; BYTES]);

/// The tokens that passed.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    pub(crate) key: [u8; BYTES],
    /// When Consul last said that the token has `service:write` on the service, in seconds since the Unix epoch.
    pub(crate) passed: BTreeMap<(TokenMark, ServiceName), u64>,
}

impl Tokens {
    /// None has passed yet. The key is random.
    pub fn new(key: [u8; BYTES]) -> Self {
        Self { key, passed: BTreeMap::new() }
    }

    /// The mark of a token.
    pub fn mark(&self, token: &SecretText) -> TokenMark {
        TokenMark(*blake3::keyed_hash(&self.key, token.expose().as_bytes()).as_bytes())
    }

    /// Consul said that it may. Gives whether that is worth telling: not if it was said a moment ago, as moments go in
    /// `max_age`.
    pub fn pass(&mut self, mark: &TokenMark, service: &ServiceName, now_s: u64, max_age: Duration) -> bool {
        if self.vouch(mark, service, now_s, max_age / RENEWED_AFTER) {
            return false;
        }
        self.add(mark.clone(), service.clone(), now_s);
        true
    }

    /// Adds a verdict of that time.
    pub(crate) fn add(&mut self, mark: TokenMark, service: ServiceName, at_s: u64) {
        self.passed.insert((mark, service), at_s);
        if self.passed.len() > MAX_VERDICTS {
            let oldest = self.passed.iter().min_by_key(|(_, at_s)| **at_s).map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                self.passed.remove(&key);
            }
        }
    }

    /// Consul said that it may not, or not any more. Gives whether it could before.
    pub fn strike(&mut self, mark: &TokenMark, service: &ServiceName) -> bool {
        self.passed.remove(&(mark.clone(), service.clone())).is_some()
    }

    /// Consul said that there is no such token: it may nothing any more. Gives whether it could anything before.
    pub fn forget(&mut self, mark: &TokenMark) -> bool {
        let before = self.passed.len();
        self.passed.retain(|(known, _), _| known != mark);
        self.passed.len() != before
    }

    /// Whether Consul said at most `max_age` ago that the token may anything, and nothing else since.
    pub fn knows(&self, mark: &TokenMark, now_s: u64, max_age: Duration) -> bool {
        self.passed.iter().any(|((known, _), at_s)| known == mark && is_recent(*at_s, now_s, max_age))
    }

    /// Whether Consul said at most `max_age` ago that it may, and nothing else since.
    pub fn vouch(&self, mark: &TokenMark, service: &ServiceName, now_s: u64, max_age: Duration) -> bool {
        let at_s = self.passed.get(&(mark.clone(), service.clone()));
        at_s.is_some_and(|at_s| is_recent(*at_s, now_s, max_age))
    }

    /// These without what is too old to be of use.
    #[must_use]
    pub fn recent(&self, now_s: u64, max_age: Duration) -> Self {
        let passed = self.passed.iter().filter(|(_, at_s)| is_recent(**at_s, now_s, max_age));
        Self { key: self.key, passed: passed.map(|(key, at_s)| (key.clone(), *at_s)).collect() }
    }
}

fn is_recent(at_s: u64, now_s: u64, max_age: Duration) -> bool {
    at_s <= now_s.saturating_add(MAX_AHEAD_S) && now_s.saturating_sub(at_s) < max_age.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_token_is_vouched_for_as_long_as_its_verdict_is_recent() {
        let mut tokens = Tokens::new([7; BYTES]);
        let (good, other) = (tokens.mark(&"good".into()), tokens.mark(&"other".into()));
        let (web, db) = (ServiceName::from("web"), ServiceName::from("db"));
        assert!(tokens.pass(&good, &web, 1_000_000, DAY));
        assert!(!tokens.pass(&good, &web, 1_000_300, DAY), "nothing new");
        assert!(tokens.vouch(&good, &web, 1_000_000, DAY));
        assert!(tokens.vouch(&good, &web, 1_086_399, DAY));
        assert!(!tokens.vouch(&good, &web, 1_086_400, DAY));
        assert!(!tokens.vouch(&good, &db, 1_000_000, DAY), "for another service it never passed");
        assert!(!tokens.vouch(&other, &web, 1_000_000, DAY));
        assert!(!tokens.vouch(&good, &web, 1_000_000, Duration::ZERO), "switched off");
        assert!(tokens.vouch(&good, &web, 999_800, DAY), "the clock was set back a little");
        assert!(!tokens.vouch(&good, &web, 900_000, DAY), "or by far");
        assert!(tokens.recent(1_086_400, DAY) == Tokens::new([7; BYTES]));
        assert!(tokens.pass(&good, &web, 1_005_400, DAY), "a sixteenth of its age later");
        assert!(tokens.vouch(&good, &web, 1_091_799, DAY));
        assert!(tokens.strike(&good, &web) && !tokens.vouch(&good, &web, 1_000_000, DAY));
    }

    #[test]
    fn a_token_that_is_gone_is_good_for_nothing() {
        let mut tokens = Tokens::new([7; BYTES]);
        let (gone, other) = (tokens.mark(&"gone".into()), tokens.mark(&"other".into()));
        let [web, db] = ["web", "db"].map(ServiceName::from);
        for (mark, service) in [(&gone, &web), (&gone, &db), (&other, &web)] {
            tokens.pass(mark, service, 1_000_000, DAY);
        }
        assert!(tokens.strike(&gone, &web) && tokens.vouch(&gone, &db, 1_000_000, DAY), "it lacks one right");
        assert!(tokens.knows(&gone, 1_000_000, DAY) && !tokens.knows(&gone, 1_086_400, DAY));
        assert!(tokens.forget(&gone) && !tokens.knows(&gone, 1_000_000, DAY));
        assert!(!tokens.vouch(&gone, &db, 1_000_000, DAY) && tokens.vouch(&other, &web, 1_000_000, DAY));
        assert!(!tokens.forget(&gone), "nothing new");
    }

    #[test]
    fn marks_of_two_keys_have_nothing_in_common() {
        let token = SecretText::from("hush");
        let (a, b) = (Tokens::new([1; BYTES]), Tokens::new([2; BYTES]));
        assert!(a.mark(&token) != b.mark(&token) && a.mark(&token) == a.mark(&token));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut tokens = Tokens::new([0; BYTES]);
        let web = ServiceName::from("web");
        let count = u64::try_from(MAX_VERDICTS).unwrap() + 1;
        for at_s in 0..count {
            let mark = tokens.mark(&at_s.to_string().into());
            tokens.add(mark, web.clone(), at_s);
        }
        assert_eq!(tokens.passed.len(), MAX_VERDICTS);
        assert!(!tokens.vouch(&tokens.mark(&"0".into()), &web, 0, DAY));
    }
}
