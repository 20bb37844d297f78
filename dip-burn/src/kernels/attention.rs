//! Attention of packed sequences: every query attends to a range of the keys.
//!
//! Shape legend: r query rows, c key rows, h heads, k key-value heads, d head width.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};

use super::{cast, to_f32};
use crate::uploads::ints;

/// Rows of a block of queries, and of a block of keys.
pub(crate) const ATTENTION_BLOCK: usize = 16;
/// The score of a key that a query does not attend to.
const HIDDEN: f32 = -1e9;

/// Scaled queries `[r, h * d]`, keys and values `[c, k * d]`.
pub(crate) struct PackedAttention<B: Backend> {
    pub query: Tensor<B, 2>,
    pub key: Tensor<B, 2>,
    pub value: Tensor<B, 2>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// Which keys every query attends to.
#[derive(Debug, Clone)]
pub(crate) struct AttentionRanges<B: Backend> {
    /// The first key of every query, then the key after its last. Then, for every block of queries, the first key of all of them and
    /// the key after the last; then the same for every block of keys and the queries that attend to them.
    pub table: Tensor<B, 1, Int>,
    queries: usize,
}

impl<B: Backend> AttentionRanges<B> {
    /// The ranges of the keys of every query, of `keys` keys in all. No range is empty.
    pub fn new(ranges: &[std::ops::Range<usize>], keys: usize, device: &B::Device) -> Self {
        let mut table: Vec<i32> = ranges.iter().map(|range| range.start as i32).collect();
        table.extend(ranges.iter().map(|range| range.end as i32));
        for block in ranges.chunks(ATTENTION_BLOCK) {
            let first = block.iter().map(|range| range.start).min().unwrap_or(0);
            let end = block.iter().map(|range| range.end).max().unwrap_or(0);
            table.extend([first as i32, end as i32]);
        }
        let mut of_keys = vec![0..0; keys.div_ceil(ATTENTION_BLOCK)];
        for (query, range) in ranges.iter().enumerate() {
            let last = (range.end - 1) / ATTENTION_BLOCK;
            for seen in &mut of_keys[range.start / ATTENTION_BLOCK..=last] {
                let first = if seen.start == seen.end { query } else { seen.start };
                *seen = first..query + 1;
            }
        }
        table.extend(of_keys.iter().flat_map(|seen| [seen.start as i32, seen.end as i32]));
        let length = table.len();
        Self { table: ints(table, [length], device), queries: ranges.len() }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> u64 {
        (self.table.dtype().size() * self.table.shape().num_elements()) as u64
    }

    /// What is added to the scores, `[1, r, c]`.
    fn mask(&self, keys: usize) -> Tensor<B, 3> {
        let (rows, device) = (self.queries, self.table.device());
        let bound = |at: usize| self.table.clone().narrow(0, at, rows).reshape([rows, 1]);
        let key = Tensor::<B, 1, Int>::arange(0..keys as i64, &device).reshape([1, keys]);
        let key = key.repeat_dim(0, rows);
        let seen_from = key.clone().greater_equal(bound(0).repeat_dim(1, keys));
        let seen = seen_from.bool_and(key.lower(bound(rows).repeat_dim(1, keys)));
        let zeros = Tensor::<B, 2>::zeros([rows, keys], (&device, DType::F32));
        zeros.mask_fill(seen.bool_not(), HIDDEN).reshape([1, rows, keys])
    }
}

impl<B: Backend> PackedAttention<B> {
    /// Rows `[n, heads * d]` as `[h, n, d]` in f32, where heads of keys are repeated for their group.
    fn heads(&self, x: &Tensor<B, 2>) -> Tensor<B, 3> {
        let [rows, width] = x.dims();
        let heads = width / self.head_dim;
        let x = to_f32(x.clone()).reshape([rows, heads, 1, self.head_dim]);
        let x = x.repeat_dim(2, self.heads / heads).reshape([rows, self.heads, self.head_dim]);
        x.swap_dims(0, 1)
    }

    /// The reverse of [`heads`](Self::heads) for gradients: the heads of a group are summed.
    fn rows(&self, d: Tensor<B, 3>, heads: usize, dtype: DType) -> Tensor<B, 2> {
        let [_, rows, _] = d.dims();
        let d = d.swap_dims(0, 1).reshape([rows, heads, self.heads / heads, self.head_dim]);
        cast(d.sum_dim(2).reshape([rows, heads * self.head_dim]), dtype)
    }

    /// The scores, `[h, r, c]`.
    fn scores(&self, ranges: &AttentionRanges<B>) -> Tensor<B, 3> {
        let scores = self.heads(&self.query).matmul(self.heads(&self.key).transpose());
        scores + ranges.mask(self.key.dims()[0])
    }
}

pub(super) fn forward<B: Backend>(
    given: &PackedAttention<B>,
    ranges: &AttentionRanges<B>,
) -> [Tensor<B, 2>; 2] {
    let scores = given.scores(ranges);
    let most = scores.clone().max_dim(2);
    let sums = (scores.clone() - most.clone()).exp().sum_dim(2);
    let log_sums = most + sums.log();
    let y = (scores - log_sums.clone()).exp().matmul(given.heads(&given.value));
    let [rows, _] = given.query.dims();
    let log_sums = log_sums.reshape([given.heads, rows]).transpose();
    [given.rows(y, given.heads, given.query.dtype()), log_sums]
}

pub(super) fn backward<B: Backend>(
    given: &PackedAttention<B>,
    ranges: &AttentionRanges<B>,
    [y, log_sums]: [Tensor<B, 2>; 2],
    dy: Tensor<B, 2>,
) -> [Tensor<B, 2>; 3] {
    let PackedAttention { heads, kv_heads, .. } = *given;
    let (dtype, [rows, _]) = (given.query.dtype(), given.query.dims());
    let log_sums = log_sums.transpose().reshape([heads, rows, 1]);
    let weights = (given.scores(ranges) - log_sums).exp();
    let d = given.heads(&dy);
    let along = (d.clone() * given.heads(&y)).sum_dim(2);
    let d_value = weights.clone().transpose().matmul(d.clone());
    let d_scores = weights * (d.matmul(given.heads(&given.value).transpose()) - along);
    let d_key = d_scores.clone().transpose().matmul(given.heads(&given.query));
    let d_query = d_scores.matmul(given.heads(&given.key));
    [
        given.rows(d_query, heads, dtype),
        given.rows(d_key, kv_heads, dtype),
        given.rows(d_value, kv_heads, dtype),
    ]
}
