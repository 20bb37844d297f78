//! Clips from noise: Euler steps along the model's velocity, with guidance.
//!
//! The text encoder reads every caption once: its output stays on the rank of the transformer's first layers.

use burn::tensor::backend::Backend;

use crate::batch::{Clip, ClipGrid, Microbatch};
use crate::data::Latents;
use crate::data::video::{ReadyClip, packed, sample_time, standard_normals};
use crate::runtime::{ForwardItem, ForwardPipeline, PipelineError};
use crate::stage::ForwardGoal;

/// Most clips of one microbatch, each with or without its caption.
const CLIPS_OF_MICROBATCH: usize = 8;

/// A model of the velocities of clips.
pub trait ClipModel {
    /// The error of a prediction.
    type Error;

    /// Microbatches that it runs at once.
    fn at_once(&self) -> usize;

    /// The velocity of every token of each microbatch, `[tokens, values]`.
    ///
    /// # Errors
    /// If the model cannot predict it.
    fn velocities(
        &mut self,
        microbatches: Vec<Microbatch>,
        captions: Captions,
    ) -> Result<Vec<Vec<f32>>, Self::Error>;
}

/// The captions of microbatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captions {
    /// Captions that the model has not seen.
    New,
    /// Those of the call before, microbatch by microbatch.
    Same,
}

impl<B: Backend> ClipModel for ForwardPipeline<'_, B> {
    type Error = PipelineError;

    fn at_once(&self) -> usize {
        Self::at_once(self)
    }

    fn velocities(
        &mut self,
        microbatches: Vec<Microbatch>,
        captions: Captions,
    ) -> Result<Vec<Vec<f32>>, PipelineError> {
        let begins = captions == Captions::New;
        let item = |(number, microbatch): (usize, Microbatch)| ForwardItem {
            microbatch,
            goal: ForwardGoal::Continue { number, begins, rows: None },
        };
        self.run(microbatches.into_iter().enumerate().map(item).collect())
    }
}

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
    /// As [`ClipModel::velocities`].
    pub fn sample<M: ClipModel>(
        &self,
        model: &mut M,
        prompts: &[ClipPrompt],
        seed: u64,
    ) -> Result<Vec<Latents>, M::Error> {
        let noise = |(number, prompt): (u64, &ClipPrompt)| {
            let values = standard_normals(seed, number, prompt.grid.tokens() * self.values);
            Latents { grid: prompt.grid, values }
        };
        self.sample_from(model, prompts, (0..).zip(prompts).map(noise).collect())
    }

    /// Samples a clip from given noise for each caption.
    ///
    /// # Errors
    /// As [`ClipModel::velocities`].
    pub fn sample_from<M: ClipModel>(
        &self,
        model: &mut M,
        prompts: &[ClipPrompt],
        noise: Vec<Latents>,
    ) -> Result<Vec<Latents>, M::Error> {
        let mut clips = noise;
        // Every group is two microbatches. Enough groups to keep every rank busy, then full groups.
        let groups = (model.at_once() / 2).max(1);
        let of_group = clips.len().div_ceil(groups).clamp(1, CLIPS_OF_MICROBATCH);
        let at_once = of_group * groups;
        for (clips, prompts) in clips.chunks_mut(at_once).zip(prompts.chunks(at_once)) {
            self.sample_groups(model, Groups { clips, prompts, of_group })?;
        }
        Ok(clips)
    }

    /// Moves the clips of some groups from noise to video.
    fn sample_groups<M: ClipModel>(
        &self,
        model: &mut M,
        groups: Groups<'_>,
    ) -> Result<(), M::Error> {
        let at = |step: u32| sample_time(step, self.steps, self.shift);
        let Groups { clips, prompts, of_group } = groups;
        for i in 0..self.steps {
            let (time, step) = (at(i), at(i + 1) - at(i));
            let microbatches = clips.chunks(of_group).zip(prompts.chunks(of_group));
            let microbatches = microbatches.flat_map(|(c, p)| self.with_and_without(c, p, time));
            let captions = if i == 0 { Captions::New } else { Captions::Same };
            let velocities = model.velocities(microbatches.collect(), captions)?;
            for (clips, velocities) in clips.chunks_mut(of_group).zip(velocities.chunks(2)) {
                self.step(clips, velocities, step);
            }
        }
        Ok(())
    }

    /// Clips at `time` with their captions, and with the empty caption.
    fn with_and_without(
        &self,
        clips: &[Latents],
        prompts: &[ClipPrompt],
        time: f32,
    ) -> [Microbatch; 2] {
        let captions = prompts.iter().map(|prompt| prompt.caption.clone());
        let empty = std::iter::repeat_n(self.empty.clone(), clips.len());
        [at(clips, captions, time), at(clips, empty, time)]
    }

    /// Moves clips along their guided velocity.
    fn step(&self, clips: &mut [Latents], velocities: &[Vec<f32>], step: f32) {
        let [captioned, uncaptioned] = velocities else { return };
        let guidance = self.guidance as f32;
        let guided = |(with, without): (&f32, &f32)| without + guidance * (with - without);
        let mut all = captioned.iter().zip(uncaptioned).map(guided);
        for x in clips.iter_mut().flat_map(|clip| &mut clip.values) {
            *x += step * all.next().unwrap_or(0.0);
        }
    }
}

/// Clips that are sampled at once, in groups.
struct Groups<'a> {
    clips: &'a mut [Latents],
    prompts: &'a [ClipPrompt],
    of_group: usize,
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
