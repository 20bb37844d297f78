//! The kernels of CUDA, wgpu and ROCm, in CubeCL: one source for all of them.
//!
//! | file | holds |
//! |---|---|
//! | `launch` | inputs, outputs and grids of a launch |
//! | `reduce` | sums of the units of a cube |
//! | `product`, `heads` | matrix products, and rows as heads |
//! | `rows` | rows gathered from one array or from several |
//! | `norm` | norms, one cube a row |
//! | `attention` | attention of packed sequences, all of them in one launch |
//! | `columns` | sums over rows |
//! | `pointwise` | activations and gated units |
//! | `rotary` | rotations by positions |
//! | `softmax` | softmax under a mask, one cube a row |
//! | `cross_entropy` | softmax and loss of logits, one cube a row |
//! | `modulation` | rows scaled, shifted and gated by the tables of their clips |
//! | `optimizer` | AdamW, squares of gradients |
//!
//! Values have the type of the tensors, sums and everything between are f32. Kernels take arrays instead of tensors: shapes and strides
//! of tensors would be copied to the device at every launch.

mod attention;
mod columns;
mod cross_entropy;
mod heads;
mod launch;
mod modulation;
mod norm;
mod optimizer;
mod pointwise;
mod product;
mod reduce;
mod rotary;
mod rows;
mod softmax;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};
use dip_core::Activation;

use super::{
    AdamwSteps, Addend, AttentionRanges, ClipRows, ClipTables, CrossEntropyGiven, CrossEntropyKept,
    Kernels, PackedAttention, RotaryTables, RowFactor,
};

/// The sources of these kernels.
#[cfg(any(feature = "cuda", feature = "rocm"))]
pub(crate) const SOURCES: [&str; 14] = [
    include_str!("attention.rs"),
    include_str!("columns.rs"),
    include_str!("cross_entropy.rs"),
    include_str!("heads.rs"),
    include_str!("modulation.rs"),
    include_str!("norm.rs"),
    include_str!("optimizer.rs"),
    include_str!("pointwise.rs"),
    include_str!("product.rs"),
    include_str!("reduce.rs"),
    include_str!("rotary.rs"),
    include_str!("rotary.rs"),
    include_str!("rows.rs"),
    include_str!("softmax.rs"),
];

/// The kernels of backends on CubeCL.
pub(super) struct CubeKernels;

type Cube<R, I, BT> = CubeBackend<R, f32, I, BT>;

