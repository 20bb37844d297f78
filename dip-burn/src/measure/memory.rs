//! The activations that the parts of a model keep: counted, not timed, so that one forward of each kind tells them exactly.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::profile::{KeptBytes, PartBytes};
use dip_core::{ModuleKind, ModuleSpec, causal_block_pairs};

use super::{MeasureError, MeasureSettings, Measured, Probe, is_video};
use crate::batch::{Batch, ClipSize};

/// One forward: what it worked on, and the bytes it kept.
struct Point {
    pairs: f64,
    trained: f64,
    bytes: f64,
}

impl<B: Backend> Probe<'_, B> {
    /// Bytes depend on documents and losses along straight lines, so that two points of each give them.
    pub(super) fn bytes_kept(&self, layers: Range<u32>) -> Result<PartBytes, MeasureError> {
        let first = layers.start == 0;
        let mut chunk = self.measured(layers, &self.batch())?;
        let mut line = |strategy: &str| -> Result<KeptBytes, MeasureError> {
            let length = self.model.sequence_tokens as usize;
            let documents = self.settings.documents.max(1);
            let other = if documents == 1 { 2 } else { 1 };
            let module = self.module_spec();
            if is_video(self.model) {
                return self.of_clips(&mut chunk, first, strategy);
            }
            let base = self.point(&mut chunk, self.batch(), first, strategy)?;
            if !matches!(module.kind, ModuleKind::Decoder { .. }) {
                return Ok(KeptBytes { bytes: base.bytes, ..KeptBytes::default() });
            }
            let mut point = |documents, trained| {
                let batch = self.batch_of(self.sequence(documents, trained));
                self.point(&mut chunk, batch, first, strategy)
            };
            let per_pair = slope(&base, &point(other, length / 2)?, |p| p.pairs);
            let per_trained = slope(&base, &point(documents, length)?, |p| p.trained);
            Ok(KeptBytes {
                bytes: base.bytes - per_pair * base.pairs - per_trained * base.trained,
                bytes_per_pair: per_pair,
                bytes_per_trained_token: per_trained,
                ..KeptBytes::default()
            })
        };
        Ok(PartBytes {
            keep: line("keep")?,
            selective: line("selective")?,
            full: line("full")?,
            offload: line("offload")?,
        })
    }

    /// Bytes of clips or captions. Those of tokens, pairs, captions, and pairs with captions grow differently with the lengths of
    /// both.
    fn of_clips(
        &self,
        chunk: &mut Measured<B>,
        first: bool,
        strategy: &str,
    ) -> Result<KeptBytes, MeasureError> {
        let mut held = |clips, captions| -> Result<f64, MeasureError> {
            let probe = self.longer(clips, captions);
            Ok(probe.point(chunk, probe.batch(), first, strategy)?.bytes)
        };
        let lengths = match self.module_spec().kind {
            ModuleKind::Dit { .. } => [(1, 1), (2, 1), (3, 1)],
            _ => [(1, 1), (1, 2), (1, 3)],
        };
        let mut bytes = [0.0; 3];
        for (bytes, (clips, captions)) in bytes.iter_mut().zip(lengths) {
            *bytes = held(clips, captions)?;
        }
        let pairs = lengths.map(|(clips, captions)| self.longer(clips, captions).pairs());
        // What grows with the length alone is not in second differences.
        let second = |[once, twice, thrice]: [f64; 3]| thrice - 2.0 * twice + once;
        let mut kept = KeptBytes {
            bytes_per_pair: (second(bytes) / second(pairs).max(1.0)).max(0.0),
            ..KeptBytes::default()
        };
        let [once, longer_clips, _] = bytes;
        let context = f64::from(self.instances * self.settings.clip.caption_tokens);
        let cross = context * self.settings.clip.grid.tokens() as f64;
        if matches!(self.module_spec().kind, ModuleKind::Dit { .. }) {
            let longer_captions = held(1, 2)? - once;
            // Nor is what grows with one of two lengths alone in what both make longer than each does.
            let of_cross = held(2, 2)? - longer_clips - longer_captions;
            kept.bytes_per_cross_pair = of_cross / cross.max(1.0);
            kept.bytes_per_context_token = (longer_captions - of_cross) / context.max(1.0);
        }
        kept.bytes = once
            - kept.bytes_per_pair * pairs[0]
            - kept.bytes_per_context_token * context
            - kept.bytes_per_cross_pair * cross;
        Ok(kept)
    }

    /// The same with clips and captions of so many times the length.
    fn longer(&self, clips: u32, captions: u32) -> Self {
        let ClipSize { mut grid, mut caption_tokens } = self.settings.clip;
        grid.frames *= clips;
        caption_tokens *= captions;
        let settings = MeasureSettings { clip: ClipSize { grid, caption_tokens }, ..self.settings };
        Self { settings, ..*self }
    }

    fn module_spec(&self) -> &ModuleSpec {
        &self.model.modules[self.module.index()]
    }

    /// Pairs of tokens whose scores are computed, of clips or of captions.
    fn pairs(&self) -> f64 {
        let instances = f64::from(self.instances);
        let length = self.tokens() as f64 / instances;
        match self.module_spec().kind {
            ModuleKind::Decoder { .. } => instances * causal_block_pairs(length as u64) as f64,
            _ => instances * length * length,
        }
    }

    fn point(
        &self,
        chunk: &mut Measured<B>,
        batch: Batch,
        first: bool,
        strategy: &str,
    ) -> Result<Point, MeasureError> {
        chunk.inputs = self.inputs(first, &batch);
        let documents = batch.microbatches[0].documents.chunk_by(|a, b| a == b);
        let pairs = documents.map(|d| causal_block_pairs(d.len() as u64) as f64).sum();
        let trained = batch.trained_tokens.max(1) as f64;
        chunk.stage.begin(Arc::new(batch), 1.0);
        chunk.outputs.clear();
        self.forward(chunk, 0, strategy, false)?;
        Ok(Point { pairs, trained, bytes: chunk.stage.held_bytes().0 as f64 })
    }
}

fn slope(a: &Point, b: &Point, x: impl Fn(&Point) -> f64) -> f64 {
    let run = x(b) - x(a);
    if run == 0.0 { 0.0 } else { (b.bytes - a.bytes) / run }
}
