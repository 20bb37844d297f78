//! The peak FLOP/s of a rank, the denominator of utilisation.

use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};

use crate::model::{Precision, cast};

/// Sides of the square products. The smallest product that takes [`LONG_ENOUGH_S`] gives the peak.
const SIDES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// Shorter products are mostly start-up.
const LONG_ENOUGH_S: f64 = 0.02;
/// Number of runs; the fastest gives the peak.
const RUNS: usize = 5;

/// FLOP/s of the fastest product in `precision` on this thread's share of `device`; `None` if the device fails.
pub(super) fn peak_flops_per_s<B: Backend>(
    device: &B::Device,
    precision: Precision,
) -> Option<f64> {
    let mut best = None;
    for side in SIDES {
        let seconds = fastest_product::<B>(side, device, precision)?;
        best = Some(2.0 * (side as f64).powi(3) / seconds.max(f64::MIN_POSITIVE));
        if seconds >= LONG_ENOUGH_S {
            break;
        }
    }
    best
}

fn fastest_product<B: Backend>(
    side: usize,
    device: &B::Device,
    precision: Precision,
) -> Option<f64> {
    let draw = || Tensor::<B, 2>::random([side, side], Distribution::Normal(0.0, 1.0), device);
    let [a, b] = [draw(), draw()].map(|x| cast(x, precision.dtype()));
    let mut fastest = f64::INFINITY;
    // The first run warms up.
    for run in 0..=RUNS {
        B::sync(device).ok()?;
        let start = Instant::now();
        let _product = a.clone().matmul(b.clone());
        B::sync(device).ok()?;
        if run > 0 {
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
    }
    Some(fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_plausible_for_a_processor() {
        let peak =
            peak_flops_per_s::<crate::backend::Cpu>(&Default::default(), Precision::F32).unwrap();
        assert!((1e8..1e14).contains(&peak), "{peak}");
    }
}
