//! How even and how full microbatches are, over all batches of a run.

use super::LoadFigures;

/// The patches of microbatches, and the padding of their sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchLoad {
    batches: u64,
    /// Sum of the shares of padding.
    padding: f64,
    microbatches: u64,
    patches: f64,
    /// Sum of the squares of the patches of microbatches.
    squares: f64,
    least: u64,
    most: u64,
}

impl BatchLoad {
    /// Adds a batch: the patches of each microbatch, and the share of padding.
    pub fn add(&mut self, patches: &[u64], padding: Option<f64>) {
        self.batches += 1;
        self.padding += padding.unwrap_or(0.0);
        for &count in patches {
            self.least = if self.microbatches == 0 { count } else { self.least.min(count) };
            self.most = self.most.max(count);
            self.microbatches += 1;
            self.patches += count as f64;
            self.squares += (count as f64).powi(2);
        }
    }

    /// The figures at this time of all batches; `None` without pictures.
    pub fn figures(&self, elapsed_s: f64) -> Option<LoadFigures> {
        (self.patches > 0.0).then(|| LoadFigures {
            patches: self.mean(),
            deviation: self.deviation(),
            least: self.least,
            most: self.most,
            padding: self.padding / self.batches.max(1) as f64,
            patches_per_s: if elapsed_s > 0.0 { self.patches / elapsed_s } else { 0.0 },
        })
    }

    fn mean(&self) -> f64 {
        self.patches / self.microbatches.max(1) as f64
    }

    /// The standard deviation relative to the mean.
    fn deviation(&self) -> f64 {
        let variance = self.squares / self.microbatches.max(1) as f64 - self.mean().powi(2);
        variance.max(0.0).sqrt() / self.mean().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_has_the_mean_the_deviation_and_the_range_of_its_patches() {
        let mut load = BatchLoad::default();
        assert_eq!(load.figures(1.0), None);
        load.add(&[2, 4, 4, 4], Some(0.1));
        load.add(&[5, 5, 7, 9], Some(0.3));
        let text = "5 patches a microbatch (deviation 40.0 %, 2 to 9), padding 20.0 %";
        let shown = |elapsed_s| load.figures(elapsed_s).unwrap().to_string();
        assert_eq!(shown(0.0), text);
        assert_eq!(shown(4.0), format!("{text}, 10 patches/s"));
    }
}
