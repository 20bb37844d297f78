//! Samples of any rate to the rate of the model.
//!
//! Every output sample is a sum of input samples under a sinc, cut off at 0.99 of the lower of the two Nyquist frequencies and
//! weighted by a squared cosine over [`ZERO_CROSSINGS`] zero crossings on each side. Outside the sound there is silence. It is the
//! filter of `torchaudio.functional.resample` with `lowpass_filter_width = 24`.

use std::f64::consts::{FRAC_PI_2, PI};

use super::SAMPLE_RATE;

/// Zero crossings of the sinc on each side.
const ZERO_CROSSINGS: f64 = 24.0;
/// Cut-off frequency, as a share of the lower Nyquist frequency.
const CUT_OFF: f64 = 0.99;

/// The samples at [`SAMPLE_RATE`].
pub(super) fn to_model_rate(samples: Vec<f32>, rate: u32) -> Vec<f32> {
    if rate == SAMPLE_RATE || samples.is_empty() {
        return samples;
    }
    let common = greatest_common_divisor(rate, SAMPLE_RATE);
    let (from, to) = ((rate / common) as usize, (SAMPLE_RATE / common) as usize);
    let mut out = vec![0.0; (samples.len() * to).div_ceil(from)];
    for phase in 0..to.min(out.len()) {
        let kernel = Kernel::new(phase, from, to);
        for (round, y) in out[phase..].iter_mut().step_by(to).enumerate() {
            *y = kernel.at(&samples, round * from);
        }
    }
    out
}

/// The weights of the input samples for every `to`-th output sample.
struct Kernel {
    /// The first input sample, relative to the input sample at the beginning of the round.
    first: i64,
    weights: Vec<f32>,
}

impl Kernel {
    /// The kernel of output samples `phase`, `phase + to`, ...: `to` output samples take the time of `from` input samples.
    fn new(phase: usize, from: usize, to: usize) -> Self {
        let center = phase as f64 * from as f64 / to as f64;
        // Zero crossings per input sample.
        let rate = CUT_OFF * (to as f64 / from as f64).min(1.0);
        let reach = ZERO_CROSSINGS / rate;
        let (first, last) = ((center - reach).ceil() as i64, (center + reach).floor() as i64);
        let weight = |k: i64| {
            let t = (k as f64 - center) * rate;
            let sinc = if t == 0.0 { 1.0 } else { (PI * t).sin() / (PI * t) };
            (sinc * (FRAC_PI_2 * t / ZERO_CROSSINGS).cos().powi(2) * rate) as f32
        };
        Self { first, weights: (first..=last).map(weight).collect() }
    }

    fn at(&self, samples: &[f32], start: usize) -> f32 {
        let first = start as i64 + self.first;
        let skipped = usize::try_from(-first).unwrap_or(0);
        let from = usize::try_from(first).unwrap_or(0).min(samples.len());
        let weights = self.weights.iter().skip(skipped);
        weights.zip(&samples[from..]).map(|(w, x)| w * x).sum()
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
