//! Batches to measure with, and what the stage before would hand over.

use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use dip_core::{BatchSplit, ModuleKind, Received, VitSpec};

use super::{Inputs, Probe, is_video};
use crate::batch::{Batch, ClipSize, Image, Microbatch};
use crate::data::video::{ReadyClip, noisy, packed};
use crate::data::{LatentShape, Latents};
use crate::model::{DitChunk, cast};
use crate::stage::Payload;

impl<B: Backend> Probe<'_, B> {
    /// What the stage before hands over.
    pub(super) fn inputs(&self, first: bool, batch: &Batch) -> Inputs<B> {
        let spec = &self.model.modules[self.module.index()];
        let captions = batch.microbatches[0].tokens.len();
        let mut from = self.pair(0);
        let (rows, width) = match (first, &spec.kind) {
            (true, ModuleKind::Decoder { .. }) => {
                (batch.microbatches[0].images.len() * self.tokens_per_image(), spec.hidden)
            }
            (true, ModuleKind::Dit { .. }) => match self.model.inputs_of(self.module)[..] {
                [text] => {
                    let text = &self.model.modules[text.index()];
                    from.module = text.name.as_str().into();
                    (captions, text.hidden)
                }
                _ => (0, 0),
            },
            (true, _) => (0, 0),
            (false, ModuleKind::Dit { .. }) => {
                (DitChunk::<B>::wire_rows(&batch.microbatches[0]), spec.hidden)
            }
            (false, _) => (self.tokens(), spec.hidden),
        };
        if rows == 0 {
            return Vec::new();
        }
        let shape = [rows, width as usize];
        let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), self.device);
        let x = cast(x, self.settings.precision.dtype());
        vec![Received { from, payload: Payload(vec![x]) }]
    }

    pub(super) fn batch(&self) -> Batch {
        match is_video(self.model) {
            true => self.batch_of((self.clips(), self.instances)),
            false => {
                let (documents, trained) =
                    (self.settings.documents, self.model.sequence_tokens / 2);
                self.batch_of(self.sequence(documents.max(1), trained as usize))
            }
        }
    }

    /// A batch of as many equal microbatches as are in flight.
    pub(super) fn batch_in_flight(&self) -> Batch {
        let Batch { microbatches, split, trained_tokens } = self.batch();
        let in_flight = self.settings.in_flight.max(1);
        Batch {
            microbatches: vec![microbatches[0].clone(); in_flight],
            split: BatchSplit { slices: vec![split.slices[0].clone(); in_flight] },
            trained_tokens,
        }
    }

    /// One microbatch and the number of its instances.
    pub(super) fn batch_of(&self, (microbatch, instances): (Microbatch, u32)) -> Batch {
        let all = 0..instances;
        let slices = vec![Vec::from([all]); self.model.modules.len()];
        let split = BatchSplit { slices: vec![slices] };
        let trained_tokens = microbatch.trained_tokens();
        Batch { microbatches: vec![microbatch], split, trained_tokens }
    }

    /// Equal clips with their captions.
    pub(super) fn clips(&self) -> Microbatch {
        let (ClipSize { grid, caption_tokens }, shape) =
            (self.settings.clip, LatentShape::of(self.model));
        let values = vec![0.5; grid.tokens() * shape.map_or(1, |s| s.values as usize)];
        let clip = ReadyClip {
            latents: Latents { grid, values },
            caption: vec![1; caption_tokens as usize],
            number: 0,
        };
        let clips = vec![clip; self.instances as usize];
        packed::microbatch(&clips, |clip| noisy(&clip.latents, 0, 0))
    }

    /// A sequence of equal documents, a loss on its last `trained` tokens; images for an encoder as many as asked for, for a decoder
    /// as many as fit half of its sequence.
    pub(super) fn sequence(&self, documents: usize, trained: usize) -> (Microbatch, u32) {
        let length = self.model.sequence_tokens as usize;
        let per_image = self.tokens_per_image();
        let vit = matches!(self.model.modules[self.module.index()].kind, ModuleKind::Vit { .. });
        let fit = (length / 2).checked_div(per_image).unwrap_or(0);
        let images = if vit { self.instances as usize } else { fit };
        let document = length.div_ceil(documents).max(1);
        let pixels = vec![0.5; 3 * self.image_px() * self.image_px()];
        let offsets = (0..images).map(|i| (i * per_image) as u32);
        let microbatch = Microbatch {
            tokens: vec![1; length],
            documents: (0..length).map(|i| (i / document) as u32).collect(),
            positions: (0..length).map(|i| (i % document) as u32).collect(),
            targets: vec![1; length],
            loss_mask: (0..length).map(|i| i >= length - trained).collect(),
            images: vec![Image { pixels }; images],
            image_offsets: offsets.collect(),
            clips: Vec::new(),
        };
        (microbatch, if vit { self.instances } else { 1 })
    }

    pub(super) fn tokens_per_image(&self) -> usize {
        self.model.modules.iter().map(|m| m.tokens_per_image() as usize).max().unwrap_or(0)
    }

    pub(super) fn image_px(&self) -> usize {
        let vits = self.model.modules.iter().filter_map(|m| m.kind.get::<VitSpec>());
        vits.map(|vit| vit.image_px as usize).max().unwrap_or(0)
    }
}
