//! Heads of attention: their sizes, and rows of a matrix as heads.
//!
//! Shape legend: r rows of all sequences, n sequences, s rows of one, h query heads, k key-value heads, g heads of a group
//! (h = k * g), d head width.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use crate::kernels::kernels;

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

/// The rows of a span: its first row, and the rows of one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub start: usize,
    pub length: usize,
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

    pub(super) fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// `n` sequences of the rows `[r, k' * d]`, as `[n, k', s, d]`.
    pub(super) fn split<B: Backend>(self, x: &Tensor<B, 2>, rows: Rows, n: usize) -> Tensor<B, 4> {
        let (s, d) = (rows.length, self.head_dim);
        kernels().split_heads(x, rows.start, [n, s, d])
    }

    /// Queries, or their gradients: heads of a group are rows of one product, `[n, k, g * s, d]`.
    pub(super) fn grouped<B: Backend>(
        self,
        x: &Tensor<B, 2>,
        rows: Rows,
        n: usize,
    ) -> Tensor<B, 4> {
        let of_group = self.group() * rows.length;
        self.split(x, rows, n).reshape([n, self.kv_heads, of_group, self.head_dim])
    }

    /// `[n, k, g * s, d]` as rows, `[n * s, h * d]`.
    pub(super) fn ungrouped<B: Backend>(self, x: Tensor<B, 4>, n: usize, s: usize) -> Tensor<B, 2> {
        kernels().joined_heads(x.reshape([n, self.heads, s, self.head_dim]))
    }
}
