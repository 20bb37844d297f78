//! Counts the activations that the parts of a model keep. One forward of each kind gives the exact bytes.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::causal_block_pairs;
use dip_core::profile::{KeptBytes, PartBytes};

use super::MeasureError;
use super::probe::{MeasuredChunk, ModuleProbe};
use crate::model::{KeptGrowth, ProbeImages, ProbeSpec};

/// One forward: its sizes, and the bytes that it kept.
struct Point {
    pairs: f64,
    trained: f64,
    bytes: f64,
}

/// The chunk whose activations are counted, and its strategy.
struct Counted<'a, B: Backend> {
    chunk: &'a mut MeasuredChunk<B>,
    first: bool,
    strategy: &'a str,
}

impl<B: Backend> ModuleProbe<'_, B> {
    /// The bytes that a chunk of these layers keeps under every strategy.
    pub(super) fn bytes_kept(&self, layers: Range<u32>) -> Result<PartBytes, MeasureError> {
        let first = layers.start == 0;
        let mut chunk = self.measured(layers, &self.batch())?;
        let mut kept = |strategy| {
            let counted = &mut Counted { chunk: &mut chunk, first, strategy };
            match self.modality.kept_growth(self.spec.model) {
                KeptGrowth::Rows => self.kept_by_rows(counted),
                KeptGrowth::Images => self.kept_by_images(counted),
                KeptGrowth::Documents => self.kept_by_documents(counted),
                KeptGrowth::Captions | KeptGrowth::WholeCaptions => {
                    self.kept_by_lengths(counted, [(1, 1), (1, 2), (1, 3)])
                }
                KeptGrowth::Clips => {
                    let kept = self.kept_by_lengths(counted, [(1, 1), (2, 1), (3, 1)])?;
                    self.with_captions(counted, kept)
                }
            }
        };
        Ok(PartBytes {
            keep: kept("keep")?,
            selective: kept("selective")?,
            full: kept("full")?,
            offload: kept("offload")?,
        })
    }

    fn kept_by_rows(&self, counted: &mut Counted<'_, B>) -> Result<KeptBytes, MeasureError> {
        let bytes = self.point(counted)?.bytes;
        Ok(KeptBytes { bytes, ..KeptBytes::default() })
    }

    /// Bytes are linear in attention pairs. Two probes with equal patches and different pairs give the slope.
    fn kept_by_images(&self, counted: &mut Counted<'_, B>) -> Result<KeptBytes, MeasureError> {
        let few = ProbeSpec { images: ProbeImages::SquareAndWide, instances: 2, ..self.spec };
        let many = ProbeSpec { images: ProbeImages::Wide, instances: 1, ..self.spec };
        let pairs = |spec: &ProbeSpec<'_>| {
            let work = spec.work_of_images();
            // Layers with windows are measured apart from layers with full attention.
            let is_windowed = work.windowed_pairs > 0;
            (if is_windowed { work.windowed_pairs } else { work.attention_pairs }) as f64
        };
        let more = pairs(&many) - pairs(&few);
        let (few, many) = (self.at(few), self.at(many));
        let per_pair = (many.point(counted)?.bytes - few.point(counted)?.bytes) / more.max(1.0);
        Ok(KeptBytes {
            bytes: self.point(counted)?.bytes - per_pair * pairs(&self.spec),
            bytes_per_pair: per_pair,
            ..KeptBytes::default()
        })
    }

    /// Bytes are linear in document pairs and in trained tokens, so that two points of each give the slopes.
    fn kept_by_documents(&self, counted: &mut Counted<'_, B>) -> Result<KeptBytes, MeasureError> {
        let other = if self.spec.documents == 1 { 2 } else { 1 };
        let all = self.spec.model.sequence_tokens as usize;
        let base = self.point(counted)?;
        let of_documents = self.at(ProbeSpec { documents: other, ..self.spec }).point(counted)?;
        let of_trained = self.at(ProbeSpec { trained_tokens: all, ..self.spec }).point(counted)?;
        let per_pair = slope(&base, &of_documents, |p| p.pairs);
        let per_trained = slope(&base, &of_trained, |p| p.trained);
        Ok(KeptBytes {
            bytes: base.bytes - per_pair * base.pairs - per_trained * base.trained,
            bytes_per_pair: per_pair,
            bytes_per_trained_token: per_trained,
            ..KeptBytes::default()
        })
    }

    /// Bytes by rows and pairs, from one, two and three times the length: `(clips, captions)` each.
    fn kept_by_lengths(
        &self,
        counted: &mut Counted<'_, B>,
        lengths: [(u32, u32); 3],
    ) -> Result<KeptBytes, MeasureError> {
        let mut bytes = [0.0; 3];
        for (bytes, (clips, captions)) in bytes.iter_mut().zip(lengths) {
            *bytes = self.longer(clips, captions).point(counted)?.bytes;
        }
        let pairs = lengths.map(|(clips, captions)| self.longer(clips, captions).pairs());
        // Bytes that are linear in the length cancel out in second differences.
        let second = |[once, twice, thrice]: [f64; 3]| thrice - 2.0 * twice + once;
        let per_pair = (second(bytes) / second(pairs).max(1.0)).max(0.0);
        Ok(KeptBytes {
            bytes: bytes[0] - per_pair * pairs[0],
            bytes_per_pair: per_pair,
            ..KeptBytes::default()
        })
    }

    /// Adds to `kept` the bytes per caption token and per pair of a clip token and a caption token.
    fn with_captions(
        &self,
        counted: &mut Counted<'_, B>,
        kept: KeptBytes,
    ) -> Result<KeptBytes, MeasureError> {
        let mut held = |clips, captions| -> Result<f64, MeasureError> {
            Ok(self.longer(clips, captions).point(counted)?.bytes)
        };
        let context = f64::from(self.spec.instances * self.spec.clip.caption_tokens);
        let cross = context * self.spec.clip.grid.tokens() as f64;
        let (once, longer_clips) = (held(1, 1)?, held(2, 1)?);
        let longer_captions = held(1, 2)? - once;
        // Bytes that depend on only one of the two lengths cancel out in this difference.
        let of_cross = held(2, 2)? - longer_clips - longer_captions;
        let per_cross_pair = of_cross / cross.max(1.0);
        let per_context_token = (longer_captions - of_cross) / context.max(1.0);
        Ok(KeptBytes {
            bytes: kept.bytes - per_context_token * context - per_cross_pair * cross,
            bytes_per_cross_pair: per_cross_pair,
            bytes_per_context_token: per_context_token,
            ..kept
        })
    }

    /// The same probe at other sizes.
    fn at<'s>(&'s self, spec: ProbeSpec<'s>) -> ModuleProbe<'s, B> {
        ModuleProbe { spec, ..*self }
    }

    /// The same probe with clips `clips` times as long and captions `captions` times as long.
    fn longer(&self, clips: u32, captions: u32) -> ModuleProbe<'_, B> {
        let mut spec = self.spec;
        spec.clip.grid.frames *= clips;
        spec.clip.caption_tokens *= captions;
        self.at(spec)
    }

    /// Pairs of rows whose scores are computed, of clips or of captions.
    fn pairs(&self) -> f64 {
        let instances = f64::from(self.spec.instances);
        let length = self.modality.rows(&self.spec) as f64 / instances;
        match self.modality.kept_growth(self.spec.model) {
            KeptGrowth::Captions => instances * causal_block_pairs(length as u64) as f64,
            _ => instances * length * length,
        }
    }

    fn point(&self, counted: &mut Counted<'_, B>) -> Result<Point, MeasureError> {
        let (batch, chunk) = (self.batch(), &mut *counted.chunk);
        chunk.inputs = self.inputs(counted.first, &batch);
        let documents = batch.microbatches[0].documents.chunk_by(|a, b| a == b);
        let pairs = documents.map(|d| causal_block_pairs(d.len() as u64) as f64).sum();
        let trained = batch.trained_tokens.max(1) as f64;
        chunk.stage.begin(Arc::new(batch), 1.0);
        chunk.outputs.clear();
        self.forward(chunk, 0, counted.strategy, false)?;
        Ok(Point { pairs, trained, bytes: chunk.stage.held_bytes().0 as f64 })
    }
}

fn slope(a: &Point, b: &Point, x: impl Fn(&Point) -> f64) -> f64 {
    let run = x(b) - x(a);
    if run == 0.0 { 0.0 } else { (b.bytes - a.bytes) / run }
}
