//! Adaptive norms: shift, scale and gate of every clip by its diffusion step and caption, from one table for all layers and a
//! small one per layer.
//!
//! Shape legend: n clips, r their tokens, m width, k values of a place's table, a values of a clip's table.

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::kernels::{Addend, ClipTables, RowFactor, kernels};
use crate::model::cast;
use crate::model::gradients::Gradients;
use crate::uploads::floats;

/// Shift, scale and gate of the attention; shift, scale and gate of the feed-forward network.
pub(super) const PARTS: usize = 6;

/// Standard deviation of the first values of a place's own table.
pub(super) fn modulation_std(is_wan: bool, width: usize) -> f64 {
    if is_wan { (1.0 / width as f64).sqrt() } else { 0.02 }
}

/// The matrix that takes the mean of the rows of each clip, `[r, n]`: products with its transpose take means, products with it spread
/// their gradients.
#[derive(Debug, Clone)]
pub(super) struct RowMeans<B: Backend>(Tensor<B, 2>);

impl<B: Backend> RowMeans<B> {
    /// The matrix for clips of `lengths` rows, one after another.
    pub fn of(lengths: &[usize], device: &B::Device) -> Self {
        let (rows, clips) = (lengths.iter().sum::<usize>(), lengths.len());
        let mut values = vec![0.0f32; rows * clips];
        let owners = lengths.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n));
        for (row, clip) in owners.enumerate() {
            values[row * clips + clip] = 1.0 / lengths[clip] as f32;
        }
        Self(floats(values, [rows, clips], device))
    }

    /// The means, `[n, m]`.
    pub fn of_rows(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        kernels().product(cast(self.0.clone(), x_rm.dtype()).transpose(), x_rm, None)
    }

    /// The gradient of the rows from that of the means.
    pub fn backward(&self, d_nm: Tensor<B, 2>) -> Tensor<B, 2> {
        kernels().product(cast(self.0.clone(), d_nm.dtype()), d_nm, None)
    }
}

/// Shift, scale and gates at one place of the model.
pub(super) struct Modulation<'a, B: Backend> {
    tables: ClipTables<'a, B>,
    /// Added to every gate.
    gate_base: f64,
}

impl<'a, B: Backend> Modulation<'a, B> {
    /// Modulation by these tables. The factor of a gate starts near one, because the projections before it start small.
    pub fn new(tables: ClipTables<'a, B>) -> Self {
        Self { tables, gate_base: 1.0 }
    }

    /// The same with gates that are the values of the table.
    pub fn with_plain_gates(self) -> Self {
        Self { gate_base: 0.0, ..self }
    }

    /// `x (1 + scale) + shift`, with the shift in `part` and the scale in the part after it.
    pub fn scaled(&self, x_rm: Tensor<B, 2>, part: usize) -> Tensor<B, 2> {
        kernels().modulated(x_rm, &self.tables, scale(part), Addend::Shift(part))
    }

    /// `rows + x (1 + gate)`, or `rows + x gate` with plain gates.
    pub fn gated(&self, rows: Tensor<B, 2>, x_rm: Tensor<B, 2>, part: usize) -> Tensor<B, 2> {
        kernels().modulated(x_rm, &self.tables, self.gate(part), Addend::Rows(rows))
    }

    /// The gradient of `x` in [`Modulation::scaled`]; puts those of shift and scale into `d_tables_na`.
    pub fn scaled_backward(
        &self,
        x_rm: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        part: usize,
        d_tables_na: Tensor<B, 2>,
    ) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let pair = [x_rm, dy.clone()];
        let clips = self.tables.clips;
        let d = kernels().table_gradients(d_tables_na, pair, clips, part + 1, Some(part));
        (kernels().modulated(dy, &self.tables, scale(part), Addend::Nothing), d)
    }

    /// The gradient of `x` in [`Modulation::gated`]; puts that of the gate into `d_tables_na`.
    pub fn gated_backward(
        &self,
        x_rm: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        part: usize,
        d_tables_na: Tensor<B, 2>,
    ) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let pair = [x_rm, dy.clone()];
        let d = kernels().table_gradients(d_tables_na, pair, self.tables.clips, part, None);
        (kernels().modulated(dy, &self.tables, self.gate(part), Addend::Nothing), d)
    }

    fn gate(&self, part: usize) -> RowFactor {
        RowFactor { part, base: self.gate_base }
    }
}

fn scale(part: usize) -> RowFactor {
    RowFactor { part: part + 1, base: 1.0 }
}

/// Adds the gradient of a place's own table, `[1, k]`: the sum of the gradients of its clips' tables, `[n, a]`, whose first values are
/// those of the place.
pub(super) fn own_backward<B: Backend>(
    own: &Param<Tensor<B, 2>>,
    d_tables_na: &Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) {
    let ([_, k], d) = (own.dims(), d_tables_na.clone());
    gradients.add(own, move || {
        let d = kernels().row_sums(d);
        let [all] = d.dims();
        let own = if all == k { d } else { d.narrow(0, 0, k) };
        own.reshape([1, k])
    });
}
