//! Counts how often each part was called.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Uses {
    pub fn add(&self, part: &'static str) {
        *self.0.lock().expect("no thread panics with the lock").entry(part).or_default() += 1;
    }

    pub fn count(&self, part: &str) -> usize {
        self.0.lock().expect("no thread panics with the lock").get(part).copied().unwrap_or(0)
    }
}
