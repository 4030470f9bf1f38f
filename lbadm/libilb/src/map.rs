//! An ordered map whose copies share what they have in common. A copy costs nothing, a change of a copy little, and what is
//! different between two copies is found without looking at all the rest: the work for one change of a large configuration
//! is that of the change.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries that a leaf holds at most.
const MOST: usize = 64;

type Leaf<K, V> = Arc<Vec<(K, V)>>;

/// See the module.
pub struct Map<K, V> {
    /// None of them empty, in the order of their keys.
    leaves: Arc<Vec<Leaf<K, V>>>,
    len: usize,
}

/// A key with other values in two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// What it had before; `None` if it was not there.
    pub before: Option<&'a V>,
    /// What it has after; `None` if it is no longer there.
    pub after: Option<&'a V>,
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Map<K, V> {
        Map {
            leaves: Arc::clone(&self.leaves),
            len: self.len,
        }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map {
            leaves: Arc::default(),
            len: 0,
        }
    }
}

impl<K, V> Map<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this is a copy of `other`, without looking at entries: false for most maps that merely are equal.
    pub fn is_copy_of(&self, other: &Map<K, V>) -> bool {
        Arc::ptr_eq(&self.leaves, &other.leaves)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            leaf: [].iter(),
            leaves: self.leaves.iter(),
        }
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// Leaf and place of a key, or where it would have to go.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let behind = self
            .leaves
            .partition_point(|leaf| leaf.first().is_some_and(|(first, _)| first.borrow() <= key));
        let leaf = behind.saturating_sub(1);
        let place = self.leaves.get(leaf).map_or(Err(0), |entries| {
            entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
        });
        (leaf, place)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (leaf, place) = self.find(key);
        let place = place.ok()?;
        Some(&self.leaves[leaf][place].1)
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).1.is_ok()
    }

    /// The entries from this key on.
    pub fn from<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let (leaf, place) = self.find(key);
        let (Ok(place) | Err(place)) = place;
        match self.leaves.get(leaf) {
            Some(first) => Iter {
                leaf: first[place..].iter(),
                leaves: self.leaves[leaf + 1..].iter(),
            },
            None => self.iter(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Enters a value and returns what the key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (leaf, place) = self.find(&key);
        let leaves = Arc::make_mut(&mut self.leaves);
        let Some(entries) = leaves.get_mut(leaf) else {
            leaves.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let entries = Arc::make_mut(entries);
        let place = match place {
            Ok(place) => return Some(std::mem::replace(&mut entries[place].1, value)),
            Err(place) => place,
        };
        self.len += 1;
        entries.insert(place, (key, value));
        if entries.len() > MOST {
            // What comes in order fills its leaves.
            let at = match place == MOST {
                true => MOST,
                false => MOST / 2,
            };
            let behind = entries.split_off(at);
            leaves.insert(leaf + 1, Arc::new(behind));
        }
        None
    }

    /// Takes a key out and returns what it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (leaf, place) = self.find(key);
        let place = place.ok()?;
        let leaves = Arc::make_mut(&mut self.leaves);
        let entries = Arc::make_mut(&mut leaves[leaf]);
        let (_, value) = entries.remove(place);
        if entries.is_empty() {
            leaves.remove(leaf);
        }
        self.len -= 1;
        Some(value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (leaf, place) = self.find(key);
        let place = place.ok()?;
        let leaves = Arc::make_mut(&mut self.leaves);
        Some(&mut Arc::make_mut(&mut leaves[leaf])[place].1)
    }
}

impl<K: Ord, V: PartialEq> Map<K, V> {
    /// What is different since `before`, in the order of the keys.
    pub fn since<'a>(
        &'a self,
        before: &'a Map<K, V>,
    ) -> impl Iterator<Item = Difference<'a, K, V>> {
        let mut old = own(before, self).peekable();
        let mut new = own(self, before).peekable();
        std::iter::from_fn(move || {
            loop {
                let (was, is) = match (old.peek(), new.peek()) {
                    (None, None) => return None,
                    (Some((a, _)), Some((b, _))) => (a <= b, b <= a),
                    (was, is) => (was.is_some(), is.is_some()),
                };
                let was = old.next_if(|_| was);
                let is = new.next_if(|_| is);
                let (before, after) = (was.map(|(_, v)| v), is.map(|(_, v)| v));
                if let Some((key, _)) = was.or(is)
                    && before != after
                {
                    return Some(Difference { key, before, after });
                }
            }
        })
    }
}

