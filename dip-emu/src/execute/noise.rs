//! Noise on the times of stages.

use dip_core::{FieldError, Seconds, TaskGraph};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Log-normal noise on the time of every stage. Each factor has mean 1 and is independent of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    deviation: f64,
    seed: u64,
}

impl Noise {
    /// Maximum deviation.
    pub const MAX_DEVIATION: f64 = 2.0;

    /// Noise whose logarithm has the standard deviation `deviation`: with 0.1, two of three stages are within 10 % of their
    /// planned time.
    ///
    /// # Errors
    /// [`FieldError`] unless the deviation is from 0 to 2.
    pub fn new(deviation: f64, seed: u64) -> Result<Self, FieldError> {
        let remedy = "0.1 is a quiet machine";
        FieldError::check_range("noise", deviation, 0.0..=Self::MAX_DEVIATION, remedy)?;
        Ok(Self { deviation, seed })
    }

    /// The standard deviation of the logarithm of a factor.
    pub fn deviation(self) -> f64 {
        self.deviation
    }

    /// The time of every task of `graph` in a sample. Equal samples have equal factors, so that plans of one graph can be
    /// compared on them.
    pub fn durations(&self, graph: &TaskGraph, sample: u64) -> Vec<Seconds> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(sample);
        let shift = self.deviation * self.deviation / 2.0;
        let mut factor = || {
            let normal: f64 = StandardNormal.sample(&mut rng);
            (self.deviation * normal - shift).exp()
        };
        graph.tasks.iter().map(|task| Seconds(task.duration_s.0 * factor())).collect()
    }
}
