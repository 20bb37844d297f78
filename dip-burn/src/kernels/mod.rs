//! Kernels: operations of the layers for which a backend may have a faster form than Burn's operations.
//!
//! | place | holds |
//! |---|---|
//! | `plain` | every kernel in Burn's operations: what any backend runs, and the twin that tests compare with |
//! | `attention` | attention of packed sequences: its inputs, and its twin in Burn's operations |
//! | `modulation` | rows scaled, shifted and gated by the tables of their clips |
//! | `cpu` | passes over f32 tensors of the CPU backend |
//! | `cube` | kernels of CUDA, wgpu and ROCm |
//!
//! [`Kernels`] has a method for each kernel, in Burn's operations by default. [`kernels`] finds the kernels of a backend. They are no
//! supertrait of Burn's `Backend`: then dip could train only on the backends that it names, because other crates may not implement a
//! trait of this crate for a backend of Burn.
//!
//! Shape legend: r rows, m width, n sequences, h heads, s queries, t keys, d head width.

mod attention;
mod cpu;
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "rocm"))]
mod cube;
mod modulation;
pub(crate) mod plain;

use std::any::Any;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};
use burn_flex::Flex;
use dip_core::Activation;

pub(crate) use attention::{AttentionRanges, PackedAttention};
#[cfg(any(feature = "cuda", feature = "rocm"))]
pub(crate) use cube::SOURCES;
pub(crate) use modulation::{Addend, ClipRows, ClipTables, RowFactor};
pub(crate) use plain::{cast, to_f32};

/// Operations of the layers. Every method computes what the function of its name in [`plain`] computes, to rounding.
pub(crate) trait Kernels<B: Backend>: Sync {
    /// `x_rm` at unit variance, with mean zero if `centred`, and the factor of each row, `[r, 1]`, in f32.
    fn standardised(&self, x_rm: Tensor<B, 2>, centred: bool, epsilon: f64) -> [Tensor<B, 2>; 2] {
        plain::standardised(x_rm, centred, epsilon)
    }

    /// `unit * gamma`, plus `beta` if there is one.
    fn affine(
        &self,
        unit_rm: Tensor<B, 2>,
        gamma: Tensor<B, 1>,
        beta: Option<Tensor<B, 1>>,
    ) -> Tensor<B, 2> {
        plain::affine(unit_rm, gamma, beta)
    }

    /// The gradient of the input of [`standardised`](Self::standardised) from its results and the gradient of the affine result, or
    /// of the unit rows without `gamma`.
    fn standardised_backward(
        &self,
        unit_and_scale: [Tensor<B, 2>; 2],
        gamma: Option<Tensor<B, 1>>,
        dy_rm: Tensor<B, 2>,
        centred: bool,
    ) -> Tensor<B, 2> {
        plain::standardised_backward(unit_and_scale, gamma, dy_rm, centred)
    }

    /// The sums of `x * y` over the rows, `[m]`, in f32.
    fn product_sums(&self, x_rm: Tensor<B, 2>, y_rm: Tensor<B, 2>) -> Tensor<B, 1> {
        plain::product_sums(x_rm, y_rm)
    }

