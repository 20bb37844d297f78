//! The models and batches on which plans are compared.

use anyhow::Result;
use dip::prelude::*;
use dip::train::data::Wanted;
use dip::train::{ClipGrid, ClipSize, Microbatch, RunConfig, RunData};

/// Batches of each model.
const BATCHES: usize = 3;

pub const SMALL_DECODER: &str = r#"
name = "decoder-tiny"
sequence_tokens = 192
microbatches = 6
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "language"
layers = 8
hidden = 160
ffn = 432
heads = 5
kind = { decoder = { vocab = 260 } }
"#;

/// A batch that is not sliced into sub-microbatches yet.
#[derive(Clone)]
pub struct RawBatch {
    pub meta: BatchMeta,
    pub microbatches: Vec<Microbatch>,
}

/// Batches of drawn scenes or clips, as in `dip train`.
pub fn drawn(model: &ModelSpec, config: &RunConfig) -> Result<Vec<RawBatch>> {
    let mut data = RunData::open(model, &config.data, &config.evaluation, config.seed)?;
    let next = |_| {
        let all = &mut |meta: &BatchMeta| (0..meta.microbatches.len()).map(Wanted::from).collect();
        let batch = data.loader.next_batch(all)?;
        let microbatches = (batch.content)()?.microbatches;
        Ok(RawBatch { meta: batch.meta, microbatches })
    };
    (0..BATCHES).map(next).collect()
}

/// A batch of text: sequences of documents of equal length.
pub fn texts(model: &ModelSpec) -> Vec<RawBatch> {
    let (length, document) = (model.sequence_tokens, 48);
    let microbatch = Microbatch {
        tokens: (0..length).map(|i| i % 256).collect(),
        documents: (0..length).map(|i| i / document).collect(),
        positions: (0..length).map(|i| [i % document; 3]).collect(),
        targets: (0..length).map(|i| (i + 1) % 256).collect(),
        loss_mask: vec![true; length as usize],
        ..Microbatch::default()
    };
    let documents = vec![document.into(); (length / document) as usize];
    let meta =
        MicrobatchMeta { text_tokens: length.into(), documents, ..MicrobatchMeta::default() };
    let count = model.microbatches as usize;
    let meta = BatchMeta { iteration: 0, microbatches: vec![meta; count] };
    vec![RawBatch { meta, microbatches: vec![microbatch; count] }]
}

/// A clip of mean size, or the default without clips.
pub fn mean_clip(batches: &[RawBatch]) -> ClipSize {
    let sequences = || batches.iter().flat_map(|b| &b.microbatches);
    let clips: Vec<_> = sequences().flat_map(|m| &m.clips).collect();
    let Some(count) = u32::try_from(clips.len()).ok().filter(|&n| n > 0) else {
        return ClipSize::default();
    };
    let mean = |sum: u32| sum.div_ceil(count);
    let frames = mean(clips.iter().map(|c| c.grid.frames).sum());
    let columns = mean(clips.iter().map(|c| c.grid.rows * c.grid.columns).sum());
    let captions: usize = sequences().map(|m| m.tokens.len()).sum();
    let grid = ClipGrid { frames, rows: 1, columns };
    ClipSize { grid, caption_tokens: mean(captions as u32) }
}
