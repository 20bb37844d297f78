//! The queue of a rank: a bit set over its tasks in the order of their priorities.

/// A bit set that remembers the first word that may be non-zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    words: Vec<u64>,
    low: usize,
}

impl Queue {
    /// An empty queue for positions below `n`.
    pub(super) fn new(n: usize) -> Self {
        Self { words: vec![0; n.div_ceil(64)], low: 0 }
    }

    #[inline]
    pub(super) fn insert(&mut self, position: u32) {
        let word = position as usize / 64;
        self.words[word] |= 1 << (position % 64);
        self.low = self.low.min(word);
    }

    #[inline]
    pub(super) fn remove(&mut self, position: u32) {
        self.words[position as usize / 64] &= !(1 << (position % 64));
    }

    #[inline]
    pub(super) fn contains(&self, position: u32) -> bool {
        self.words[position as usize / 64] >> (position % 64) & 1 == 1
    }

    /// The first position in the set.
    #[inline]
    pub(super) fn first(&mut self) -> Option<u32> {
        while let Some(&word) = self.words.get(self.low) {
            if word != 0 {
                return Some(self.low as u32 * 64 + word.trailing_zeros());
            }
            self.low += 1;
        }
        None
    }

    /// The first position in the set after `position`.
    pub(super) fn after(&self, position: u32) -> Option<u32> {
        let start = position + 1;
        let mut at = start as usize / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (start % 64));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some(at as u32 * 64 + word.trailing_zeros())
    }

    /// Removes all positions.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.low = self.words.len();
    }
}
