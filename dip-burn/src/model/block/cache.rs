//! Keys and values of the tokens that a decoder has seen, so that a next token runs alone through its layers.
//!
//! The tokens of a microbatch continue the documents of the microbatch before it: a document of both goes on, a new one begins, and
//! one that is missing is forgotten. Layers with windows keep the rows of their window only.
//!
//! Shape legend: r rows of the new tokens, c rows of keys and values, k key-value heads, d head width.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::geometry::Geometry;
use super::heads::HeadSizes;
use super::rotary::Rotary;
use super::span::{AttentionSpan, CausalPart};

/// The keys and values of the layers of a chunk, for the documents of one microbatch.
#[derive(Debug, Clone)]
pub struct KeyValueCache<B: Backend> {
    documents: Vec<CachedDocument>,
    /// Of each layer, `[c, k * d]`; none before the first tokens.
    layers: Vec<Option<[Tensor<B, 2>; 2]>>,
}

#[derive(Debug, Clone)]
struct CachedDocument {
    id: u32,
    /// Its tokens so far.
    tokens: usize,
    /// The rows of its tokens in layers without and with windows.
    rows: [Range<usize>; 2],
}

/// The new tokens of a microbatch, as the attention of every layer of a chunk sees them.
pub(in crate::model) struct Continuation<B: Backend> {
    pub geometry: Geometry<B>,
    parts: Vec<DocumentPart>,
}

/// The new tokens of one document.
#[derive(Debug, Clone)]
struct DocumentPart {
    /// Tokens before them.
    tokens: usize,
    /// The rows of these tokens in layers without and with windows.
    cached: [Range<usize>; 2],
    new: Range<usize>,
}

impl<B: Backend> Default for KeyValueCache<B> {
    fn default() -> Self {
        Self { documents: Vec::new(), layers: Vec::new() }
    }
}

impl<B: Backend> KeyValueCache<B> {
    /// Takes up new tokens with positions `rotary` of these documents. Returns how layers whose windows have `window` tokens run
    /// them.
    pub(in crate::model) fn advance(
        &mut self,
        documents: &[u32],
        rotary: &Rotary<B>,
        heads: HeadSizes,
        window: Option<u32>,
    ) -> Continuation<B> {
        let most = window.map_or(usize::MAX, |tokens| tokens as usize);
        let (mut parts, mut next, mut row, mut starts) = (Vec::new(), Vec::new(), 0, [0; 2]);
        for run in documents.chunk_by(|a, b| a == b) {
            let before = self.documents.iter().find(|document| document.id == run[0]);
            let (tokens, cached) = before
                .map_or((0, [0..0, 0..0]), |document| (document.tokens, document.rows.clone()));
            // The rows that the layers keep: all of them, or those of the window.
            let rows = [(0, usize::MAX), (1, most)].map(|(kind, most)| {
                let end = starts[kind] + cached[kind].len() + run.len();
                let first = end.saturating_sub(most).max(starts[kind]);
                starts[kind] = end;
                first..end
            });
            next.push(CachedDocument { id: run[0], tokens: tokens + run.len(), rows });
            parts.push(DocumentPart { tokens, cached, new: row..row + run.len() });
            row += run.len();
        }
        self.documents = next;
        let spans = |kind: usize, window: Option<u32>| {
            let part = |part: &DocumentPart| CausalPart {
                tokens: part.tokens,
                kept: part.cached[kind].len(),
                new: part.new.len(),
            };
            let parts: Vec<CausalPart> = parts.iter().map(part).collect();
            AttentionSpan::causal_parts(&parts, window, heads, &rotary.device())
        };
        let windowed = window.map_or_else(Vec::new, |_| spans(1, window));
        let geometry = Geometry::of_spans(heads, rotary, spans(0, None), windowed);
        Continuation { geometry, parts }
    }

    /// The keys and values of layer `number` of the chunk.
    pub(in crate::model) fn layer(&mut self, number: usize) -> &mut Option<[Tensor<B, 2>; 2]> {
        if self.layers.len() <= number {
            self.layers.resize(number + 1, None);
        }
        &mut self.layers[number]
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.documents.iter().map(|document| document.tokens).sum()
    }
}

impl<B: Backend> Continuation<B> {
    /// The keys and values of all documents, old rows before new ones; they replace those of the layer.
    pub fn extend(
        &self,
        windowed: bool,
        layer: &mut Option<[Tensor<B, 2>; 2]>,
        new: [Tensor<B, 2>; 2],
    ) -> [Tensor<B, 2>; 2] {
        let joined = match layer.take() {
            None => new,
            Some(old) => {
                let [old_key, old_value] = old;
                let [new_key, new_value] = new;
                [(old_key, new_key), (old_value, new_value)]
                    .map(|(old, new)| self.joined(usize::from(windowed), &old, &new))
            }
        };
        layer.insert(joined).clone()
    }

    fn joined(&self, kind: usize, old: &Tensor<B, 2>, new: &Tensor<B, 2>) -> Tensor<B, 2> {
        let rows = |x: &Tensor<B, 2>, rows: &Range<usize>| {
            (!rows.is_empty()).then(|| x.clone().narrow(0, rows.start, rows.len()))
        };
        let of_part = |part: &DocumentPart| [rows(old, &part.cached[kind]), rows(new, &part.new)];
        Tensor::cat(self.parts.iter().flat_map(of_part).flatten().collect(), 0)
    }
}
