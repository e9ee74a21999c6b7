//! The other sync agents of our own datacenter, as the catalog shows them: whether they are configured as we are. An agent
//! that does not know of a prefix would write past its journal.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    model::{
        name::{Datacenter, NodeName},
        sync::{Prefix, PrefixTable},
    },
    sync::{record::Doer, refusal::Refusal},
};

/// What the agents of our datacenter say of themselves, the latest that is known; none before the catalog told.
pub type KinSeen = watch::Receiver<Option<Arc<Vec<Kin>>>>;

/// As far as is known now.
pub(super) fn known(seen: &KinSeen) -> Arc<Vec<Kin>> {
    seen.borrow().clone().unwrap_or_default()
}

/// A sync agent of our datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Its node.
    pub node: NodeName,
    /// Where its peer service listens: `address:port`.
    pub address: String,
    /// Its prefixes.
    pub prefixes: Vec<Prefix>,
}

impl Kin {
    /// As whom it is reached.
    pub(super) fn doer(&self) -> Doer {
        Doer { node: self.node.clone(), address: self.address.clone() }
    }
}

/// What does not fit between us and the others, a sentence for each prefix.
pub fn disagreements(own: &NodeName, table: &PrefixTable, kin: &[Kin]) -> Vec<String> {
    let ours = table.iter().filter_map(|prefix| misfit(own, prefix, kin));
    let lacking = kin.iter().flat_map(|kin| kin.prefixes.iter().map(move |theirs| (kin, theirs)));
    let lacking = lacking.filter(|(_, theirs)| table.iter().all(|prefix| !touches(prefix, theirs)));
    let mut texts: Vec<String> =
        ours.chain(lacking.map(|(kin, theirs)| unknown(own, kin, &theirs.text))).collect();
    texts.sort();
    texts.dedup();
    texts
}

/// In what way another agent contradicts a prefix of ours. One that does not have it at all refuses it itself.
pub(super) fn misfit(own: &NodeName, prefix: &Prefix, kin: &[Kin]) -> Option<String> {
    kin.iter().find_map(|kin| {
        let theirs = kin.prefixes.iter().find(|theirs| touches(prefix, theirs) && *theirs != prefix)?;
        Some(format!(
            "`{}` (home {}) of the sync agent on {own} and `{}` (home {}) of the one on {}, in the same datacenter, \
             contradict each other; give all sync agents the same prefixes",
            prefix.text, prefix.home, theirs.text, theirs.home, kin.node
        ))
    })
}

/// Why a key that is in no prefix of ours is not the local Consul's alone. A tree counts with all that is below it.
pub(super) fn foreign(
    own: &NodeName,
    table: &PrefixTable,
    kin: &[Kin],
    key: &str,
    takes_all_below: bool,
) -> Option<Refusal> {
    if table.of_key(key).is_some() {
        return None;
    }
    let is_theirs =
        |theirs: &&Prefix| key.starts_with(&theirs.text) || (takes_all_below && theirs.text.starts_with(key));
    let (kin, theirs) = kin.iter().find_map(|kin| Some((kin, kin.prefixes.iter().find(is_theirs)?)))?;
    Some(Refusal::Misfit(unknown(own, kin, &theirs.text)))
}

fn unknown(own: &NodeName, kin: &Kin, text: &str) -> String {
    format!(
        "`{text}` is replicated by the sync agent on {} and not by the one on {own}, in the same datacenter; give all sync \
         agents the same prefixes",
        kin.node
    )
}

fn touches(one: &Prefix, other: &Prefix) -> bool {
    one.text.starts_with(&other.text) || other.text.starts_with(&one.text)
}

/// A prefix as an agent's registration tells it, and back: its home, which has no spaces in its name, and its text.
pub fn told(prefix: &Prefix) -> String {
    format!("{} {}", prefix.home, prefix.text)
}

/// See [`told`]. None for what is no such text.
pub fn heard(text: &str) -> Option<Prefix> {
    let (home, text) = text.split_once(' ')?;
    let is_some = !home.is_empty() && !text.is_empty();
    is_some.then(|| Prefix { text: text.to_owned(), home: Datacenter::from(home), mode: Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, home: &str) -> Prefix {
        Prefix { text: text.into(), home: home.into(), mode: Default::default() }
    }

    fn table(prefixes: &[Prefix]) -> PrefixTable {
        let mut table = PrefixTable::default();
        prefixes.iter().for_each(|prefix| table.add(prefix.clone()).unwrap());
        table
    }

    #[test]
    fn what_another_agent_has_and_we_have_not_is_not_consuls_alone() {
        let own = NodeName::from("n1");
        let ours = table(&[prefix("config/", "a")]);
        let same = Kin {
            node: "n2".into(),
            address: "10.0.0.2:8443".into(),
            prefixes: vec![prefix("config/", "a")],
        };
        assert_eq!(disagreements(&own, &ours, std::slice::from_ref(&same)), Vec::<String>::new());
        let more = Kin {
            node: "n3".into(),
            address: "10.0.0.3:8443".into(),
            prefixes: vec![prefix("config/", "a"), prefix("far/", "b")],
        };
        let kin = [same, more];
        let told = disagreements(&own, &ours, &kin);
        assert!(
            matches!(&told[..], [one] if one.starts_with("`far/` is replicated by the sync agent on n3")),
            "{told:?}"
        );
        let foreign = |key: &str, is_tree| foreign(&own, &ours, &kin, key, is_tree).is_some();
        assert!(foreign("far/x", false) && foreign("far/", true) && foreign("fa", true) && foreign("", true));
        assert!(!foreign("fa", false) && !foreign("config/x", false) && !foreign("plain/", true));
    }

    #[test]
    fn homes_and_overlaps_in_one_datacenter_are_told_on_both_sides() {
        let own = NodeName::from("n1");
        let config = prefix("config/", "a");
        let of = |theirs: Prefix| {
            misfit(
                &own,
                &config,
                &[Kin { node: "n2".into(), address: "10.0.0.2:8443".into(), prefixes: vec![theirs] }],
            )
        };
        assert_eq!(of(config.clone()), None);
        assert_eq!(of(prefix("other/", "b")), None);
        let homes = of(prefix("config/", "b")).unwrap();
        assert!(
            ["home a", "on n1", "home b", "on n2", "same prefixes"].iter().all(|it| homes.contains(it)),
            "{homes}"
        );
        assert!(of(prefix("config/deep/", "a")).is_some() && of(prefix("con", "a")).is_some());
    }

    #[test]
    fn a_prefix_is_read_as_it_was_told() {
        let odd = prefix("with space/", "dc-1");
        assert_eq!(heard(&told(&odd)), Some(odd));
        for none in ["", "dc1", "dc1 ", " x"] {
            assert_eq!(heard(none), None, "{none:?}");
        }
    }
}
