//! Values by name.

use std::sync::{Arc, LazyLock};

use super::Value;

type Entries = Arc<[(Arc<str>, Value)]>;

static EMPTY: LazyLock<Entries> = LazyLock::new(|| Arc::new([]));

/// Values by name, in the order of the names: so equal maps are written alike. A map never changes; what changes one
/// makes another, which shares the values.
#[derive(Clone)]
pub struct Map(Entries);

impl Map {
    /// The value under `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.place(name).ok().map(|place| &self.0[place].1)
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(key, _)| (**key).cmp(name))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All, in order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, (Arc<str>, Value)> {
        self.0.iter()
    }

    /// The same with `value` under `name`.
    #[must_use]
    pub fn with(&self, name: &str, value: Value) -> Self {
        match self.place(name) {
            Ok(place) => {
                let mut entries: Entries = self.0.iter().cloned().collect();
                if let Some(entries) = Arc::get_mut(&mut entries) {
                    entries[place].1 = value;
                }
                Self(entries)
            }
            Err(place) => {
                let (before, after) = self.0.split_at(place);
                let new = (Arc::from(name), value);
                Self(before.iter().cloned().chain([new]).chain(after.iter().cloned()).collect())
            }
        }
    }

    /// The same with everything of `other`, which wins.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => self.iter().chain(other.iter()).cloned().collect(),
        }
    }

    /// The same without `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        match self.place(name) {
            Ok(_) => self.iter().filter(|(key, _)| **key != *name).cloned().collect(),
            Err(_) => self.clone(),
        }
    }

    /// Whether both are one and the same.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, value))).finish()
    }
}

impl Default for Map {
    fn default() -> Self {
        Self(Arc::clone(&EMPTY))
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.same(other) || self.0 == other.0
    }
}

impl<K: Into<Arc<str>>> FromIterator<(K, Value)> for Map {
    /// Of values under one name, the last stays.
    fn from_iter<T: IntoIterator<Item = (K, Value)>>(entries: T) -> Self {
        let mut entries: Vec<(Arc<str>, Value)> =
            entries.into_iter().map(|(name, value)| (name.into(), value)).collect();
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            // A stable sort keeps those under one name in order; dedup keeps the first, so the last is swapped there.
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    std::mem::swap(&mut later.1, &mut earlier.1);
                }
                same
            });
        }
        if entries.is_empty() { Self::default() } else { Self(entries.into()) }
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a (Arc<str>, Value);
    type IntoIter = std::slice::Iter<'a, (Arc<str>, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
