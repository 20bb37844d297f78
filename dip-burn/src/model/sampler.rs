//! Clips from noise: Euler steps along the model's velocity, with guidance.

use burn::tensor::backend::Backend;

use super::WholeModel;
use crate::batch::{Clip, ClipGrid, Microbatch};
use crate::data::Latents;
use crate::data::video::{ReadyClip, packed, sample_time, standard_normals};
use crate::params::ReadError;

/// Clips of one forward, each with and without its caption.
const CLIPS_AT_ONCE: usize = 8;

/// The caption of a clip to sample, and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipPrompt {
    /// Tokens of the caption.
    pub caption: Vec<u32>,
    /// Tokens of the clip along each axis.
    pub grid: ClipGrid,
}

/// How clips are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// Euler steps.
    pub steps: u32,
    /// Scale of classifier-free guidance: the factor on the captioned minus the uncaptioned velocity.
    pub guidance: f64,
    /// Shift of the steps towards the noise; 1 for even steps.
    pub shift: f64,
    /// Values of a token.
    pub values: usize,
    /// Tokens of the empty caption.
    pub empty: Vec<u32>,
}

impl Sampler {
    /// Samples a clip of the given size for each caption. The noise of clip `n` depends only on `n`, its size and the seed.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn sample<B: Backend>(
        &self,
        model: &WholeModel<B>,
        prompts: &[ClipPrompt],
        seed: u64,
    ) -> Result<Vec<Latents>, ReadError> {
        let noise = |(number, prompt): (u64, &ClipPrompt)| {
            let values = standard_normals(seed, number, prompt.grid.tokens() * self.values);
            Latents { grid: prompt.grid, values }
        };
        self.sample_from(model, prompts, (0..).zip(prompts).map(noise).collect())
    }

    /// Samples a clip from given noise for each caption.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn sample_from<B: Backend>(
        &self,
        model: &WholeModel<B>,
        prompts: &[ClipPrompt],
        noise: Vec<Latents>,
    ) -> Result<Vec<Latents>, ReadError> {
        let mut clips = noise;
        let at = |step: u32| sample_time(step, self.steps, self.shift);
        let groups = clips.chunks_mut(CLIPS_AT_ONCE).zip(prompts.chunks(CLIPS_AT_ONCE));
        for (clips, prompts) in groups {
            for i in 0..self.steps {
                let (time, step) = (at(i), at(i + 1) - at(i));
                let velocities = self.velocities(model, clips, prompts, time)?;
                for (clip, velocity) in clips.iter_mut().zip(velocities) {
                    clip.values.iter_mut().zip(velocity).for_each(|(x, v)| *x += step * v);
                }
            }
        }
        Ok(clips)
    }

    /// The guided velocity of every clip at `time`.
    fn velocities<B: Backend>(
        &self,
        model: &WholeModel<B>,
        clips: &[Latents],
        prompts: &[ClipPrompt],
        time: f32,
    ) -> Result<Vec<Vec<f32>>, ReadError> {
        let captions = prompts.iter().map(|prompt| prompt.caption.clone());
        let captioned = velocity_of(model, &at(clips, captions, time))?;
        let empty = std::iter::repeat_n(self.empty.clone(), clips.len());
        let uncaptioned = velocity_of(model, &at(clips, empty, time))?;
        let guidance = self.guidance as f32;
        let guided = |(with, without): (&f32, &f32)| without + guidance * (with - without);
        let mut all = captioned.iter().zip(&uncaptioned).map(guided);
        Ok(clips.iter().map(|clip| all.by_ref().take(clip.values.len()).collect()).collect())
    }
}

/// Clips with captions at a step between noise and video.
fn at(clips: &[Latents], captions: impl Iterator<Item = Vec<u32>>, time: f32) -> Microbatch {
    let ready = clips.iter().zip(captions).map(|(latents, caption)| ReadyClip {
        latents: latents.clone(),
        caption,
        number: 0,
    });
    let state = |clip: &ReadyClip| Clip {
        grid: clip.latents.grid,
        state: clip.latents.values.clone(),
        velocity: Vec::new(),
        time,
    };
    packed::microbatch(&ready.collect::<Vec<_>>(), state)
}

fn velocity_of<B: Backend>(
    model: &WholeModel<B>,
    microbatch: &Microbatch,
) -> Result<Vec<f32>, ReadError> {
    let velocity = model.velocity(microbatch).expect("only models of clips are sampled");
    let data = velocity.try_into_data().map_err(ReadError::new)?;
    Ok(data.convert::<f32>().to_vec().expect("the data was converted to f32"))
}
