//! Which sequences the attention of a backend computes all at once.
//!
//! Matrix products compute long sequences one by one at the full speed of a GPU. Short ones are over before the next is launched.

use std::ops::Range;

use burn::tensor::backend::Backend;

use super::heads::HeadSizes;
use super::span::AttentionSpan;
use crate::kernels::{AttentionRanges, kernels};

/// Most keys of a query, on average, for which sequences are computed all at once.
const MOST_KEYS: usize = 512;
/// Fewest sequences that are worth it.
const LEAST_SEQUENCES: usize = 2;

/// The ranges of the documents of a packed sequence, each causal, with a window if there is one. `None` if the backend computes them
/// one by one.
pub(super) fn causal<B: Backend>(
    documents: &[u32],
    window: Option<u32>,
    heads: HeadSizes,
    device: &B::Device,
) -> Option<AttentionRanges<B>> {
    let window = window.map_or(usize::MAX, |tokens| tokens as usize);
    let (mut start, mut sequences) = (0, 0);
    let mut ranges = Vec::with_capacity(documents.len());
    for document in documents.chunk_by(|a, b| a == b) {
        let end = start + document.len();
        let first = |row: usize| (row + 1).saturating_sub(window).max(start);
        ranges.extend((start..end).map(|row| first(row)..row + 1));
        (start, sequences) = (end, sequences + 1);
    }
    let is_short = sequences >= LEAST_SEQUENCES && packs::<B>(&ranges, heads);
    is_short.then(|| AttentionRanges::new(&ranges, documents.len(), device))
}

/// The ranges of spans without masks.
pub(super) fn of_spans<B: Backend>(
    spans: &[AttentionSpan<B>],
    heads: HeadSizes,
    device: &B::Device,
) -> Option<AttentionRanges<B>> {
    if spans.len() < LEAST_SEQUENCES {
        return None;
    }
    let ranges: Option<Vec<_>> = spans.iter().map(AttentionSpan::ranges).collect();
    let ranges: Vec<Range<usize>> = ranges?.into_iter().flatten().collect();
    let keys = ranges.iter().map(|range| range.end).max()?;
    packs::<B>(&ranges, heads).then(|| AttentionRanges::new(&ranges, keys, device))
}

fn packs<B: Backend>(ranges: &[Range<usize>], heads: HeadSizes) -> bool {
    let pairs: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    kernels::<B>().packs_attention(heads.head_dim) && pairs <= MOST_KEYS * ranges.len()
}
