//! A map of what was seen last, which forgets the oldest when it is full.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, VecDeque},
};

pub(super) struct Bounded<K, V, const MOST: usize> {
    map: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V, const MOST: usize> Default for Bounded<K, V, MOST> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Clone, V, const MOST: usize> Bounded<K, V, MOST> {
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key)
    }

    /// A key that is there keeps its age.
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut seen: Bounded<u32, &str, 2> = Bounded::default();
        seen.put(1, "one");
        seen.put(2, "two");
        seen.put(1, "again");
        seen.put(3, "three");
        assert_eq!((seen.get(&1), seen.get(&2), seen.get(&3)), (None, Some(&"two"), Some(&"three")));
    }
}
