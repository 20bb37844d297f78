//! The attention core: scores, softmax and weighted sum, sequence by sequence.
//!
//! Packed documents do not attend to each other, so the core runs on each separately instead of on the whole sequence under a mask:
//! for `n` documents of equal length that is `1/n` of the work. A long causal document runs in blocks of queries, each with the keys
//! up to the end of the block.
//!
//! Shape legend: r rows of all sequences, n sequences, s their queries and t their keys (s = t in self-attention), h query
//! heads, k key-value heads, g heads of a group (h = k * g), d head width.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{ModuleSpec, causal_blocks};

use crate::kernels::kernels;
use crate::model::gradients::bytes_of;

/// Most query-key pairs of a span of [`AttentionSpan::pairs`].
const SPAN_PAIRS: usize = 1 << 22;
/// Most scores of all spans and heads whose weights are kept for the backward: 1 GiB in f32. More are computed again, span by span.
const KEPT_SCORES: usize = 1 << 28;
/// Added to the score of a query and a key that it must not attend to.
const HIDDEN: f32 = -1e9;

/// Numbers and width of the heads of a module.
#[derive(Module, Debug, Clone, Copy)]
pub struct HeadSizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each shared by a group of query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Consecutive sequences of equal size. Queries attend only to keys of their own sequence.
#[derive(Debug, Clone)]
pub(crate) struct AttentionSpan<B: Backend> {
    sequences: usize,
    queries: Rows,
    keys: Rows,
    /// Added to the scores, `[1, k, g * s, t]` or `[1, 1, 1, t]`; none if every query attends to every key.
    mask: Option<Tensor<B, 4>>,
}

/// The rows of a span: its first row, and the rows of one sequence.
#[derive(Debug, Clone, Copy)]
struct Rows {
    start: usize,
    length: usize,
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

/// Scaled queries `[r, h * d]`, and keys and values `[rows, k * d]` with the rows of the sequences that they come from.
#[derive(Debug, Clone)]
pub(crate) struct AttentionInputs<B: Backend> {
    pub query: Tensor<B, 2>,
    pub key: Tensor<B, 2>,
    pub value: Tensor<B, 2>,
}

impl HeadSizes {
    /// The heads of a module.
    pub fn of(spec: &ModuleSpec) -> Self {
        Self {
            heads: spec.heads as usize,
            kv_heads: spec.kv_heads() as usize,
            head_dim: spec.head_dim() as usize,
        }
    }

    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// `n` sequences of the rows `[r, k' * d]`, as `[n, k', s, d]`.
    fn split<B: Backend>(self, x: &Tensor<B, 2>, rows: Rows, n: usize) -> Tensor<B, 4> {
        let (s, d) = (rows.length, self.head_dim);
        kernels().split_heads(x, rows.start, [n, s, d])
    }

    /// Queries, or their gradients: heads of a group are rows of one product, `[n, k, g * s, d]`.
    fn grouped<B: Backend>(self, x: &Tensor<B, 2>, rows: Rows, n: usize) -> Tensor<B, 4> {
        let of_group = self.group() * rows.length;
        self.split(x, rows, n).reshape([n, self.kv_heads, of_group, self.head_dim])
    }

    /// `[n, k, g * s, d]` as rows, `[n * s, h * d]`.
    fn ungrouped<B: Backend>(self, x: Tensor<B, 4>, n: usize, s: usize) -> Tensor<B, 2> {
        kernels().joined_heads(x.reshape([n, self.heads, s, self.head_dim]))
    }
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

    fn pairs_in_blocks(sizes: impl Iterator<Item = (usize, usize)>, most: usize) -> Vec<Self> {
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
        Tensor::from_data(TensorData::new(values, [1, 1, 1, t]), device)
    }

    /// The same with a matrix that is added to its scores.
    pub fn with_mask(self, mask: Tensor<B, 4>) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Bytes of its mask.
    pub fn bytes(&self) -> u64 {
        self.mask.as_ref().map_or(0, bytes_of)
    }

