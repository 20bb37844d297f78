//! Positions and spans of attention.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::heads::HeadSizes;
use super::packed;
use super::rotary::{Rotary, Rotation};
use super::span::AttentionSpan;
use crate::kernels::AttentionRanges;

/// Positions and attention spans, shared by the attention layers of a chunk.
#[derive(Debug, Clone)]
pub struct Geometry<B: Backend> {
    /// Rotation of queries and keys; none if positions are learned.
    rotations: Option<[Rotation<B>; 2]>,
    spans: Vec<AttentionSpan<B>>,
    /// The spans of layers whose attention is windowed.
    window_spans: Vec<AttentionSpan<B>>,
    /// In place of the spans of layers without and with windows, if the backend computes all sequences at once.
    packed: [Option<AttentionRanges<B>>; 2],
}

impl<B: Backend> Geometry<B> {
    /// `sequences` sequences with the positions of `rotary`; every row attends to all rows of its sequence.
    pub fn full(heads: HeadSizes, rotary: &Rotary<B>, sequences: usize) -> Self {
        Self::new(heads, rotary, vec![AttentionSpan::full(sequences, rotary.positions())])
    }

    /// Sequences of `lengths` rows without rotary positions; every row attends to all rows of its sequence.
    pub fn without_positions(lengths: &[usize]) -> Self {
        Self {
            rotations: None,
            spans: AttentionSpan::runs(lengths),
            window_spans: Vec::new(),
            packed: [None, None],
        }
    }

    /// Causal attention inside each document of a packed sequence.
    pub fn causal_documents(heads: HeadSizes, rotary: &Rotary<B>, documents: &[u32]) -> Self {
        let device = rotary.device();
        match packed::causal(documents, None, heads, &device) {
            Some(ranges) => {
                Self { packed: [Some(ranges), None], ..Self::new(heads, rotary, Vec::new()) }
            }
            None => Self::new(
                heads,
                rotary,
                AttentionSpan::causal_documents(documents, None, heads, &device),
            ),
        }
    }

    /// Sequences of any lengths, with the positions of `rotary` one after another; every row attends to all rows of its sequence.
    pub fn packed(heads: HeadSizes, rotary: &Rotary<B>, lengths: &[usize]) -> Self {
        Self::new(heads, rotary, AttentionSpan::pairs(lengths.iter().map(|&s| (s, s))))
            .at_once(heads, &rotary.device())
    }

    /// As [`packed`](Self::packed), in which neighbours of equal length run as one batch.
    pub fn packed_runs(heads: HeadSizes, rotary: &Rotary<B>, lengths: &[usize]) -> Self {
        Self::new(heads, rotary, AttentionSpan::runs(lengths)).at_once(heads, &rotary.device())
    }

    /// The same geometry, where short sequences are computed all at once if the backend can.
    #[must_use]
    pub(in crate::model) fn at_once(self, heads: HeadSizes, device: &B::Device) -> Self {
        match packed::of_spans(&self.spans, heads, device) {
            Some(ranges) => Self { spans: Vec::new(), packed: [Some(ranges), None], ..self },
            None => self,
        }
    }

    /// The same where rows of layers with windows attend to all rows of their window. Windows of `lengths` rows follow each other;
    /// neighbours of equal length run as one batch.
    #[must_use]
    pub fn with_windows(self, lengths: &[usize]) -> Self {
        Self { window_spans: AttentionSpan::runs(lengths), ..self }
    }

    /// Sequences of `lengths` rows that attend to contexts of `contexts` rows, without positions.
    pub fn cross(lengths: &[usize], contexts: &[usize]) -> Self {
        let sizes = lengths.iter().copied().zip(contexts.iter().copied());
        Self {
            rotations: None,
            spans: AttentionSpan::pairs(sizes),
            window_spans: Vec::new(),
            packed: [None, None],
        }
    }

