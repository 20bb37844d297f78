//! Counts how often each part was called.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Uses {
    pub fn add(&self, part: &'static str) {
        *self.0.lock().expect("no thread panics with the lock").entry(part).or_default() += 1;
    }

    /// Prints how often each part was used.
    ///
    /// # Errors
    /// If a part was not used.
    pub fn check(&self, parts: &[&str]) -> anyhow::Result<()> {
        let uses = self.0.lock().expect("no thread panics with the lock");
        for part in parts {
            let count = uses.get(part).copied().unwrap_or(0);
            println!("{part}: used {count} times");
            anyhow::ensure!(count > 0, "the {part} was not used");
        }
        Ok(())
    }
}
