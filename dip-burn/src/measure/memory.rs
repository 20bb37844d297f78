//! The activations that the parts of a model keep: counted, not timed, so that one forward of each kind tells them exactly.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::profile::KeptBytes;
use dip_core::{ModuleKind, causal_block_pairs};

use super::{MeasureError, Measured, Probe, is_video};
use crate::batch::Batch;

/// What a chunk keeps under each strategy.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    pub keep: KeptBytes,
    pub selective: KeptBytes,
    pub full: KeptBytes,
}

impl Kept {
    /// What is left without the parts that `other` has, too.
    pub fn less(self, other: Self) -> Self {
        self.plus(other, -1.0)
    }

    /// One of `n` equal parts.
    pub fn share(self, n: f64) -> Self {
        Self::default().plus(self, 1.0 / n)
    }

    fn plus(self, other: Self, times: f64) -> Self {
        Self {
            keep: self.keep.plus(other.keep, times),
            selective: self.selective.plus(other.selective, times),
            full: self.full.plus(other.full, times),
        }
    }
}

/// One forward: what it worked on, and the bytes it kept.
struct Point {
    pairs: f64,
    trained: f64,
    bytes: f64,
}

impl<B: Backend> Probe<'_, B> {
    /// Bytes depend on documents and losses along straight lines, so that two points of each give them.
    pub(super) fn bytes_kept(&self, layers: Range<u32>) -> Result<Kept, MeasureError> {
        let first = layers.start == 0;
        let mut chunk = self.measured(layers, &self.batch())?;
        let mut line = |strategy| -> Result<KeptBytes, MeasureError> {
            let length = self.model.sequence_tokens as usize;
            let documents = self.effort.documents.max(1);
            let other = if documents == 1 { 2 } else { 1 };
            let mut point = |batch| self.point(&mut chunk, batch, first, strategy);
            let base = point(self.batch())?;
            let module = &self.model.modules[self.module.index()];
            if is_video(self.model) || !matches!(module.kind, ModuleKind::Decoder { .. }) {
                return Ok(KeptBytes { bytes: base.bytes, ..KeptBytes::default() });
            }
            let mut point =
                |documents, trained| point(self.batch_of(self.sequence(documents, trained)));
            let per_pair = slope(&base, &point(other, length / 2)?, |p| p.pairs);
            let per_trained = slope(&base, &point(documents, length)?, |p| p.trained);
            Ok(KeptBytes {
                bytes: base.bytes - per_pair * base.pairs - per_trained * base.trained,
                bytes_per_pair: per_pair,
                bytes_per_trained_token: per_trained,
            })
        };
        Ok(Kept { keep: line("keep")?, selective: line("selective")?, full: line("full")? })
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
