//! Flow matching: a clip at a random time on a straight path from noise to video.

use dip_core::FieldError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::grid::Latents;
use crate::batch::Clip;
use crate::random::normals;

/// Random streams of the times are odd, random streams of the noise are even.
const TIME_STREAM: u64 = 1;
/// Shift of the sampling schedule towards the noise.
pub(crate) const SAMPLE_SHIFT: f64 = 3.0;

/// The times at which clips are trained, from 0, which is noise, to 1, which is video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct FlowTimes {
    /// The distribution of times before the shift.
    pub times: TimeDistribution,
    /// Mean of the logit of logit-normal times; below 0, most times are near the noise.
    pub mean: f64,
    /// Standard deviation of the logit of logit-normal times.
    pub deviation: f64,
    /// Shift of all times towards the noise, as `flow_shift` of `diffusers`: noise `s = 1 - time` becomes
    /// `shift s / (1 + (shift - 1) s)`. 1 shifts nothing.
    pub shift: f64,
}

/// A distribution of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TimeDistribution {
    /// The logit of the time is normal.
    LogitNormal,
    /// All times are equally likely.
    Uniform,
}

/// Most times are early, near the noise. These times decide the content of a clip: all its pixels together show it even if each
/// pixel is mostly noise.
impl Default for FlowTimes {
    fn default() -> Self {
        let times = TimeDistribution::LogitNormal;
        Self { times, mean: -1.4, deviation: 1.3, shift: 1.0 }
    }
}

impl FlowTimes {
    /// The times of a sampler with even steps before its shift.
    pub fn uniform(shift: f64) -> Self {
        Self { times: TimeDistribution::Uniform, shift, ..Self::default() }
    }

    /// Checks every field; `path` is the path of the times in their file.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self, path: &str) -> Result<(), FieldError> {
        for (name, value, range, remedy) in [
            ("mean", self.mean, -100.0..=100.0, "try -1.4"),
            ("deviation", self.deviation, 1e-3..=100.0, "try 1.3"),
            ("shift", self.shift, 1e-3..=1e3, "try 1, or the flow_shift of the model"),
        ] {
            FieldError::check_range(format!("{path}.{name}"), value, range, remedy)?;
        }
        Ok(())
    }

    /// Clip `number` of a seed with noise: the same in every batch, rank and plan.
    pub fn noisy(&self, latents: &Latents, seed: u64, number: u64) -> Clip {
        let stream = 2 * number + TIME_STREAM;
        let time = match self.times {
            TimeDistribution::LogitNormal => {
                let normal = standard_normals(seed, stream, 1)[0];
                let logit = self.mean as f32 + self.deviation as f32 * normal;
                1.0 / (1.0 + (-logit).exp())
            }
            TimeDistribution::Uniform => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream);
                rng.random()
            }
        };
        at_time(latents, seed, number, shifted(time, self.shift))
    }
}

/// Clip `number` of a seed with noise, at the default times.
pub fn noisy(latents: &Latents, seed: u64, number: u64) -> Clip {
    FlowTimes::default().noisy(latents, seed, number)
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

/// The time after `done` of `all` steps of a sample. With a shift above 1, steps are small near the noise.
pub(crate) fn sample_time(done: u32, all: u32, shift: f64) -> f32 {
    shifted(done as f32 / all as f32, shift)
}

/// A time moved towards the noise.
fn shifted(time: f32, shift: f64) -> f32 {
    if shift == 1.0 {
        return time;
    }
    time / (time + shift as f32 * (1.0 - time))
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

    #[test]
    fn shifted_times_are_those_of_a_shifted_share_of_noise() {
        for time in [0.0f32, 0.1, 0.5, 0.9, 1.0] {
            let noise = 1.0 - time;
            let expected = 5.0 * noise / (1.0 + 4.0 * noise);
            assert!((shifted(time, 5.0) - (1.0 - expected)).abs() < 1e-6);
            assert_eq!(shifted(time, 1.0), time);
        }
    }

    #[test]
    fn uniform_times_cover_noise_and_video_and_a_shift_moves_them_to_the_noise() {
        let grid = ClipGrid { frames: 1, rows: 1, columns: 1 };
        let latents = Latents { grid, values: vec![0.5] };
        let mean = |times: FlowTimes| {
            let of = |number| f64::from(times.noisy(&latents, 1, number).time);
            (0..2000).map(of).sum::<f64>() / 2000.0
        };
        assert!((mean(FlowTimes::uniform(1.0)) - 0.5).abs() < 0.02);
        // The mean of x / (x + 3 (1 - x)) over 0 to 1.
        assert!((mean(FlowTimes::uniform(3.0)) - 0.324).abs() < 0.02);
    }
}
