//! Adaptive norms: shift, scale and gate of every clip by its diffusion step and caption, from one table for all layers and a
//! small one per layer.
//!
//! Shape legend: n clips, r their tokens, m width, k parts of a table.

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::model::cast;
use crate::model::gradients::{Gradients, bytes_of};

/// Shift, scale and gate of the attention; shift, scale and gate of the feed-forward network.
pub(super) const PARTS: usize = 6;

/// Standard deviation of the first values of a place's own table.
pub(super) fn modulation_std(is_wan: bool, width: usize) -> f64 {
    if is_wan { (1.0 / width as f64).sqrt() } else { 0.02 }
}

/// Which rows belong to which clip, as a matrix of zeros and ones `[r, n]`: products with it spread the values of clips over
/// their rows and sum rows by clip.
#[derive(Debug, Clone)]
pub(super) struct Members<B: Backend>(Tensor<B, 2>);

impl<B: Backend> Members<B> {
    pub fn bytes(&self) -> u64 {
        bytes_of(&self.0)
    }

    /// The matrix for clips of `lengths` rows, one after another.
    pub fn of(lengths: &[usize], device: &B::Device) -> Self {
        Self::weighted(lengths, |_| 1.0, device)
    }

    /// The same with one over the rows of a clip instead of ones: sums become means.
    pub fn means(lengths: &[usize], device: &B::Device) -> Self {
        Self::weighted(lengths, |rows| 1.0 / rows as f32, device)
    }

    fn weighted(lengths: &[usize], weight: fn(usize) -> f32, device: &B::Device) -> Self {
        let (rows, clips) = (lengths.iter().sum::<usize>(), lengths.len());
        let mut values = vec![0.0f32; rows * clips];
        let owners = lengths.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n));
        for (row, clip) in owners.enumerate() {
            values[row * clips + clip] = weight(lengths[clip]);
        }
        Self(Tensor::from_data(TensorData::new(values, [rows, clips]), device))
    }

    pub fn spread(&self, x_nm: Tensor<B, 2>) -> Tensor<B, 2> {
        cast(self.0.clone(), x_nm.dtype()).matmul(x_nm)
    }

    pub fn sum(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        cast(self.0.clone(), x_rm.dtype()).transpose().matmul(x_rm)
    }
}

/// The tables of the clips at one place of the model, `[n, k * m]`.
pub(super) struct Modulation<'a, B: Backend> {
    table: Tensor<B, 2>,
    members: &'a Members<B>,
    width: usize,
    /// Added to every gate.
    gate_base: f64,
}

impl<'a, B: Backend> Modulation<'a, B> {
    /// The tables `steps` of the clips plus the table `own` of this place, `[1, k * m]`, which may have fewer parts.
    pub fn new(
        steps: &Tensor<B, 2>,
        own: &Param<Tensor<B, 2>>,
        members: &'a Members<B>,
        width: usize,
    ) -> Self {
        let own = own.val();
        let table = steps.clone().narrow(1, 0, own.dims()[1]) + own;
        Self { table, members, width, gate_base: 1.0 }
    }

    /// The same with gates that are the values of the table.
    pub fn with_plain_gates(self) -> Self {
        Self { gate_base: 0.0, ..self }
    }

    /// One part for every row, `[r, m]`.
    fn part(&self, part: usize) -> Tensor<B, 2> {
        self.members.spread(self.table.clone().narrow(1, part * self.width, self.width))
    }

    /// `x (1 + scale) + shift`, with the shift in `part` and the scale in the part after it.
    pub fn scaled(&self, x_rm: Tensor<B, 2>, part: usize) -> Tensor<B, 2> {
        x_rm * (self.part(part + 1) + 1.0) + self.part(part)
    }

    /// `x (1 + gate)`, or `x gate` with plain gates. The first factor starts near one, because the projections before it start
    /// small.
    pub fn gated(&self, x_rm: Tensor<B, 2>, part: usize) -> Tensor<B, 2> {
        x_rm * (self.part(part) + self.gate_base)
    }

    /// The gradients of `x`, and of shift and scale, in [`Modulation::scaled`].
    pub fn scaled_backward(
        &self,
        x_rm: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        part: usize,
    ) -> (Tensor<B, 2>, [Tensor<B, 2>; 2]) {
        let d_parts = [self.members.sum(dy.clone()), self.members.sum(dy.clone() * x_rm)];
        (dy * (self.part(part + 1) + 1.0), d_parts)
    }

    /// The gradients of `x` and of the gate in [`Modulation::gated`].
    pub fn gated_backward(
        &self,
        x_rm: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        part: usize,
    ) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let d_gate = self.members.sum(dy.clone() * x_rm);
        (dy * (self.part(part) + self.gate_base), d_gate)
    }
}

/// The gradient of the tables of the clips, `[n, all]`, from the gradient of their first parts.
pub(super) fn widened<B: Backend>(first: Tensor<B, 2>, all: usize) -> Tensor<B, 2> {
    let [n, used] = first.dims();
    if used == all {
        return first;
    }
    let rest = Tensor::zeros([n, all - used], (&first.device(), first.dtype()));
    Tensor::cat(vec![first, rest], 1)
}

/// Adds the gradient of a place's own table: the sum of the gradients of its clips' tables.
pub(super) fn own_backward<B: Backend>(
    own: &Param<Tensor<B, 2>>,
    d_table: &Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) {
    let d_table = d_table.clone();
    gradients.add(own, move || d_table.sum_dim(0));
}