impl<R: CubeRuntime, I: IntElement, BT: BoolElement> Kernels<Cube<R, I, BT>> for CubeKernels
where
    Cube<R, I, BT>: Backend<FloatTensorPrimitive = CubeTensor<R>>,
{
    fn standardised(
        &self,
        x_rm: Tensor<Cube<R, I, BT>, 2>,
        centred: bool,
        epsilon: f64,
    ) -> [Tensor<Cube<R, I, BT>, 2>; 2] {
        norm::standardised(x_rm, centred, epsilon)
    }

    fn affine(
        &self,
        unit_rm: Tensor<Cube<R, I, BT>, 2>,
        gamma: Tensor<Cube<R, I, BT>, 1>,
        beta: Option<Tensor<Cube<R, I, BT>, 1>>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        norm::affine(unit_rm, gamma, beta)
    }

    fn standardised_backward(
        &self,
        unit_and_scale: [Tensor<Cube<R, I, BT>, 2>; 2],
        gamma: Option<Tensor<Cube<R, I, BT>, 1>>,
        dy_rm: Tensor<Cube<R, I, BT>, 2>,
        centred: bool,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        norm::standardised_backward(unit_and_scale, gamma, dy_rm, centred)
    }

    fn product_sums(
        &self,
        x_rm: Tensor<Cube<R, I, BT>, 2>,
        y_rm: Tensor<Cube<R, I, BT>, 2>,
    ) -> Tensor<Cube<R, I, BT>, 1> {
        columns::product_sums(x_rm, y_rm)
    }

    fn row_sums(&self, x_rm: Tensor<Cube<R, I, BT>, 2>) -> Tensor<Cube<R, I, BT>, 1> {
        columns::row_sums(x_rm)
    }

    fn activate(
        &self,
        activation: Activation,
        x: Tensor<Cube<R, I, BT>, 2>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        pointwise::activate(activation, x)
    }

    fn activate_backward(
        &self,
        activation: Activation,
        x: Tensor<Cube<R, I, BT>, 2>,
        dy: Tensor<Cube<R, I, BT>, 2>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        pointwise::activate_backward(activation, x, dy)
    }

    fn gated(
        &self,
        gate: Tensor<Cube<R, I, BT>, 2>,
        up: Tensor<Cube<R, I, BT>, 2>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        pointwise::gated(gate, up)
    }

    fn gated_backward(
        &self,
        gate: Tensor<Cube<R, I, BT>, 2>,
        up: Tensor<Cube<R, I, BT>, 2>,
        dy: Tensor<Cube<R, I, BT>, 2>,
    ) -> [Tensor<Cube<R, I, BT>, 2>; 2] {
        pointwise::gated_backward(gate, up, dy)
    }

    fn rotated(
        &self,
        x_rm: Tensor<Cube<R, I, BT>, 2>,
        tables: &RotaryTables<Cube<R, I, BT>>,
        back: bool,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        rotary::rotated(x_rm, tables, back)
    }

    fn softmax(
        &self,
        scores: Tensor<Cube<R, I, BT>, 4>,
        mask: Option<&Tensor<Cube<R, I, BT>, 4>>,
    ) -> Tensor<Cube<R, I, BT>, 4> {
        softmax::softmax(scores, mask)
    }

    fn softmax_backward(
        &self,
        weights: Tensor<Cube<R, I, BT>, 4>,
        d_weights: Tensor<Cube<R, I, BT>, 4>,
    ) -> Tensor<Cube<R, I, BT>, 4> {
        softmax::softmax_backward(weights, d_weights)
    }

    fn selected_rows(
        &self,
        x_rm: Tensor<Cube<R, I, BT>, 2>,
        rows: Tensor<Cube<R, I, BT>, 1, Int>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        rows::selected(x_rm, rows)
    }

    fn joined_rows(&self, parts: Vec<Tensor<Cube<R, I, BT>, 2>>) -> Tensor<Cube<R, I, BT>, 2> {
        rows::joined(parts)
    }

    fn split_heads(
        &self,
        x: &Tensor<Cube<R, I, BT>, 2>,
        start: usize,
        shape: [usize; 3],
    ) -> Tensor<Cube<R, I, BT>, 4> {
        heads::split_heads(x, start, shape)
    }

    fn joined_heads(&self, x: Tensor<Cube<R, I, BT>, 4>) -> Tensor<Cube<R, I, BT>, 2> {
        heads::joined_heads(x)
    }

    fn product(
        &self,
        x: Tensor<Cube<R, I, BT>, 2>,
        w: Tensor<Cube<R, I, BT>, 2>,
        bias: Option<Tensor<Cube<R, I, BT>, 1>>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        product::product(x, w, bias)
    }

    fn products(
        &self,
        x: Tensor<Cube<R, I, BT>, 4>,
        y: Tensor<Cube<R, I, BT>, 4>,
    ) -> Tensor<Cube<R, I, BT>, 4> {
        product::products(x, y)
    }

    fn shares_rotary_tables(&self) -> bool {
        true
    }

    fn packs_attention(&self, head_dim: usize) -> bool {
        attention::takes(head_dim)
    }

    fn packed_attention(
        &self,
        given: &PackedAttention<Cube<R, I, BT>>,
        ranges: &AttentionRanges<Cube<R, I, BT>>,
    ) -> [Tensor<Cube<R, I, BT>, 2>; 2] {
        attention::forward(given, ranges)
    }

    fn packed_attention_backward(
        &self,
        given: &PackedAttention<Cube<R, I, BT>>,
        ranges: &AttentionRanges<Cube<R, I, BT>>,
        kept: [Tensor<Cube<R, I, BT>, 2>; 2],
        dy: Tensor<Cube<R, I, BT>, 2>,
    ) -> [Tensor<Cube<R, I, BT>, 2>; 3] {
        attention::backward(given, ranges, kept, dy)
    }

    fn modulated(
        &self,
        x_rm: Tensor<Cube<R, I, BT>, 2>,
        tables: &ClipTables<'_, Cube<R, I, BT>>,
        factor: RowFactor,
        addend: Addend<Cube<R, I, BT>>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        modulation::modulated(x_rm, tables, factor, addend)
    }

    fn table_gradients(
        &self,
        d_tables_na: Tensor<Cube<R, I, BT>, 2>,
        pair: [Tensor<Cube<R, I, BT>, 2>; 2],
        clips: &ClipRows<Cube<R, I, BT>>,
        factor: usize,
        shift: Option<usize>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        modulation::table_gradients(d_tables_na, pair, clips, factor, shift)
    }

    fn cross_entropy(
        &self,
        logits_rv: Tensor<Cube<R, I, BT>, 2>,
        targets_r1: &Tensor<Cube<R, I, BT>, 2, Int>,
        z_loss: f64,
    ) -> (Tensor<Cube<R, I, BT>, 2>, CrossEntropyKept<Cube<R, I, BT>>) {
        cross_entropy::forward(logits_rv, targets_r1, z_loss)
    }

    fn cross_entropy_backward(
        &self,
        kept: CrossEntropyKept<Cube<R, I, BT>>,
        given: CrossEntropyGiven<Cube<R, I, BT>>,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        cross_entropy::backward(kept, given)
    }

    fn logit_sums(
        &self,
        logits_rc: Tensor<Cube<R, I, BT>, 2>,
        targets_r1: &Tensor<Cube<R, I, BT>, 2, Int>,
        first: usize,
    ) -> [Tensor<Cube<R, I, BT>, 2>; 2] {
        cross_entropy::logit_sums(logits_rc, targets_r1, first)
    }

    fn logit_gradients(
        &self,
        logits_rc: Tensor<Cube<R, I, BT>, 2>,
        log_z_r1: &Tensor<Cube<R, I, BT>, 2>,
        given: &CrossEntropyGiven<Cube<R, I, BT>>,
        first: usize,
    ) -> Tensor<Cube<R, I, BT>, 2> {
        cross_entropy::logit_gradients(logits_rc, log_z_r1, given, first)
    }

    fn adamw(&self) -> Box<dyn AdamwSteps<Cube<R, I, BT>>> {
        Box::new(optimizer::AdamwBuckets::<R>::default())
    }

    fn squares(&self, tensors: Vec<Tensor<Cube<R, I, BT>, 1>>) -> Tensor<Cube<R, I, BT>, 1> {
        optimizer::squares(tensors)
    }
}
