//! A batch loader: sequences with clouds, each followed by a token that names its octant.

use dip::plan::{BatchMeta, MicrobatchMeta};
use dip::train::data::{DataError, SourcePosition};
use dip::train::{
    BatchContent, BatchLoader, LoadedBatch, Microbatch, SelectMicrobatches, text_positions,
};

use super::{CLOUDS, COORDINATES, TOKENS, cloud};
use crate::uses::Uses;

/// Microbatches of a batch.
const MICROBATCHES: usize = 2;
/// Clouds of a microbatch; each stands before the token that names its octant.
const CLOUDS_OF_MICROBATCH: usize = 4;

pub struct Batches {
    next: u64,
    uses: Uses,
}

impl Batches {
    pub fn new(uses: Uses) -> Self {
        Self { next: 0, uses }
    }
}

impl BatchLoader for Batches {
    fn next_batch(
        &mut self,
        select: &mut SelectMicrobatches<'_>,
    ) -> Result<LoadedBatch, DataError> {
        self.uses.add("batch loader");
        let number = |i: usize| self.next * MICROBATCHES as u64 + i as u64;
        let all: Vec<Microbatch> = (0..MICROBATCHES).map(|i| microbatch(number(i))).collect();
        let microbatches = all.iter().map(meta).collect();
        let meta = BatchMeta { iteration: self.next, microbatches };
        let chosen: Vec<Microbatch> =
            select(&meta).iter().map(|wanted| all[wanted.microbatch].clone()).collect();
        self.next += 1;
        let trained_tokens = chosen.iter().map(Microbatch::trained_tokens).sum();
        let content = BatchContent { microbatches: chosen, trained_tokens, muted: Vec::new() };
        Ok(LoadedBatch {
            meta,
            position: self.position(),
            tokens: (MICROBATCHES * TOKENS) as u64,
            documents: MICROBATCHES as u64,
            content: Box::new(move || Ok(content)),
        })
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&self.next)
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        self.next = position.get()?;
        Ok(())
    }
}

/// One document: clouds and their octants in turn, then text without a loss.
pub fn microbatch(number: u64) -> Microbatch {
    let mut m = Microbatch {
        tokens: vec![0; TOKENS],
        documents: vec![0; TOKENS],
        positions: text_positions(TOKENS).collect(),
        targets: vec![0; TOKENS],
        loss_mask: vec![false; TOKENS],
        ..Microbatch::default()
    };
    let mut clouds = Vec::new();
    for i in 0..CLOUDS_OF_MICROBATCH {
        let octant = (number as usize * CLOUDS_OF_MICROBATCH + i) * 5 % 8;
        let sign = |axis: usize| if octant >> axis & 1 == 1 { 1.0 } else { -1.0 };
        let corner: Vec<f32> = (0..COORDINATES).map(sign).collect();
        let points = 3 + i;
        let at = 2 * i;
        clouds.push(cloud(corner.repeat(points), at as u32));
        (m.targets[at], m.tokens[at + 1], m.loss_mask[at]) = (octant as u32, octant as u32, true);
    }
    m.features.insert(CLOUDS.into(), clouds);
    m
}

pub fn meta(microbatch: &Microbatch) -> MicrobatchMeta {
    let points: Vec<u64> = microbatch.features[CLOUDS].iter().map(|c| c.rows() as u64).collect();
    let text_tokens = (TOKENS - points.len()) as u64;
    let other = [(CLOUDS.to_owned(), points)].into();
    MicrobatchMeta { text_tokens, other, ..MicrobatchMeta::default() }
}