    /// The sums over the rows, `[m]`, in f32.
    fn row_sums(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 1> {
        plain::row_sums(x_rm)
    }

    /// `x` after the activation.
    fn activate(&self, activation: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
        plain::activate(activation, x)
    }

    /// The gradient of `x` where `y = activate(x)`.
    fn activate_backward(
        &self,
        activation: Activation,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        plain::activate_backward(activation, x, dy)
    }

    /// `silu(gate) * up`
    fn gated(&self, gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
        plain::gated(gate, up)
    }

    /// The gradients of `gate` and `up` from the gradient of [`gated`](Self::gated).
    fn gated_backward(
        &self,
        gate: Tensor<B, 2>,
        up: Tensor<B, 2>,
        dy: Tensor<B, 2>,
    ) -> [Tensor<B, 2>; 2] {
        plain::gated_backward(gate, up, dy)
    }

    /// Rotates the pairs of every head of `x_rm` by the angles of `tables`, which are repeated for all sequences; with `back`, by the
    /// negative angles.
    fn rotated(&self, x_rm: Tensor<B, 2>, tables: &RotaryTables<B>, back: bool) -> Tensor<B, 2> {
        plain::rotated(x_rm, tables, back)
    }

    /// Softmax of the scores, `[n, h, s, t]`, plus the mask, which is repeated for all sequences; in the type of the scores.
    fn softmax(&self, scores: Tensor<B, 4>, mask: Option<&Tensor<B, 4>>) -> Tensor<B, 4> {
        plain::softmax(scores, mask)
    }

    /// The gradient of the scores from the `weights` of the softmax and their gradient.
    fn softmax_backward(&self, weights: Tensor<B, 4>, d_weights: Tensor<B, 4>) -> Tensor<B, 4> {
        plain::softmax_backward(weights, d_weights)
    }

    /// The rows of `x_rm` with these numbers.
    fn selected_rows(&self, x_rm: Tensor<B, 2>, rows: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        x_rm.select(0, rows)
    }

    /// The rows of all `parts`, one after another. There is at least one part.
    fn joined_rows(&self, parts: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        Tensor::cat(parts, 0)
    }

    /// `n` sequences of `s` rows of `x`, `[rows, h * d]`, from row `start`: `[n, h, s, d]`.
    fn split_heads(&self, x: &Tensor<B, 2>, start: usize, [n, s, d]: [usize; 3]) -> Tensor<B, 4> {
        plain::split_heads(x, start, [n, s, d])
    }

    /// The reverse of [`split_heads`](Self::split_heads): `[n, h, s, d]` as rows, `[n * s, h * d]`.
    fn joined_heads(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        plain::joined_heads(x)
    }

    /// `x w + bias`: `[r, i]` times `[i, o]`, and `[o]`.
    fn product(
        &self,
        x: Tensor<B, 2>,
        w: Tensor<B, 2>,
        bias: Option<Tensor<B, 1>>,
    ) -> Tensor<B, 2> {
        plain::product(x, w, bias)
    }

    /// The products of the matrices of every sequence and head: `[n, h, s, i]` times `[n, h, i, t]`.
    fn products(&self, x: Tensor<B, 4>, y: Tensor<B, 4>) -> Tensor<B, 4> {
        x.matmul(y)
    }

    /// True if [`rotated`](Self::rotated) is as fast with tables of one head as with tables of all heads.
    fn shares_rotary_tables(&self) -> bool {
        false
    }

    /// True if the backend computes attention of short packed sequences faster by [`packed_attention`](Self::packed_attention) than
    /// sequence by sequence.
    fn packs_attention(&self, _head_dim: usize) -> bool {
        false
    }

    /// Attention of every query to its range of keys: the result, `[r, h * d]`, and the logarithms of the sums of the exponentials of
    /// the scores, `[r, h]`, in f32.
    fn packed_attention(
        &self,
        given: &PackedAttention<B>,
        ranges: &AttentionRanges<B>,
    ) -> [Tensor<B, 2>; 2] {
        attention::forward(given, ranges)
    }

    /// The gradients of queries, keys and values of [`packed_attention`](Self::packed_attention) from its results and the gradient of
    /// the first.
    fn packed_attention_backward(
        &self,
        given: &PackedAttention<B>,
        ranges: &AttentionRanges<B>,
        kept: [Tensor<B, 2>; 2],
        dy: Tensor<B, 2>,
    ) -> [Tensor<B, 2>; 3] {
        attention::backward(given, ranges, kept, dy)
    }

    /// Every row of `x_rm` times the factor of its clip, plus the addend.
    fn modulated(
        &self,
        x_rm: Tensor<B, 2>,
        tables: &ClipTables<'_, B>,
        factor: RowFactor,
        addend: Addend<B>,
    ) -> Tensor<B, 2> {
        modulation::modulated(x_rm, tables, factor, addend)
    }

    /// `d_tables_na` with the gradients of the tables of [`modulated`](Self::modulated) in the parts `factor` and `shift`, from its
    /// input and the gradient of its result.
    fn table_gradients(
        &self,
        d_tables_na: Tensor<B, 2>,
        x_and_dy: [Tensor<B, 2>; 2],
        clips: &ClipRows<B>,
        factor: usize,
        shift: Option<usize>,
    ) -> Tensor<B, 2> {
        modulation::table_gradients(d_tables_na, x_and_dy, clips, factor, shift)
    }

    /// The cross-entropy of the softmax of every row of logits with its target, `[r, 1]`, in f32. `z_loss` is the weight of the squared
    /// logarithm of the softmax's denominator.
    fn cross_entropy(
        &self,
        logits_rv: Tensor<B, 2>,
        targets_r1: &Tensor<B, 2, Int>,
        z_loss: f64,
    ) -> (Tensor<B, 2>, CrossEntropyKept<B>) {
        plain::cross_entropy(logits_rv, targets_r1, z_loss)
    }

    /// The gradient of the logits of [`cross_entropy`](Self::cross_entropy), in their type.
    fn cross_entropy_backward(
        &self,
        kept: CrossEntropyKept<B>,
        given: CrossEntropyGiven<B>,
    ) -> Tensor<B, 2> {
        plain::cross_entropy_backward(kept, given)
    }

    /// For every row of a part of the logits, whose first column is `first`, the logarithm of the sum of their exponentials, and the logit
    /// of the target, or 0 if it lies in another part: `[r, 1]` each, in f32.
    fn logit_sums(
        &self,
        logits_rc: Tensor<B, 2>,
        targets_r1: &Tensor<B, 2, Int>,
        first: usize,
    ) -> [Tensor<B, 2>; 2] {
        plain::logit_sums(logits_rc, targets_r1, first)
    }

    /// The gradient of a part of the logits as in [`cross_entropy_backward`](Self::cross_entropy_backward). `log_z_r1` is the logarithm of
    /// the sum of the exponentials of all parts, in f32.
    fn logit_gradients(
        &self,
        logits_rc: Tensor<B, 2>,
        log_z_r1: &Tensor<B, 2>,
        given: &CrossEntropyGiven<B>,
        first: usize,
    ) -> Tensor<B, 2> {
        plain::logit_gradients(logits_rc, log_z_r1, given, first)
    }

    /// Steps of AdamW for the parameters of one update.
    fn adamw(&self) -> Box<dyn AdamwSteps<B>> {
        Box::new(plain::PlainAdamw)
    }

    /// Numbers whose sum is the sum of the squares of all values of `tensors`, of which there is at least one.
    fn squares(&self, tensors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        plain::squares(tensors)
    }
}

/// Steps of AdamW for many parameters.
pub(crate) trait AdamwSteps<B: Backend> {
    /// The parameter and its moments after a step. Without moments, it is the first step. Nobody may read the results before
    /// [`finish`](Self::finish): a backend may compute many parameters at once.
    fn step(
        &mut self,
        step: &AdamwStep,
        parameter: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        moments: Option<[Tensor<B, 1>; 2]>,
    ) -> (Tensor<B, 1>, [Tensor<B, 1>; 2]);

