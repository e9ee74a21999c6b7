//! Two ordered lists of keys, held against each other as they come. Pure.

use std::{cmp::Ordering, collections::VecDeque};

use serde::Serialize;

use crate::model::kv::Pair;

/// How two datacenters differ in a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The key.
    pub(crate) key: String,
    /// In what.
    pub(crate) what: What,
}

/// In what they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Only the first has it.
    OnlyFirst,
    /// Only the second has it.
    OnlySecond,
    /// Its value.
    Value,
    /// Its flags alone.
    Flags,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    First,
    Second,
}

/// The comparison, as far as both lists are known.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    first: VecDeque<Pair>,
    second: VecDeque<Pair>,
    is_first_over: bool,
    is_second_over: bool,
    /// Keys that are the same in both.
    pub(crate) equal: u64,
    /// Those that are not.
    pub(crate) differences: Vec<Difference>,
}

impl Comparison {
    /// More of a list.
    pub(crate) fn page(&mut self, side: Side, page: Vec<Pair>) {
        match side {
            Side::First => self.first.extend(page),
            Side::Second => self.second.extend(page),
        }
        self.step();
    }

    /// Of which list more is needed.
    pub(crate) fn wants(&self) -> Option<Side> {
        match (self.is_first_over, self.is_second_over) {
            (true, true) => None,
            (false, true) => Some(Side::First),
            (true, false) => Some(Side::Second),
            (false, false) => Some(if self.first.is_empty() { Side::First } else { Side::Second }),
        }
    }

    /// A list is at its end.
    pub(crate) fn over(&mut self, side: Side) {
        match side {
            Side::First => self.is_first_over = true,
            Side::Second => self.is_second_over = true,
        }
        self.step();
    }

    /// What is decided by what is known.
    fn step(&mut self) {
        loop {
            let order = match (self.first.front(), self.second.front()) {
                (Some(first), Some(second)) => first.key.cmp(&second.key),
                (Some(_), None) if self.is_second_over => Ordering::Less,
                (None, Some(_)) if self.is_first_over => Ordering::Greater,
                _ => return,
            };
            let first = if order == Ordering::Greater { None } else { self.first.pop_front() };
            let second = if order == Ordering::Less { None } else { self.second.pop_front() };
            let (pair, what) = match (first, second) {
                (Some(first), Some(second)) => {
                    let what = difference(&first, &second);
                    (first, what)
                }
                (Some(pair), None) => (pair, Some(What::OnlyFirst)),
                (None, Some(pair)) => (pair, Some(What::OnlySecond)),
                (None, None) => return,
            };
            match what {
                Some(what) => self.differences.push(Difference { key: pair.key, what }),
                None => self.equal += 1,
            }
        }
    }
}

/// In what two pairs of one key differ. Indexes are each datacenter's own, and locks live at home only.
pub(crate) fn difference(first: &Pair, second: &Pair) -> Option<What> {
    if first.value != second.value {
        Some(What::Value)
    } else {
        (first.flags != second.flags).then_some(What::Flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(key: &str, value: u8, flags: u64) -> Pair {
        let value = vec![value].into();
        Pair { key: key.into(), value, flags, session: None, lock_index: 0, create_index: 1, modify_index: 1 }
    }

    fn list(keys: &std::collections::BTreeMap<u8, (u8, u64)>) -> Vec<Pair> {
        keys.iter().map(|(key, (value, flags))| pair(&format!("{key:03}"), *value, *flags)).collect()
    }

    fn compared(first: &[Pair], second: &[Pair], page: usize) -> Comparison {
        let mut comparison = Comparison::default();
        let (mut first, mut second) = (first.chunks(page), second.chunks(page));
        while let Some(side) = comparison.wants() {
            let next = if side == Side::First { first.next() } else { second.next() };
            match next {
                Some(some) => comparison.page(side, some.to_vec()),
                None => comparison.over(side),
            }
            assert!(comparison.first.len().min(comparison.second.len()) == 0, "one of them is at its end");
        }
        comparison
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let first = [pair("a", 1, 0), pair("b", 1, 0), pair("c", 1, 0), pair("d", 1, 0)];
        let second = [pair("b", 2, 0), pair("c", 1, 7), pair("d", 1, 0), pair("e", 1, 0)];
        let found = compared(&first, &second, 2);
        let shown: Vec<_> = found.differences.iter().map(|it| (it.key.as_str(), it.what)).collect();
        let expected =
            [("a", What::OnlyFirst), ("b", What::Value), ("c", What::Flags), ("e", What::OnlySecond)];
        assert_eq!((shown.as_slice(), found.equal), (expected.as_slice(), 1));
    }

    proptest! {
        #[test]
        fn it_finds_what_a_comparison_of_maps_finds(
            first: std::collections::BTreeMap<u8, (u8, u64)>,
            second: std::collections::BTreeMap<u8, (u8, u64)>,
            page in 1usize..9,
        ) {
            let found = compared(&list(&first), &list(&second), page);
            let keys: std::collections::BTreeSet<&u8> = first.keys().chain(second.keys()).collect();
            let differing: Vec<String> =
                keys.iter().filter(|key| first.get(key) != second.get(key)).map(|key| format!("{key:03}")).collect();
            let told: Vec<&String> = found.differences.iter().map(|it| &it.key).collect();
            prop_assert_eq!(told, differing.iter().collect::<Vec<_>>());
            prop_assert_eq!(found.equal as usize, keys.len() - differing.len());
        }
    }
}