    /// The same with windows of `tokens` in the layers that have windows.
    #[must_use]
    pub fn with_window(self, heads: HeadSizes, documents: &[u32], tokens: Option<u32>) -> Self {
        let Some([rotation, _]) = self.rotations.as_ref().filter(|_| tokens.is_some()) else {
            return self;
        };
        let device = rotation.device();
        if let Some(ranges) = packed::causal(documents, tokens, heads, &device) {
            let [whole, _] = self.packed;
            return Self { packed: [whole, Some(ranges)], ..self };
        }
        let window_spans = AttentionSpan::causal_documents(documents, tokens, heads, &device);
        Self { window_spans, ..self }
    }

    /// These spans, with the positions of `rotary`; `window_spans` are those of layers with windows.
    pub(in crate::model) fn of_spans(
        heads: HeadSizes,
        rotary: &Rotary<B>,
        spans: Vec<AttentionSpan<B>>,
        window_spans: Vec<AttentionSpan<B>>,
    ) -> Self {
        Self { window_spans, ..Self::new(heads, rotary, spans) }
    }

    /// The spans of a layer.
    pub(super) fn spans(&self, windowed: bool) -> &[AttentionSpan<B>] {
        if windowed { &self.window_spans } else { &self.spans }
    }

    /// The ranges of a layer, if all sequences are computed at once.
    pub(super) fn ranges(&self, windowed: bool) -> Option<&AttentionRanges<B>> {
        self.packed[usize::from(windowed)].as_ref()
    }

    /// Sequences of `lengths` rows, each with a matrix that is added to its scores, `[1, h, s, s]`; every row attends to all rows of
    /// its sequence.
    pub(in crate::model) fn biased(lengths: &[usize], biases: Vec<Tensor<B, 4>>) -> Self {
        let spans = AttentionSpan::whole_pairs(lengths.iter().map(|&s| (s, s))).into_iter();
        let spans = spans.zip(biases).map(|(span, bias)| span.with_mask(bias)).collect();
        Self { rotations: None, spans, window_spans: Vec::new(), packed: [None, None] }
    }

    /// The same where the last key of every context stands for all keys that are missing to `keys`: it counts as often as they are.
    #[must_use]
    pub(in crate::model) fn with_last_keys_counted(self, keys: usize, device: &B::Device) -> Self {
        // The blocks of one sequence share their mask.
        let mut last: Option<(usize, Tensor<B, 4>)> = None;
        let counted = |span: AttentionSpan<B>| {
            let t = span.keys();
            let mask = match last.take() {
                Some((of, mask)) if of == t => mask,
                _ => AttentionSpan::last_key_counted(t, keys, device),
            };
            last = Some((t, mask.clone()));
            span.with_mask(mask)
        };
        Self { spans: self.spans.into_iter().map(counted).collect(), ..self }
    }

    /// Bytes of positions and masks, held as long as the layers that share them.
    pub(in crate::model) fn bytes(&self) -> u64 {
        let masks =
            self.spans.iter().chain(&self.window_spans).map(AttentionSpan::bytes).sum::<u64>();
        let rotations = self.rotations.iter().flatten().map(Rotation::bytes).sum::<u64>();
        let ranges = self.packed.iter().flatten().map(AttentionRanges::bytes).sum::<u64>();
        rotations + masks + ranges
    }

    fn new(heads: HeadSizes, rotary: &Rotary<B>, spans: Vec<AttentionSpan<B>>) -> Self {
        let rotations = [rotary.of_heads(heads.heads), rotary.of_heads(heads.kv_heads)];
        Self { rotations: Some(rotations), spans, window_spans: Vec::new(), packed: [None, None] }
    }

    /// Queries and keys, rotated by their positions.
    pub(super) fn rotate(&self, [query, key]: [Tensor<B, 2>; 2]) -> [Tensor<B, 2>; 2] {
        match &self.rotations {
            Some([q, k]) => [q.apply(query), k.apply(key)],
            None => [query, key],
        }
    }

    /// The gradients of queries and keys before the rotation.
    pub(super) fn rotate_back(&self, [query, key]: [Tensor<B, 2>; 2]) -> [Tensor<B, 2>; 2] {
        match &self.rotations {
            Some([q, k]) => [q.backward(query), k.backward(key)],
            None => [query, key],
        }
    }
}
