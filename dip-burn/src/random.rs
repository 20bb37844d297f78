//! Normal random values.

use std::f64::consts::TAU;

use rand::Rng;

/// Independent normal values with mean 0 and standard deviation `std`.
///
/// Uses Box-Muller instead of a crate whose method may change, so that a seed always gives the same initial weights and noise.
pub(crate) fn normals(rng: &mut impl Rng, std: f64, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // Two values at a time; the argument of the logarithm is never 0.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * std;
        let angle = TAU * rng.random::<f64>();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn values_have_their_mean_and_deviation() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values = normals(&mut rng, 0.5, 20_001);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.01 && (square - 0.25).abs() < 0.01, "{mean} {square}");
        assert_eq!(values.len(), 20_001);
    }
}
