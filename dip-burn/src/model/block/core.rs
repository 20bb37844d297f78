//! The attention core: scores, softmax and weighted sum, span by span.
//!
//! Shape legend: r rows of all sequences, n sequences, s their queries and t their keys (s = t in self-attention), h query
//! heads, k key-value heads, g heads of a group (h = k * g), d head width.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::heads::HeadSizes;
use super::span::AttentionSpan;
use crate::kernels::kernels;
use crate::model::gradients::bytes_of;

/// Most scores of all spans and heads whose weights are kept for the backward: 1 GiB in f32. More are computed again, span by span.
const KEPT_SCORES: usize = 1 << 28;
/// Scaled queries `[r, h * d]`, and keys and values `[rows, k * d]` with the rows of the sequences that they come from.
#[derive(Debug, Clone)]
pub(crate) struct AttentionInputs<B: Backend> {
    pub query: Tensor<B, 2>,
    pub key: Tensor<B, 2>,
    pub value: Tensor<B, 2>,
}

impl<B: Backend> AttentionSpan<B> {
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
        let scores = kernels().products(query, key.transpose());
        let weights = kernels().softmax(scores, self.mask.as_ref());
        (weights.clone(), heads.ungrouped(kernels().products(weights, value), n, s))
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
        let kernels = kernels();
        let d_value = kernels.products(weights.clone().transpose(), dy.clone());
        let d_weights = kernels.products(dy, value.transpose());
        let d_scores = kernels.softmax_backward(weights, d_weights);
        let d_key = kernels.products(d_scores.clone().transpose(), query);
        let (n, s) = (self.sequences, self.queries.length);
        let d_query = heads.ungrouped(kernels.products(d_scores, key), n, s);
        [d_query, kernels.joined_heads(d_key), kernels.joined_heads(d_value)]
    }
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
        kernels().softmax_backward(weights, kernels().products(dy, value.transpose()))
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
    kernels().joined_rows(vec![x.narrow(0, 0, of_first) + first, rest])
}

fn join<B: Backend>(mut parts: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
    if parts.len() == 1 { parts.remove(0) } else { kernels().joined_rows(parts) }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Distribution, TensorData};

    use super::*;
    use crate::model::block::heads::Rows;
    use crate::model::block::span::{HIDDEN, SPAN_PAIRS};

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
                blocked
                    .assert_approx_eq::<f32>(&whole, burn::tensor::Tolerance::rel_abs(1e-5, 1e-5));
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
            let tolerance = burn::tensor::Tolerance::rel_abs(1e-5, 1e-5);
            blocks.into_data().assert_approx_eq::<f32>(&whole.into_data(), tolerance);
        }
        assert!(keeps_weights(&whole, HEADS));
        let long = AttentionSpan::<Flex>::pairs([(32_760, 32_760)].into_iter());
        assert!(!keeps_weights(&long, HEADS));
        assert!(long.iter().all(|span| span.queries.length * span.keys.length <= SPAN_PAIRS));
    }
}
