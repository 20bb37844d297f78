//! Adaptive norms: rows are scaled, shifted and gated by the tables of the clips that they belong to.
//!
//! Shape legend: n clips, r their rows, m width, k parts of a table, a all values of a table.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};

use super::{cast, to_f32};
use crate::uploads::ints;

/// Which rows belong to which clip. Clips follow each other.
#[derive(Debug, Clone)]
pub(crate) struct ClipRows<B: Backend> {
    /// The clip of every row, then the first row of every clip and the row after the last.
    pub table: Tensor<B, 1, Int>,
    rows: usize,
    clips: usize,
}

/// The tables of the clips at one place of the model.
pub(crate) struct ClipTables<'a, B: Backend> {
    /// `[n, a]`
    pub steps_na: &'a Tensor<B, 2>,
    /// Added to the first parts of every clip, `[1, k * m]`.
    pub own_1k: &'a Tensor<B, 2>,
    pub clips: &'a ClipRows<B>,
}

/// The factor of a row: a part of the table, plus a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RowFactor {
    pub part: usize,
    pub base: f64,
}

/// What is added to a scaled row.
#[derive(Debug, Clone)]
pub(crate) enum Addend<B: Backend> {
    Nothing,
    /// A part of the table.
    Shift(usize),
    /// Rows `[r, m]`.
    Rows(Tensor<B, 2>),
}

impl<B: Backend> ClipRows<B> {
    /// Clips of `lengths` rows, none of them empty.
    pub fn new(lengths: &[usize], device: &B::Device) -> Self {
        let (rows, clips) = (lengths.iter().sum::<usize>(), lengths.len());
        let owners = lengths.iter().zip(0i32..).flat_map(|(&n, i)| std::iter::repeat_n(i, n));
        let mut table: Vec<i32> = owners.collect();
        let mut start = 0;
        table.push(0);
        table.extend(lengths.iter().map(|&length| {
            start += length as i32;
            start
        }));
        let length = table.len();
        Self { table: ints(table, [length], device), rows, clips }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> u64 {
        (self.table.dtype().size() * self.table.shape().num_elements()) as u64
    }

    /// Zeros and ones, `[r, n]`: products with them spread values of clips over rows, and sum rows by clip.
    fn members(&self, dtype: DType) -> Tensor<B, 2> {
        let owners = self.table.clone().narrow(0, 0, self.rows).reshape([self.rows, 1]);
        let clips = Tensor::<B, 1, Int>::arange(0..self.clips as i64, &owners.device());
        let clips = clips.reshape([1, self.clips]).repeat_dim(0, self.rows);
        let is_member = owners.repeat_dim(1, self.clips).equal(clips);
        let zeros = Tensor::zeros([self.rows, self.clips], (&self.table.device(), dtype));
        zeros.mask_fill(is_member, 1.0)
    }
}

impl<B: Backend> ClipTables<'_, B> {
    /// One part for every row, `[r, m]`, in f32.
    fn part(&self, part: usize, width: usize) -> Tensor<B, 2> {
        let of = |table: &Tensor<B, 2>| to_f32(table.clone().narrow(1, part * width, width));
        self.clips.members(DType::F32).matmul(of(self.steps_na) + of(self.own_1k))
    }
}

pub(super) fn modulated<B: Backend>(
    x_rm: Tensor<B, 2>,
    tables: &ClipTables<'_, B>,
    RowFactor { part, base }: RowFactor,
    addend: Addend<B>,
) -> Tensor<B, 2> {
    let (dtype, [_, width]) = (x_rm.dtype(), x_rm.dims());
    let y = to_f32(x_rm) * (tables.part(part, width) + base);
    let y = match addend {
        Addend::Nothing => y,
        Addend::Shift(part) => y + tables.part(part, width),
        Addend::Rows(rows) => y + to_f32(rows),
    };
    cast(y, dtype)
}

pub(super) fn table_gradients<B: Backend>(
    d_tables_na: Tensor<B, 2>,
    [x_rm, dy_rm]: [Tensor<B, 2>; 2],
    clips: &ClipRows<B>,
    factor: usize,
    shift: Option<usize>,
) -> Tensor<B, 2> {
    let ([n, _], [_, width], dtype) = (d_tables_na.dims(), x_rm.dims(), d_tables_na.dtype());
    let (x, dy) = (to_f32(x_rm), to_f32(dy_rm));
    let set = |d: Tensor<B, 2>, part: usize, x: Tensor<B, 2>| {
        let sums = cast(clips.members(DType::F32).transpose().matmul(x), dtype);
        d.slice_assign([0..n, part * width..(part + 1) * width], sums)
    };
    let d = set(d_tables_na, factor, x * dy.clone());
    match shift {
        Some(shift) => set(d, shift, dy),
        None => d,
    }
}
