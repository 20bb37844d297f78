//! Flow matching: a clip on a straight way from noise to video, at a step drawn by lot.

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::grid::Latents;
use crate::batch::Clip;

/// Stream of the diffusion steps; those of the noise are even.
const STEP_STREAM: u64 = 1;
/// Mean and standard deviation of the logit of a diffusion step.
const STEP_MEAN: f32 = -1.4;
const STEP_SPREAD: f32 = 1.3;
/// How much later the middle of the noise is on the way of a sample than on one with even steps.
const SHIFT: f32 = 3.0;

/// Clip `number` of a seed on its way: the same whatever batch, rank or plan it is trained in.
///
/// Steps follow a logistic-normal distribution, most of them early on the way: the many pixels of a clip tell together what is to
/// be seen while each is still mostly noise, so that it is decided there.
pub fn noisy(latents: &Latents, seed: u64, number: u64) -> Clip {
    let logit = STEP_MEAN + STEP_SPREAD * normals(seed, 2 * number + STEP_STREAM, 1)[0];
    let time = 1.0 / (1.0 + (-logit).exp());
    at_time(latents, seed, number, time)
}

/// The same at a step of the caller's.
pub(crate) fn at_time(latents: &Latents, seed: u64, number: u64, time: f32) -> Clip {
    let noise = normals(seed, 2 * number, latents.values.len());
    let pairs = || latents.values.iter().zip(&noise);
    Clip {
        grid: latents.grid,
        state: pairs().map(|(x, n)| time * x + (1.0 - time) * n).collect(),
        velocity: pairs().map(|(x, n)| x - n).collect(),
        time,
    }
}

/// The diffusion step behind `done` of `all` steps of a sample: small steps early on the way, where training has most of its own.
pub(crate) fn sample_time(done: u32, all: u32) -> f32 {
    let way = done as f32 / all as f32;
    way / (way + SHIFT * (1.0 - way))
}

/// Independent normal values.
pub(crate) fn normals(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // Box and Muller: two values at a time; 1 - u is never 0.
        let (u, v) = (rng.random::<f64>(), rng.random::<f64>());
        let radius = (-2.0 * (1.0 - u).ln()).sqrt();
        values.push((radius * (TAU * v).cos()) as f32);
        values.push((radius * (TAU * v).sin()) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ClipGrid;

    #[test]
    fn a_clip_goes_on_along_its_velocity_to_the_video() {
        let grid = ClipGrid { frames: 2, rows: 1, columns: 1 };
        let latents = Latents { grid, values: vec![0.25, -1.0, 0.5, 1.0] };
        for number in 0..20 {
            let clip = noisy(&latents, 3, number);
            assert!((0.0..=1.0).contains(&clip.time));
            for ((state, velocity), x) in clip.state.iter().zip(&clip.velocity).zip(&latents.values)
            {
                assert!((state + (1.0 - clip.time) * velocity - x).abs() < 1e-5);
            }
            assert_eq!(clip, noisy(&latents, 3, number));
            assert_ne!(clip, noisy(&latents, 3, number + 1));
        }
    }
}
