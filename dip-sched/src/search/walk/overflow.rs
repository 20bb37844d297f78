//! Walks through orders that do not fit in memory: strategic oscillation.
//!
//! Under tight memory, the path from one fitting order to a better one often leads through orders that do not fit. A loose walk may
//! take it. Bytes beyond a limit cost seconds, at a price that rises while the order does not fit and falls while it does.

/// Factor by which the price rises or falls in a step.
const PRICE_FACTOR: f64 = 1.1;

/// The exceeded memory of a loose walk, and its price.
#[derive(Debug, Clone)]
pub(super) struct Overflow {
    /// Bytes beyond the limit of each rank, summed over its places.
    bytes: Vec<u64>,
    /// Seconds for each excess byte at one place.
    price: f64,
}

impl Overflow {
    /// No excess on any rank yet; `price` is in seconds for each excess byte at one place.
    pub(super) fn new(ranks: usize, price: f64) -> Self {
        Self { bytes: vec![0; ranks], price }
    }

    /// Excess bytes of all ranks.
    pub(super) fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, &b| sum.saturating_add(b))
    }

    /// Sets the excess bytes of a rank.
    pub(super) fn set(&mut self, rank: usize, bytes: u64) {
        self.bytes[rank] = bytes;
    }

    /// Raises the price if there is excess, and lowers it otherwise.
    pub(super) fn reprice(&mut self) {
        self.price *= if self.total() == 0 { PRICE_FACTOR.recip() } else { PRICE_FACTOR };
    }

    /// The price of excess bytes, in seconds.
    pub(super) fn price_of(&self, bytes: u64) -> f64 {
        bytes as f64 * self.price
    }
}
