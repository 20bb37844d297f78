//! Spans of attention: which queries attend to which keys.
//!
//! Packed documents do not attend to each other, so each is a span of its own instead of a part of a mask over the whole sequence:
//! for `n` documents of equal length that is `1/n` of the work. A long causal document is several spans, blocks of queries, each
//! with the keys up to the end of the block.
//!
//! Shape legend: s queries and t keys of a sequence, k key-value heads, g heads of a group.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::causal_blocks;

use super::heads::{HeadSizes, Rows};
use crate::model::gradients::bytes_of;
use crate::uploads::floats;

/// Most query-key pairs of a span of [`AttentionSpan::pairs`].
pub(super) const SPAN_PAIRS: usize = 1 << 22;
/// Added to the score of a query and a key that it must not attend to.
pub(super) const HIDDEN: f32 = -1e9;

/// Consecutive sequences of equal size. Queries attend only to keys of their own sequence.
#[derive(Debug, Clone)]
pub(crate) struct AttentionSpan<B: Backend> {
    pub(super) sequences: usize,
    pub(super) queries: Rows,
    pub(super) keys: Rows,
    /// Added to the scores, `[1, k, g * s, t]` or `[1, 1, 1, t]`; none if every query attends to every key.
    pub(super) mask: Option<Tensor<B, 4>>,
}

/// New tokens of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CausalPart {
    /// Tokens of the document before them.
    pub tokens: usize,
    /// The last of these tokens whose keys are kept.
    pub kept: usize,
    /// Number of new tokens.
    pub new: usize,
}

impl<B: Backend> AttentionSpan<B> {
    /// `n` sequences of `s` rows; every row attends to all rows of its sequence.
    pub fn full(n: usize, s: usize) -> Self {
        let rows = Rows { start: 0, length: s };
        Self { sequences: n, queries: rows, keys: rows, mask: None }
    }

    /// Sequences of any lengths, one span for each run of equal lengths; every row attends to all rows of its sequence.
    pub fn runs(lengths: &[usize]) -> Vec<Self> {
        let mut start = 0;
        let span = |run: &[usize]| {
            let rows = Rows { start, length: run[0] };
            start += run.len() * run[0];
            Self { sequences: run.len(), queries: rows, keys: rows, mask: None }
        };
        lengths.chunk_by(|a, b| a == b).map(span).collect()
    }

    /// Sequences with any numbers of queries and keys, `(s, t)`; every query attends to all keys of its sequence. Long sequences are
    /// several spans, blocks of their queries, so that the scores of one take bounded memory.
    pub fn pairs(sizes: impl Iterator<Item = (usize, usize)>) -> Vec<Self> {
        Self::pairs_in_blocks(sizes, SPAN_PAIRS)
    }

    /// As [`AttentionSpan::pairs`], with one span for each sequence.
    pub fn whole_pairs(sizes: impl Iterator<Item = (usize, usize)>) -> Vec<Self> {
        Self::pairs_in_blocks(sizes, usize::MAX)
    }

    pub(super) fn pairs_in_blocks(
        sizes: impl Iterator<Item = (usize, usize)>,
        most: usize,
    ) -> Vec<Self> {
        let (mut query, mut key) = (0, 0);
        let mut spans = Vec::new();
        for (s, t) in sizes {
            let keys = Rows { start: key, length: t };
            let block = (most / t.max(1)).max(1);
            for start in (0..s).step_by(block) {
                let queries = Rows { start: query + start, length: block.min(s - start) };
                spans.push(Self { sequences: 1, queries, keys, mask: None });
            }
            (query, key) = (query + s, key + t);
        }
        spans
    }

