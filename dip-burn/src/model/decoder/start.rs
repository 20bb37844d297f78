//! The start of the decoder: token embeddings, and the outputs of encoders in the places of their tokens.
//!
//! Shape legend: t tokens of the packed sequence, m width.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Tensor};

use super::indices;
use crate::kernels::kernels;
use crate::model::{Gradients, Slice, to_f32};

/// A table with one row for each token of the vocabulary.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    pub(in crate::model) weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    /// Token embeddings, with the outputs of encoders in the places of their tokens: `[t, m]`, or as wide as the widest output.
    pub(in crate::model) fn splice(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
    ) -> Tensor<B, 2> {
        let tokens = &on.microbatch.tokens[on.microbatch.text_rows(&on.instances)];
        let table = self.weight.val();
        let device = table.device();
        let length = tokens.len() as i32;
        let tokens = indices(tokens.iter().map(|&t| t as i32), &device);
        let text_tm = kernels().selected_rows(table, tokens);
        if inputs.is_empty() {
            return text_tm;
        }
        let widest = inputs.iter().map(|x| x.dims()[1]).max().unwrap_or(0);
        let rows = std::iter::once(text_tm).chain(inputs).map(|x| widened(x, widest)).collect();
        let mut source: Vec<i32> = (0..length).collect();
        for (i, place) in places(on).enumerate() {
            source[place] = length + i as i32;
        }
        kernels().selected_rows(kernels().joined_rows(rows), indices(source.into_iter(), &device))
    }

    /// The gradients of the inputs, which have these shapes; adds the gradient of the table.
    pub(in crate::model) fn splice_backward(
        &self,
        inputs: &[InputShape],
        dx_tm: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let device = dx_tm.device();
        let tokens = &on.microbatch.tokens[on.microbatch.text_rows(&on.instances)];
        let places: Vec<usize> = places(on).collect();
        let mut is_text = vec![true; tokens.len()];
        places.iter().for_each(|&place| is_text[place] = false);
        let rows: Vec<usize> = (0..is_text.len()).filter(|&i| is_text[i]).collect();
        if !rows.is_empty() {
            let tokens = indices(rows.iter().map(|&i| tokens[i] as i32), &device);
            let rows = indices(rows.iter().map(|&i| i as i32), &device);
            let (values, table) = (dx_tm.clone(), self.weight.val());
            gradients.add(&self.weight, move || {
                let width = table.dims()[1];
                let values = to_f32(kernels().selected_rows(narrowed(values, width), rows));
                let zeros = Tensor::zeros(table.dims(), (&table.device(), DType::F32));
                zeros.select_assign(0, tokens, values, IndexingUpdateOp::Add)
            });
        }
        let mut places = places.into_iter().map(|place| place as i32);
        let of_input = |input: &InputShape| {
            let rows = indices(places.by_ref().take(input.rows), &device);
            kernels().selected_rows(narrowed(dx_tm.clone(), input.width), rows)
        };
        inputs.iter().map(of_input).collect()
    }
}

/// The shape of an input of a decoder.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct InputShape {
    rows: usize,
    width: usize,
}

impl InputShape {
    pub fn of<B: Backend>(x: &Tensor<B, 2>) -> Self {
        let [rows, width] = x.dims();
        Self { rows, width }
    }
}

/// `x` with columns of zeros up to `width`.
fn widened<B: Backend>(x: Tensor<B, 2>, width: usize) -> Tensor<B, 2> {
    let [rows, own] = x.dims();
    if own == width {
        return x;
    }
    let zeros = Tensor::zeros([rows, width - own], (&x.device(), x.dtype()));
    Tensor::cat(vec![x, zeros], 1)
}

/// The first `width` columns of `x`.
fn narrowed<B: Backend>(x: Tensor<B, 2>, width: usize) -> Tensor<B, 2> {
    if x.dims()[1] == width { x } else { x.narrow(1, 0, width) }
}

/// The place in the sequence of every row of the inputs, input by input.
fn places(on: &Slice<'_>) -> impl Iterator<Item = usize> {
    let ranges = on.inputs.iter().flat_map(|input| input.places.iter().cloned());
    ranges.flatten().map(|place| place as usize)
}
