//! A table of results that are computed once (paper section 3: identical subgraphs are simulated once).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Maximum number of entries in a table. Batches of videos rarely repeat, so a long run would otherwise fill the memory.
const MAX_ENTRIES: usize = 1 << 16;

/// Results by the key that they depend on.
#[derive(Debug)]
pub struct Reused<K, V> {
    enabled: bool,
    table: Mutex<HashMap<K, V>>,
}

impl<K: Eq + Hash, V: Clone> Reused<K, V> {
    /// An empty table. If it is not `enabled`, it stores nothing and computes every result anew.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, table: Mutex::default() }
    }

    /// Returns the value of `key`, computed by `make` if it is new. Two threads may compute the same value at once.
    pub fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        if !self.enabled {
            return make();
        }
        // Entries are inserted whole, so a table is valid even after a panic.
        let lock = || self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = lock().get(&key) {
            return value.clone();
        }
        let value = make();
        let mut table = lock();
        if table.len() >= MAX_ENTRIES {
            table.clear();
        }
        table.insert(key, value.clone());
        value
    }

    /// Removes all results.
    pub fn clear(&mut self) {
        self.table = Mutex::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_unless_the_table_is_off() {
        for (enabled, expected) in [(true, 1), (false, 2)] {
            let table = Reused::new(enabled);
            let mut made = 0;
            for _ in 0..2 {
                assert_eq!(
                    table.get("key", || {
                        made += 1;
                        5
                    }),
                    5
                );
            }
            assert_eq!(made, expected);
        }
    }

    #[test]
    fn a_full_table_starts_over_instead_of_growing() {
        let table = Reused::new(true);
        for i in 0..=MAX_ENTRIES {
            table.get(i, || i);
        }
        assert_eq!(table.table.lock().unwrap().len(), 1);
    }
}
