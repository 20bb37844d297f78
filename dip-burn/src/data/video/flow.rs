//! Flow matching: a clip at a random time on a straight path from noise to video.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::grid::Latents;
use crate::batch::Clip;
use crate::random::normals;

/// Random streams of the times are odd, random streams of the noise are even.
const TIME_STREAM: u64 = 1;
/// Mean and standard deviation of the logit of the time.
const LOGIT_MEAN: f32 = -1.4;
const LOGIT_STD: f32 = 1.3;
/// Shift of the sampling schedule towards the noise; 1 gives even steps.
const SHIFT: f32 = 3.0;

/// Clip `number` of a seed with noise: the same in every batch, rank and plan.
///
/// Times follow a logistic-normal distribution, and most are early, near the noise. These times decide the content of a clip: all
/// its pixels together show it even if each pixel is mostly noise.
pub fn noisy(latents: &Latents, seed: u64, number: u64) -> Clip {
    let logit = LOGIT_MEAN + LOGIT_STD * standard_normals(seed, 2 * number + TIME_STREAM, 1)[0];
    let time = 1.0 / (1.0 + (-logit).exp());
    at_time(latents, seed, number, time)
}

/// The clip with noise at the given time.
pub(crate) fn at_time(latents: &Latents, seed: u64, number: u64, time: f32) -> Clip {
    let noise = standard_normals(seed, 2 * number, latents.values.len());
    let pairs = || latents.values.iter().zip(&noise);
    Clip {
        grid: latents.grid,
        state: pairs().map(|(x, n)| time * x + (1.0 - time) * n).collect(),
        velocity: pairs().map(|(x, n)| x - n).collect(),
        time,
    }
}

/// The time after `done` of `all` steps of a sample. Steps are small near the noise, where most times of training are.
pub(crate) fn sample_time(done: u32, all: u32) -> f32 {
    let progress = done as f32 / all as f32;
    progress / (progress + SHIFT * (1.0 - progress))
}

/// Values of the standard normal distribution, from one stream of a seed.
pub(crate) fn standard_normals(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    normals(&mut rng, 1.0, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ClipGrid;

    #[test]
    fn a_clip_reaches_the_video_along_its_velocity() {
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