    /// Computes what is not computed yet.
    fn finish(&mut self);
}

/// The state that the backward of a cross-entropy needs.
pub(crate) struct CrossEntropyKept<B: Backend> {
    /// Log-probabilities in f32, or the logits in their type, `[r, v]`.
    pub values_rv: Tensor<B, 2>,
    /// Logarithm of the softmax's denominator, `[r, 1]`, in f32, if it is needed.
    pub log_z_r1: Option<Tensor<B, 2>>,
}

/// The other inputs of the backward of a cross-entropy.
#[derive(Debug, Clone)]
pub(crate) struct CrossEntropyGiven<B: Backend> {
    pub targets_r1: Tensor<B, 2, Int>,
    /// The gradient of every loss, `[1, 1]`, in f32.
    pub dy: Tensor<B, 2>,
    /// Factor of `dy`.
    pub weight: f64,
    pub z_loss: f64,
    /// The type of the gradient.
    pub dtype: DType,
}

impl<B: Backend> CrossEntropyKept<B> {
    pub fn bytes(&self) -> u64 {
        let bytes = |x: &Tensor<B, 2>| (x.dtype().size() * x.shape().num_elements()) as u64;
        bytes(&self.values_rv) + self.log_z_r1.as_ref().map_or(0, bytes)
    }
}

/// The settings of a step of AdamW, for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamwStep {
    pub learning_rate: f64,
    pub weight_decay: f32,
    pub beta_1: f32,
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Factor of the gradient.
    pub gradient_scale: f64,
    /// Steps of this parameter, this one included.
    pub time: usize,
}