    /// Queries, keys and values of this span.
    fn inputs(&self, inputs: &AttentionInputs<B>, heads: HeadSizes) -> [Tensor<B, 4>; 3] {
        let (n, keys) = (self.sequences, self.keys);
        let query = heads.grouped(&inputs.query, self.queries, n);
        [query, heads.split(&inputs.key, keys, n), heads.split(&inputs.value, keys, n)]
    }

    /// Weights `[n, k, g * s, t]` and their sum over the values, `[n * s, h * d]`.
    fn forward(
        &self,
        inputs: &AttentionInputs<B>,
        heads: HeadSizes,
    ) -> (Tensor<B, 4>, Tensor<B, 2>) {
        let [query, key, value] = self.inputs(inputs, heads);
        let (n, s) = (self.sequences, self.queries.length);
        let scores = query.matmul(key.transpose());
        let weights = kernels().softmax(scores, self.mask.as_ref());
        (weights.clone(), heads.ungrouped(weights.matmul(value), n, s))
    }

    /// Returns the gradients of queries, keys and values of these rows; `dy` is the gradient of the result.
    fn backward(
        &self,
        inputs: &AttentionInputs<B>,
        weights: Tensor<B, 4>,
        dy: &Tensor<B, 2>,
        heads: HeadSizes,
    ) -> [Tensor<B, 2>; 3] {
        let [query, key, value] = self.inputs(inputs, heads);
        let dy = heads.grouped(dy, self.queries, self.sequences);
        let d_value = weights.clone().transpose().matmul(dy.clone());
        let d_scores = kernels().softmax_backward(weights, dy.matmul(value.transpose()));
        let d_key = d_scores.clone().transpose().matmul(query);
        let (n, s) = (self.sequences, self.queries.length);
        let d_query = heads.ungrouped(d_scores.matmul(key), n, s);
        [d_query, kernels().joined_heads(d_key), kernels().joined_heads(d_value)]
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
    Tensor::from_data(TensorData::new(values.repeat(heads.heads), shape), device)
}

impl<B: Backend> AttentionInputs<B> {
    pub fn bytes(&self) -> u64 {
        bytes_of(&self.query) + bytes_of(&self.key) + bytes_of(&self.value)
    }
}

/// The weights of every span, and the result, `[r, h * d]`. Spans cover the rows in order.
pub(crate) fn attend<B: Backend>(
    inputs: &AttentionInputs<B>,
    spans: &[AttentionSpan<B>],
    heads: HeadSizes,
) -> (Vec<Tensor<B, 4>>, Tensor<B, 2>) {
    let (weights, parts) = spans.iter().map(|span| span.forward(inputs, heads)).unzip();
    (weights, join(parts))
}

/// True if the weights of these spans are few enough to be kept for the backward.
pub(in crate::model) fn keeps_weights<B: Backend>(
    spans: &[AttentionSpan<B>],
    heads: HeadSizes,
) -> bool {
    let scores = |span: &AttentionSpan<B>| {
        span.sequences * heads.heads * span.queries.length * span.keys.length
    };
    spans.iter().map(scores).sum::<usize>() <= KEPT_SCORES
}

/// The result of [`attend`] without its weights, which live only span by span.
pub(in crate::model) fn attend_only<B: Backend>(
    inputs: &AttentionInputs<B>,
    spans: &[AttentionSpan<B>],
    heads: HeadSizes,
) -> Tensor<B, 2> {
    join(spans.iter().map(|span| span.forward(inputs, heads).1).collect())
}

/// The weights of every span, computed when they are needed.
pub(in crate::model) fn each_weights<'a, B: Backend>(
    inputs: &'a AttentionInputs<B>,
    spans: &'a [AttentionSpan<B>],
    heads: HeadSizes,
) -> impl Iterator<Item = Tensor<B, 4>> + 'a {
    spans.iter().map(move |span| span.forward(inputs, heads).0)
}

/// The gradients of the inputs from the gradient of the result.
pub(in crate::model) fn attend_backward<B: Backend>(
    inputs: &AttentionInputs<B>,
    spans: &[AttentionSpan<B>],
    heads: HeadSizes,
    weights: impl IntoIterator<Item = Tensor<B, 4>>,
    dy: &Tensor<B, 2>,
) -> AttentionInputs<B> {
    let mut query = Vec::new();
    let (mut key, mut value) = (RowSums::default(), RowSums::default());
    for (span, weights) in spans.iter().zip(weights) {
        let [d_query, d_key, d_value] = span.backward(inputs, weights, dy, heads);
        query.push(d_query);
        key.add(span.keys.start, d_key);
        value.add(span.keys.start, d_value);
    }
    AttentionInputs { query: join(query), key: join(key.parts), value: join(value.parts) }
}