    /// The documents of a packed sequence, each causal, in blocks of queries. With a window, a query attends only to that many
    /// tokens, itself included.
    pub fn causal_documents(
        documents: &[u32],
        window: Option<u32>,
        heads: HeadSizes,
        device: &B::Device,
    ) -> Vec<Self> {
        let whole = |document: &[u32]| CausalPart { tokens: 0, kept: 0, new: document.len() };
        let parts: Vec<CausalPart> = documents.chunk_by(|a, b| a == b).map(whole).collect();
        Self::causal_parts(&parts, window, heads, device)
    }

    /// New tokens of documents whose earlier tokens are known. The keys of a document are the rows that are kept of its earlier
    /// tokens, then those of its new ones; a window keeps at least its tokens but one.
    pub fn causal_parts(
        parts: &[CausalPart],
        window: Option<u32>,
        heads: HeadSizes,
        device: &B::Device,
    ) -> Vec<Self> {
        let window = window.map_or(usize::MAX, |tokens| tokens as usize);
        let (mut query, mut key) = (0, 0);
        let mut spans = Vec::new();
        for &CausalPart { tokens, kept, new } in parts {
            for block in causal_blocks(new as u64) {
                let block = block.start as usize..block.end as usize;
                let queries = Rows { start: query + block.start, length: block.len() };
                // Counted from the beginning of the document.
                let block = tokens + block.start..tokens + block.end;
                let first = (block.start + 1).saturating_sub(window);
                let start = key + first - (tokens - kept);
                let keys = Rows { start, length: block.end - first };
                // One more token sees all of them.
                let sees_all = tokens > 0 && block.len() == 1;
                let mask = (!sees_all).then(|| causal(block, window, heads, device));
                spans.push(Self { sequences: 1, queries, keys, mask });
            }
            (query, key) = (query + new, key + kept + new);
        }
        spans
    }

    /// The keys of every query; `None` under a mask.
    pub fn ranges(&self) -> Option<Vec<Range<usize>>> {
        let keys = |sequence: usize| {
            let start = self.keys.start + sequence * self.keys.length;
            start..start + self.keys.length
        };
        let of_sequence = |n: usize| std::iter::repeat_n(keys(n), self.queries.length);
        self.mask.is_none().then(|| (0..self.sequences).flat_map(of_sequence).collect())
    }

    /// Keys of one sequence.
    pub fn keys(&self) -> usize {
        self.keys.length
    }

    /// What is added to the scores of `t` keys where the last counts as often as keys are missing to `keys`, `[1, 1, 1, t]`. Equal
    /// keys share one weight: with the logarithm of their number added to its score, one of them gets the weight of all.
    pub fn last_key_counted(t: usize, keys: usize, device: &B::Device) -> Tensor<B, 4> {
        let missing = (keys + 1).saturating_sub(t);
        let mut values = vec![0.0f32; t];
        if let Some(last) = values.last_mut() {
            *last = if missing == 0 { HIDDEN } else { (missing as f32).ln() };
        }
        floats(values, [1, 1, 1, t], device)
    }

    /// The same with a matrix that is added to its scores.
    pub fn with_mask(self, mask: Tensor<B, 4>) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Bytes of its mask.
    pub fn bytes(&self) -> u64 {
        self.mask.as_ref().map_or(0, bytes_of)
    }
}

/// The causal mask of a block of queries over the keys from the first that one of them sees. It holds all heads, because backends
/// add a broadcast mask element by element.
fn causal<B: Backend>(
    queries: Range<usize>,
    window: usize,
    heads: HeadSizes,
    device: &B::Device,
) -> Tensor<B, 4> {
    let first = (queries.start + 1).saturating_sub(window);
    let keys = queries.end - first;
    let mut values = vec![0.0; queries.len() * keys];
    for (row, query) in values.chunks_exact_mut(keys).zip(queries.clone()) {
        row[query + 1 - first..].fill(HIDDEN);
        row[..(query + 1).saturating_sub(window).saturating_sub(first)].fill(HIDDEN);
    }
    let shape = [1, heads.kv_heads, heads.group() * queries.len(), keys];
    floats(values.repeat(heads.heads), shape, device)
}