impl AdamwStep {
    /// The part of the parameter that decays.
    pub fn decay_rate(&self) -> f64 {
        self.learning_rate * f64::from(self.weight_decay)
    }

    /// The divisors of the two moments: early moments are too small.
    pub fn corrections(&self) -> [f32; 2] {
        [self.beta_1, self.beta_2].map(|beta| 1.0 - beta.powi(self.time as i32))
    }
}

/// Which values of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RotaryPairs {
    /// Value `i` and value `i + d / 2`, as in Llama.
    #[default]
    Halves,
    /// Value `2 i` and value `2 i + 1`, as in Wan.
    Neighbours,
}

/// Cosines and sines of the heads of one sequence, `[1, s * h * d]` each. Tables of one head serve all heads, in every backend.
#[derive(Debug, Clone)]
pub(crate) struct RotaryTables<B: Backend> {
    pub cos: Tensor<B, 2>,
    pub sin: Tensor<B, 2>,
    /// The heads that they hold, `h`.
    pub heads: usize,
    pub pairs: RotaryPairs,
    /// The matrix that swaps the values of each pair and negates one, `[d, d]`.
    pub swap: Tensor<B, 2>,
}

impl<B: Backend> RotaryTables<B> {
    /// The tables of `heads` heads, from those of as many heads or of one.
    pub fn of_heads(&self, heads: usize) -> Self {
        if self.heads == heads {
            return self.clone();
        }
        let [d, _] = self.swap.dims();
        let repeat = |table: &Tensor<B, 2>| {
            let [_, values] = table.dims();
            let table = table.clone().reshape([values / d, 1, d]).repeat_dim(1, heads);
            table.reshape([1, values * heads])
        };
        Self { cos: repeat(&self.cos), sin: repeat(&self.sin), heads, ..self.clone() }
    }
}

/// The kernels of a backend.
pub(crate) fn kernels<B: Backend>() -> &'static dyn Kernels<B> {
    let found = same::<B, Flex>(&cpu::CpuKernels);
    #[cfg(feature = "cuda")]
    let found = found.or_else(|| same::<B, burn::backend::Cuda>(&cube::CubeKernels));
    #[cfg(feature = "wgpu")]
    let found = found.or_else(|| same::<B, burn::backend::Wgpu>(&cube::CubeKernels));
    #[cfg(feature = "rocm")]
    let found = found.or_else(|| same::<B, burn::backend::Rocm>(&cube::CubeKernels));
    found.unwrap_or(plain_kernels())
}

/// All kernels in Burn's operations.
pub(crate) fn plain_kernels<B: Backend>() -> &'static dyn Kernels<B> {
    &plain::PlainKernels
}

/// `kernels` if they are for backend `B`.
fn same<B: Backend, Own: Backend>(
    kernels: &'static dyn Kernels<Own>,
) -> Option<&'static dyn Kernels<B>> {
    (&kernels as &dyn Any).downcast_ref::<&'static dyn Kernels<B>>().copied()
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;

    use super::*;

    #[test]
    fn only_the_cpu_backend_has_the_kernels_of_the_cpu() {
        assert!(same::<Flex, Flex>(&cpu::CpuKernels).is_some());
        assert!(same::<Autodiff<Flex>, Flex>(&cpu::CpuKernels).is_none());
    }
}