/// Sums of rows that arrive in order of their first row and may overlap.
struct RowSums<B: Backend> {
    /// Rows that follow one another. Only the last part can still grow.
    parts: Vec<Tensor<B, 2>>,
    /// First row of the last part.
    start: usize,
}

impl<B: Backend> Default for RowSums<B> {
    fn default() -> Self {
        Self { parts: Vec::new(), start: 0 }
    }
}

impl<B: Backend> RowSums<B> {
    fn add(&mut self, start: usize, x: Tensor<B, 2>) {
        let before = self.parts.last().map_or(0, |last| last.dims()[0]);
        let overlaps = start < self.start + before;
        let x = match self.parts.pop_if(|_| overlaps) {
            None => x,
            Some(last) => {
                let done = start - self.start;
                if done > 0 {
                    self.parts.push(last.clone().narrow(0, 0, done));
                }
                let overlap = if done == 0 { last } else { last.narrow(0, done, before - done) };
                added(x, overlap)
            }
        };
        self.parts.push(x);
        self.start = start;
    }
}

/// The gradient of the scores of every span, `[n, k, g * s, t]`, from the gradient of the result.
pub(in crate::model) fn score_gradients<B: Backend>(
    inputs: &AttentionInputs<B>,
    spans: &[AttentionSpan<B>],
    heads: HeadSizes,
    weights: Vec<Tensor<B, 4>>,
    dy: &Tensor<B, 2>,
) -> Vec<Tensor<B, 4>> {
    let of_span = |(span, weights): (&AttentionSpan<B>, Tensor<B, 4>)| {
        let dy = heads.grouped(dy, span.queries, span.sequences);
        let value = heads.split(&inputs.value, span.keys, span.sequences);
        kernels().softmax_backward(weights, dy.matmul(value.transpose()))
    };
    spans.iter().zip(weights).map(of_span).collect()
}

/// `x` with `first` added to its first rows.
fn added<B: Backend>(x: Tensor<B, 2>, first: Tensor<B, 2>) -> Tensor<B, 2> {
    let ([rows, _], [of_first, _]) = (x.dims(), first.dims());
    if of_first == rows {
        return x + first;
    }
    let rest = x.clone().narrow(0, of_first, rows - of_first);
    Tensor::cat(vec![x.narrow(0, 0, of_first) + first, rest], 0)
}

