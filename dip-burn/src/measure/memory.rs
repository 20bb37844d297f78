//! The activations that the parts of a model keep: counted, not timed, so that one forward of each kind tells them exactly.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::profile::{KeptBytes, PartBytes};
use dip_core::{ModuleKind, causal_block_pairs};

use super::{ClipSize, Effort, MeasureError, Measured, Probe, is_video};
use crate::batch::Batch;

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
            let documents = self.effort.documents.max(1);
            let other = if documents == 1 { 2 } else { 1 };
            let module = &self.model.modules[self.module.index()];
            if is_video(self.model) {
                let (mut bytes, mut pairs) = ([0.0; 3], [0.0; 3]);
                for (i, times) in (1..=3).enumerate() {
                    let probe = self.longer(times);
                    bytes[i] = probe.point(&mut chunk, probe.batch(), first, strategy)?.bytes;
                    pairs[i] = probe.pairs();
                }
                // What grows with the length alone is not in second differences.
                let second = |[once, twice, thrice]: [f64; 3]| thrice - 2.0 * twice + once;
                let bytes_per_pair = (second(bytes) / second(pairs).max(1.0)).max(0.0);
                let bytes = bytes[0] - bytes_per_pair * pairs[0];
                return Ok(KeptBytes { bytes, bytes_per_pair, ..KeptBytes::default() });
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
            })
        };
        Ok(PartBytes {
            keep: line("keep")?,
            selective: line("selective")?,
            full: line("full")?,
            offload: line("offload")?,
        })
    }

    /// The same with clips, or captions where those pass through the module, of so many times the length. Clips have the longest
    /// captions that there may be: what layers keep of them is counted by the tokens of the clips alone.
    fn longer(&self, times: u32) -> Self {
        let ClipSize { mut grid, mut caption_tokens } = self.effort.clip;
        match self.model.modules[self.module.index()].kind {
            ModuleKind::Dit { .. } => {
                grid.frames *= times;
                caption_tokens = self.model.sequence_tokens / self.model.max_clips.max(1);
            }
            _ => caption_tokens *= times,
        }
        let effort = Effort { clip: ClipSize { grid, caption_tokens }, ..self.effort };
        Self { effort, ..*self }
    }

    /// Pairs of tokens whose scores are computed, of clips or of captions.
    fn pairs(&self) -> f64 {
        let instances = f64::from(self.instances);
        let length = self.tokens() as f64 / instances;
        match self.model.modules[self.module.index()].kind {
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
        self.forward(chunk, strategy, false)?;
        Ok(Point { pairs, trained, bytes: chunk.stage.held_bytes().0 as f64 })
    }
}

fn slope(a: &Point, b: &Point, x: impl Fn(&Point) -> f64) -> f64 {
    let run = x(b) - x(a);
    if run == 0.0 { 0.0 } else { (b.bytes - a.bytes) / run }
}
