//! The power of the frequencies in a window: a discrete Fourier transform in two steps.
//!
//! For a window of `A * B` samples, sample `n = B * a + b` and frequency `k = A * c + d`, the transform is a sum over `a` for each `b`
//! and `d`, turned by `b * d / (A * B)`, then a sum over `b`: `A + B` products for each frequency instead of `A * B`.

use std::f64::consts::TAU;

/// Samples of the window of one frame.
pub(super) const WINDOW: usize = 400;
/// Frequencies of one frame.
pub(super) const FREQUENCIES: usize = WINDOW / 2 + 1;
const A: usize = 16;
const B: usize = WINDOW / A;

/// The cosines and sines of the transform.
pub(super) struct Spectrum {
    /// `exp(-2 pi i n / WINDOW)`, by n.
    turns: Vec<[f64; 2]>,
}

impl Spectrum {
    pub fn new() -> Self {
        let turn = |n: usize| {
            let angle = TAU * n as f64 / WINDOW as f64;
            [angle.cos(), -angle.sin()]
        };
        Self { turns: (0..WINDOW).map(turn).collect() }
    }

    /// The squared magnitude of every frequency.
    pub fn power(&self, samples: &[f64; WINDOW]) -> [f64; FREQUENCIES] {
        let mut inner = [[[0.0; 2]; B]; A];
        for (d, row) in inner.iter_mut().enumerate() {
            for (b, out) in row.iter_mut().enumerate() {
                let mut sum = [0.0; 2];
                for a in 0..A {
                    let [cos, sin] = self.turns[a * d % A * B];
                    let x = samples[B * a + b];
                    sum = [sum[0] + x * cos, sum[1] + x * sin];
                }
                *out = product(sum, self.turns[b * d]);
            }
        }
        std::array::from_fn(|k| {
            let (c, d) = (k / A, k % A);
            let terms = inner[d].iter().enumerate();
            let [re, im] = terms.fold([0.0; 2], |sum, (b, &x)| {
                let [re, im] = product(x, self.turns[b * c % B * A]);
                [sum[0] + re, sum[1] + im]
            });
            re * re + im * im
        })
    }
}

fn product([a, b]: [f64; 2], [c, d]: [f64; 2]) -> [f64; 2] {
    [a * c - b * d, a * d + b * c]
}