fn join<B: Backend>(mut parts: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;

    const HEADS: HeadSizes = HeadSizes { heads: 4, kv_heads: 2, head_dim: 3 };

    fn normal(rows: usize, width: usize) -> Tensor<Flex, 2> {
        Tensor::random([rows, width], Distribution::Normal(0.0, 1.0), &Default::default())
    }

    #[test]
    fn a_token_attends_to_its_document_up_to_itself_and_to_nothing_else() {
        let documents = [0, 0, 0, 1, 1];
        let spans =
            AttentionSpan::<Flex>::causal_documents(&documents, None, HEADS, &Default::default());
        let [query, key, value] = [normal(5, 12), normal(5, 6), normal(5, 6)];
        let run = |key: Tensor<Flex, 2>| -> Vec<f32> {
            let inputs = AttentionInputs { query: query.clone(), key, value: value.clone() };
            attend(&inputs, &spans, HEADS).1.into_data().to_vec().unwrap()
        };
        let before = run(key.clone());
        for changed in 0..5 {
            let other = key.clone().slice_assign([changed..changed + 1, 0..6], normal(1, 6));
            let after = run(other);
            for row in 0..5 {
                let differs = before[row * 12..(row + 1) * 12] != after[row * 12..(row + 1) * 12];
                // The first token of a document attends only to itself, with a weight of 1 for any key.
                let first = row == 0 || documents[row - 1] != documents[row];
                let sees = documents[row] == documents[changed] && changed <= row && !first;
                assert_eq!(differs, sees, "row {row} after a change of {changed}");
            }
        }
    }

    #[test]
    fn blocks_of_long_documents_give_the_results_of_whole_documents() {
        let device = Default::default();
        let lengths = [300, 5, 140];
        let documents: Vec<u32> = (0..).zip(lengths).flat_map(|(d, n)| vec![d; n]).collect();
        let mut start = 0;
        let starts = lengths.map(|length| {
            start += length;
            start - length
        });
        let [query, key, value] = [normal(445, 12), normal(445, 6), normal(445, 6)];
        let (inputs, dy) = (AttentionInputs { query, key, value }, normal(445, 12));
        let run = |spans: &[AttentionSpan<Flex>]| {
            let (weights, y) = attend(&inputs, spans, HEADS);
            let d = attend_backward(&inputs, spans, HEADS, weights, &dy);
            [y, d.query, d.key, d.value].map(|x| x.into_data())
        };
        for window in [None, Some(1), Some(7), Some(100), Some(128), Some(299), Some(1000)] {
            let keys = window.map_or(usize::MAX, |tokens| tokens as usize);
            let whole = starts.iter().zip(lengths).map(|(&start, length)| {
                let rows = Rows { start, length };
                let mut mask = vec![HIDDEN; length * length];
                for query in 0..length {
                    let seen = (query + 1).saturating_sub(keys)..query + 1;
                    mask[query * length..][seen].fill(0.0);
                }
                let shape = [1, HEADS.kv_heads, HEADS.group() * length, length];
                let mask = TensorData::new(mask.repeat(HEADS.heads), shape);
                let mask = Some(Tensor::from_data(mask, &device));
                AttentionSpan::<Flex> { sequences: 1, queries: rows, keys: rows, mask }
            });
            let whole: Vec<_> = whole.collect();
            let blocks = AttentionSpan::causal_documents(&documents, window, HEADS, &device);
            assert_eq!(blocks.len(), 3 + 1 + 2);
            for (blocked, whole) in run(&blocks).iter().zip(run(&whole)) {
                blocked.assert_approx_eq::<f32>(&whole, burn::tensor::Tolerance::absolute(1e-5));
            }
        }
    }

    #[test]
    fn blocks_of_queries_give_the_results_of_whole_sequences() {
        let sizes = [(7, 5), (30, 40), (1, 9), (12, 12)];
        let rows = |at: fn(&(usize, usize)) -> usize| sizes.iter().map(at).sum::<usize>();
        let (queries, keys) = (rows(|size| size.0), rows(|size| size.1));
        let whole = AttentionSpan::whole_pairs(sizes.into_iter());
        let blocks = AttentionSpan::pairs_in_blocks(sizes.into_iter(), 100);
        assert_eq!((whole.len(), blocks.len()), (4, 1 + 15 + 1 + 2));
        let [query, key, value] = [normal(queries, 12), normal(keys, 6), normal(keys, 6)];
        let (inputs, dy) = (AttentionInputs { query, key, value }, normal(queries, 12));
        let (weights, y) = attend(&inputs, &whole, HEADS);
        let d = attend_backward(&inputs, &whole, HEADS, weights, &dy);
        let in_blocks = attend_only(&inputs, &blocks, HEADS);
        let weights = each_weights(&inputs, &blocks, HEADS);
        let d_in_blocks = attend_backward(&inputs, &blocks, HEADS, weights, &dy);
        let (d, other) = ([y, d.query, d.key, d.value], d_in_blocks);
        let other = [in_blocks, other.query, other.key, other.value];
        for (whole, blocks) in d.into_iter().zip(other) {
            let tolerance = burn::tensor::Tolerance::absolute(1e-5);
            blocks.into_data().assert_approx_eq::<f32>(&whole.into_data(), tolerance);
        }
        assert!(keeps_weights(&whole, HEADS));
        let long = AttentionSpan::<Flex>::pairs([(32_760, 32_760)].into_iter());
        assert!(!keeps_weights(&long, HEADS));
        assert!(long.iter().all(|span| span.queries.length * span.keys.length <= SPAN_PAIRS));
    }
}
