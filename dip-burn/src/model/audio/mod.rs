//! The audio encoder: two convolutions over log-mel frames, transformer layers, and an adapter to the width of the decoder. Of the
//! Whisper type, with the projector of Qwen2-Audio or a merging adapter.
//!
//! Sounds of different lengths follow one another without padding; attention stays inside a sound.
//!
//! Shape legend: b mel bands, r encoder frames of all sounds, f mel rows (two for each encoder frame), m width, t tokens of all
//! sounds.

mod end;
mod layer;
mod modality;
mod start;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{AudioSpec, LayerStrategy};

use super::block::geometry::Geometry;
use super::block::layer::{self as run, Layer, LayersKept};
use super::chunk::unread_gradients;
use super::{ChunkSpec, Gradients, Init, ModelChunk, Slice};
use crate::batch::Sound;
use end::{AudioEnd, AudioEndKept};
pub use modality::AudioModality;
use start::{AudioStart, AudioStartKept};

/// Consecutive layers of the encoder, with the convolutions in the first chunk and the adapter in the last.
#[derive(Module, Debug)]
pub struct AudioChunk<B: Backend> {
    start: Option<AudioStart<B>>,
    layers: Vec<Layer<B>>,
    end: Option<AudioEnd<B>>,
    /// True if only the adapter runs a backward.
    #[module(skip)]
    has_frozen_tower: bool,
}

impl<B: Backend> AudioChunk<B> {
    /// A chunk of the encoder with settings `audio`.
    pub fn init(chunk: &ChunkSpec<'_>, audio: &AudioSpec, init: &Init<'_, B>) -> Self {
        let spec = chunk.module();
        Self {
            start: chunk.is_first().then(|| AudioStart::init(spec, audio, init)),
            layers: chunk.layers.clone().map(|i| layer::init(spec, i, init)).collect(),
            end: chunk.is_last().then(|| AudioEnd::init(chunk, audio, init)),
            has_frozen_tower: spec.has_frozen_tower(),
        }
    }

    /// The input rows of the layers, `[r, m]`, and the tensors that the backward of the convolutions needs.
    fn begin(
        &self,
        mut inputs: Vec<Tensor<B, 2>>,
        sounds: &[Sound],
    ) -> (Tensor<B, 2>, Option<AudioStartKept<B>>) {
        match (&self.start, inputs.pop()) {
            (Some(start), _) => {
                let (x_rm, kept) = start.forward(sounds);
                (x_rm, Some(kept))
            }
            (None, Some(x_rm)) => (x_rm, None),
            (None, None) => unreachable!("the interpreter gives a later chunk its input"),
        }
    }

    /// The output of the chunk, and the tensors that the backward of the adapter needs.
    fn finish(
        &self,
        x_rm: Tensor<B, 2>,
        sounds: &[Sound],
    ) -> (Tensor<B, 2>, Option<AudioEndKept<B>>) {
        match &self.end {
            Some(end) => {
                let (y, kept) = end.forward(x_rm, sounds);
                (y, Some(kept))
            }
            None => (x_rm, None),
        }
    }
}

/// The state that the backward of a chunk needs.
pub struct AudioKept<B: Backend> {
    start: Option<AudioStartKept<B>>,
    /// `None` in a frozen tower.
    layers: Option<LayersKept<B, Layer<B>>>,
    end: Option<AudioEndKept<B>>,
}

impl<B: Backend> ModelChunk<B> for AudioChunk<B> {
    type Kept = AudioKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let sounds = on.sounds();
        let (x_rm, _) = self.begin(inputs, sounds);
        self.finish(run::forward(&self.layers, x_rm, &geometry(sounds)), sounds).0
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, AudioKept<B>) {
        let sounds = on.sounds();
        let (x_rm, start) = self.begin(inputs, sounds);
        if self.has_frozen_tower {
            let x_rm = run::forward(&self.layers, x_rm, &geometry(sounds));
            let (y, end) = self.finish(x_rm, sounds);
            return (y, AudioKept { start: None, layers: None, end });
        }
        let (x_rm, layers) = run::forward_kept(&self.layers, x_rm, geometry(sounds), strategies);
        let (y, end) = self.finish(x_rm, sounds);
        (y, AudioKept { start, layers: Some(layers), end })
    }

    fn backward(
        &self,
        kept: AudioKept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let unread = unread_gradients(self.start.is_some(), &dy);
        let dy_rm = match (&self.end, kept.end) {
            (Some(end), Some(kept)) => end.backward(kept, dy, gradients),
            _ => dy,
        };
        let Some(layers) = kept.layers else { return unread };
        let dx_rm = run::backward(&self.layers, layers, dy_rm, gradients);
        match (&self.start, kept.start) {
            (Some(start), Some(kept)) => {
                start.backward(kept, dx_rm, on.sounds(), gradients);
                Vec::new()
            }
            _ => vec![dx_rm],
        }
    }

    fn kept_bytes(kept: &AudioKept<B>) -> u64 {
        let start = kept.start.as_ref().map_or(0, AudioStartKept::bytes);
        start
            + kept.layers.as_ref().map_or(0, LayersKept::bytes)
            + kept.end.as_ref().map_or(0, AudioEndKept::bytes)
    }
}

/// Every frame attends to all frames of its sound.
fn geometry<B: Backend>(sounds: &[Sound]) -> Geometry<B> {
    let lengths: Vec<usize> = sounds.iter().map(Sound::encoder_frames).collect();
    Geometry::cross(&lengths, &lengths)
}