/// The entries of all leaves of `map` that `other` does not have.
fn own<'a, K, V>(map: &'a Map<K, V>, other: &Map<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    // Addresses, because pointers do not go from thread to thread.
    let shared: HashSet<usize> = match map.is_copy_of(other) {
        true => HashSet::new(),
        false => other.leaves.iter().map(address).collect(),
    };
    let leaves: &[Leaf<K, V>] = match map.is_copy_of(other) {
        true => &[],
        false => &map.leaves,
    };
    leaves
        .iter()
        .filter(move |leaf| !shared.contains(&address(leaf)))
        .flat_map(|leaf| leaf.iter().map(|(key, value)| (key, value)))
}

fn address<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}

impl<K: Ord, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Map<K, V>) -> bool {
        self.len == other.len && self.since(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for Map<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for Map<K, V> {
    type Output = V;

    /// The value of a key that is there.
    fn index(&self, key: &Q) -> &V {
        let (leaf, place) = self.find(key);
        let place = place.unwrap_or(usize::MAX);
        &self.leaves[leaf][place].1
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    /// Of equal keys the last one counts.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Map<K, V> {
        let sorted: BTreeMap<K, V> = entries.into_iter().collect();
        let len = sorted.len();
        let mut rest = sorted.into_iter();
        let leaves = std::iter::from_fn(|| {
            let leaf: Vec<(K, V)> = rest.by_ref().take(MOST).collect();
            (!leaf.is_empty()).then(|| Arc::new(leaf))
        });
        Map {
            leaves: Arc::new(leaves.collect()),
            len,
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// Entries of a map in the order of their keys.
pub struct Iter<'a, K, V> {
    leaf: std::slice::Iter<'a, (K, V)>,
    leaves: std::slice::Iter<'a, Leaf<K, V>>,
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Iter {
            leaf: self.leaf.clone(),
            leaves: self.leaves.clone(),
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            self.leaf = self.leaves.next()?.iter();
        }
    }
}

impl<K: Serialize, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len))?;
        for (key, value) in self {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Map<K, V>, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Map<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Map<K, V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = access.next_entry()? {
                    entries.insert(key, value);
                }
                Ok(entries.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16, u8),
        Remove(u16),
        Change(u16),
    }

    fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
        let key = 0..400u16;
        prop::collection::vec(
            prop_oneof![
                3 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Insert(k, v)),
                2 => key.clone().prop_map(Step::Remove),
                1 => key.prop_map(Step::Change),
            ],
            0..most,
        )
    }

    fn carry_out(step: &Step, map: &mut Map<u16, u8>, model: &mut BTreeMap<u16, u8>) {
        match step {
            Step::Insert(k, v) => assert_eq!(map.insert(*k, *v), model.insert(*k, *v)),
            Step::Remove(k) => assert_eq!(map.remove(k), model.remove(k)),
            Step::Change(k) => {
                for value in [map.get_mut(k), model.get_mut(k)].into_iter().flatten() {
                    *value = value.wrapping_add(1);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_copy_goes_its_own_way_and_the_difference_leads_there(
            first in steps(600), second in steps(20), probe in 0..400u16,
        ) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            first.iter().for_each(|step| carry_out(step, &mut map, &mut model));
            let (before, old) = (map.clone(), model.clone());
            second.iter().for_each(|step| carry_out(step, &mut map, &mut model));

            for (map, model) in [(&map, &model), (&before, &old)] {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.get(&probe), model.get(&probe));
                prop_assert!(map.from(&probe).eq(model.range(probe..)));
                prop_assert_eq!(map, &model.clone().into_iter().collect::<Map<_, _>>());
                prop_assert!(map.leaves.iter().all(|leaf| (1..=MOST).contains(&leaf.len())));
            }
            prop_assert_eq!(map == before, model == old);
            let expected: Vec<u16> = (0..400).filter(|k| old.get(k) != model.get(k)).collect();
            let found: Vec<u16> = map.since(&before).map(|d| *d.key).collect();
            prop_assert_eq!(&found, &expected);
            for Difference { key, before, after } in map.since(&before) {
                prop_assert_eq!((before, after), (old.get(key), model.get(key)));
            }
            let text = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(serde_json::from_str::<Map<u16, u8>>(&text).unwrap(), map);
        }
    }

    #[test]
    fn a_change_looks_at_few_entries() {
        let map: Map<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        let mut other = map.clone();
        assert!(other.is_copy_of(&map));
        other.insert(50_000, 1);
        assert!(own(&other, &map).count() <= MOST);
        assert!(own(&map, &other).count() <= MOST);
        assert_eq!(other.since(&map).count(), 1);
        assert_eq!(other[&50_000], 1);
        assert_eq!(map[&50_000], 50_000);
    }
}
