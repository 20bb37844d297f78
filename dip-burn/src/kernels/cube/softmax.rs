//! Softmax over the last dimension: one cube a row. Shape legend: n sequences, h heads, s queries, t keys.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, cube, empty_like, grid, tensor, units_of_row};
use super::reduce::{most_of_cube, sum_of_cube};

/// Below every score.
const LOWEST: f32 = -3.0e38;

#[cube(launch)]
fn softmax_kernel<F: Float>(
    scores: &Array<F>,
    mask: &Array<f32>,
    weights: &mut Array<F>,
    width: u32,
    #[comptime] masked: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let width = width as usize;
    let start = CUBE_POS * width;
    if start >= weights.len() {
        terminate!();
    }
    let mut of_mask = 0usize;
    if masked {
        of_mask = start % mask.len();
    }
    let mut most = f32::new(LOWEST);
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut score = f32::cast_from(scores[start + i]);
        if masked {
            score += mask[of_mask + i];
        }
        most = max(most, score);
        i += units;
    }
    let most = most_of_cube(most, units);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut score = f32::cast_from(scores[start + i]);
        if masked {
            score += mask[of_mask + i];
        }
        sum += (score - most).exp();
        i += units;
    }
    let share = 1.0f32 / sum_of_cube(sum, units);
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut score = f32::cast_from(scores[start + i]);
        if masked {
            score += mask[of_mask + i];
        }
        weights[start + i] = F::cast_from((score - most).exp() * share);
        i += units;
    }
}

#[cube(launch)]
fn backward_kernel<F: Float>(
    weights: &Array<F>,
    d_weights: &Array<F>,
    d_scores: &mut Array<F>,
    width: u32,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let width = width as usize;
    let start = CUBE_POS * width;
    if start >= d_scores.len() {
        terminate!();
    }
    let mut along = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        along += f32::cast_from(weights[start + i]) * f32::cast_from(d_weights[start + i]);
        i += units;
    }
    let along = sum_of_cube(along, units);
    let mut i = UNIT_POS as usize;
    while i < width {
        let d = f32::cast_from(d_weights[start + i]) - along;
        d_scores[start + i] = F::cast_from(d * f32::cast_from(weights[start + i]));
        i += units;
    }
}

pub fn softmax<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    scores: Tensor<CubeBackend<R, f32, I, BT>, 4>,
    mask: Option<&Tensor<CubeBackend<R, f32, I, BT>, 4>>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 4> {
    let [n, h, s, t] = scores.dims();
    let scores = array(scores);
    let masked = mask.is_some();
    let mask = mask.map_or_else(|| scores.clone(), |mask| array(mask.clone()));
    let weights = empty_like(&scores);
    let units = units_of_row(t);
    let (client, dtype) = (scores.client.clone(), scores.dtype.into());
    softmax_kernel::launch(
        &client,
        grid(n * h * s),
        cube(units),
        scores.into_array_arg(),
        mask.into_array_arg(),
        weights.clone().into_array_arg(),
        t as u32,
        masked,
        units,
        dtype,
    );
    tensor(weights)
}

pub fn softmax_backward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    weights: Tensor<CubeBackend<R, f32, I, BT>, 4>,
    d_weights: Tensor<CubeBackend<R, f32, I, BT>, 4>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 4> {
    let [n, h, s, t] = weights.dims();
    let (weights, d_weights) = (array(weights), array(d_weights));
    let d_scores = empty_like(&d_weights);
    let units = units_of_row(t);
    let (client, dtype) = (weights.client.clone(), weights.dtype.into());
    backward_kernel::launch(
        &client,
        grid(n * h * s),
        cube(units),
        weights.into_array_arg(),
        d_weights.into_array_arg(),
        d_scores.clone().into_array_arg(),
        t as u32,
        units,
        dtype,
    );
    tensor(d_scores)
}
