//! The microbatches on which modules are measured.

mod images;

use dip_core::{AudioSpec, ModelSpec, ModuleId, ModuleSpec, VitSpec, Workload};

use crate::batch::{ClipSize, Image, ImageLayout, Microbatch, Sound};
use crate::data::video::{ReadyClip, noisy, packed};
use crate::data::{LatentShape, Latents};
pub use images::ProbeImages;
use images::{native, work_of};

/// The sizes that determine the kept activations of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptGrowth {
    /// Rows only.
    Rows,
    /// Rows, pairs of the packed documents, and trained tokens.
    Documents,
    /// Rows and causal pairs of the captions of clips.
    Captions,
    /// Rows and all pairs of the captions of clips.
    WholeCaptions,
    /// Rows and pairs of images of different sizes.
    Images,
    /// Rows and pairs of clips, rows of their captions, and pairs of both.
    Clips,
}

/// A module to measure, with the sizes of its microbatch.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSpec<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The module.
    pub module: ModuleId,
    /// Instances of the module.
    pub instances: u32,
    /// Equal documents of a packed sequence.
    pub documents: usize,
    /// Tokens at the end of a packed sequence that have a loss.
    pub trained_tokens: usize,
    /// Size of clips and captions.
    pub clip: ClipSize,
    /// Sizes of images.
    pub images: ProbeImages,
    /// Encoder frames of a sound.
    pub sound_frames: u32,
}

impl<'a> ProbeSpec<'a> {
    /// The module.
    pub fn module(&self) -> &'a ModuleSpec {
        &self.model.modules[self.module.index()]
    }
}

/// An input of a first chunk that is measured: a tensor `[rows, width]` from an upstream module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeInput {
    /// The upstream module.
    pub module: ModuleId,
    /// Its rows.
    pub rows: usize,
    /// Its width.
    pub width: usize,
}

/// The powers of two below `most`, and `most`.
pub(super) fn counts_up_to(most: u32) -> Vec<u32> {
    let powers = std::iter::successors(Some(1u32), |n| n.checked_mul(2));
    powers.take_while(|&n| n < most).chain([most]).collect()
}

impl ProbeSpec<'_> {
    /// A sequence of equal documents, with a loss on its last `trained_tokens`, and `images` images.
    pub fn packed_sequence(&self, images: usize) -> Microbatch {
        let length = self.model.sequence_tokens as usize;
        let document = length.div_ceil(self.documents.max(1)).max(1);
        let patch_px = self.vit().map_or(1, |vit| vit.patch_px);
        let images: Vec<Image> =
            self.layouts(images).iter().map(|layout| layout.blank(patch_px)).collect();
        let mut next = 0;
        let offset = |image: &Image| {
            next += image.tokens;
            next - image.tokens
        };
        Microbatch {
            tokens: vec![1; length],
            documents: (0..length).map(|i| (i / document) as u32).collect(),
            positions: (0..length).map(|i| [(i % document) as u32; 3]).collect(),
            targets: vec![1; length],
            loss_mask: (0..length).map(|i| i >= length - self.trained_tokens).collect(),
            image_offsets: images.iter().map(offset).collect(),
            images,
            ..Microbatch::default()
        }
    }

    /// Adds equal sounds after the images of a sequence. Sounds without room all have the last place.
    pub fn add_sounds(&self, microbatch: &mut Microbatch, sounds: usize) {
        let Some(audio) = self.audio() else { return };
        let frames = self.sound_frames.clamp(1, audio.max_frames);
        let rows = (2 * frames + 1).min(2 * audio.max_frames) as usize;
        let tokens = self.tokens_per_sound() as u32;
        let first = microbatch.images.iter().map(|image| image.tokens).sum::<u32>();
        let last = self.model.sequence_tokens.saturating_sub(tokens);
        let sound = |i: u32| Sound {
            mel: vec![0.5; rows * audio.mel_bands as usize],
            mel_frames: 2 * frames,
            offset: (first + i * tokens).min(last),
            tokens,
        };
        microbatch.sounds = (0..sounds as u32).map(sound).collect();
    }

    /// Tokens of a sound in the decoder; 0 without sounds.
    pub fn tokens_per_sound(&self) -> usize {
        let tokens = |audio: &AudioSpec| {
            audio.tokens_of(self.sound_frames.clamp(1, audio.max_frames).into()).max(1)
        };
        self.audio().map_or(0, tokens) as usize
    }

    fn audio(&self) -> Option<&AudioSpec> {
        self.model.modules.iter().find_map(|module| module.kind.get())
    }

    /// Equal clips with their captions.
    pub fn clips(&self) -> Microbatch {
        let ClipSize { grid, caption_tokens } = self.clip;
        let values = LatentShape::of(self.model).map_or(1, |shape| shape.values as usize);
        let clip = ReadyClip {
            latents: Latents { grid, values: vec![0.5; grid.tokens() * values] },
            caption: vec![1; caption_tokens as usize],
            number: 0,
        };
        let clips = vec![clip; self.instances as usize];
        packed::microbatch(&clips, |clip| noisy(&clip.latents, 0, 0))
    }

    fn vit(&self) -> Option<&VitSpec> {
        self.model.modules.iter().find_map(|module| module.kind.get())
    }

    /// The layouts of `count` images.
    fn layouts(&self, count: usize) -> Vec<ImageLayout> {
        self.vit().map_or_else(Vec::new, |vit| self.images.layouts(vit, count))
    }

    /// The work of the module, which is a vision encoder, for all images of the probe.
    pub fn work_of_images(&self) -> Workload {
        work_of(self.model, self.module, &self.layouts(self.instances as usize))
    }

    /// True if the module is a vision encoder whose images keep their proportions.
    pub fn has_native_images(&self) -> bool {
        self.module().kind.get::<VitSpec>().is_some() && native(self.model).is_some()
    }

    /// Tokens of an image in the decoder; 0 without images.
    pub fn tokens_per_image(&self) -> usize {
        self.model.modules.iter().map(|m| m.tokens_per_image() as usize).max().unwrap_or(0)
    }
}
