//! Cross-entropy of the softmax of logits: one cube a row. Shape legend: r rows, v vocabulary.

use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, cube, empty, empty_like, grid, pointwise, tensor, units_of_row};
use super::reduce::{most_of_cube, sum_of_cube};
use crate::kernels::{CrossEntropyGiven, CrossEntropyKept};

/// Below every logit.
const LOWEST: f32 = -3.0e38;

#[cube(launch)]
fn forward_kernel<F: Float>(
    logits: &Array<F>,
    targets: &Array<i32>,
    losses: &mut Array<f32>,
    log_z: &mut Array<f32>,
    width: u32,
    first: u32,
    z_loss: f32,
    #[comptime] part: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= losses.len() {
        terminate!();
    }
    let width = width as usize;
    let start = row * width;
    let mut most = f32::new(LOWEST);
    let mut i = UNIT_POS as usize;
    while i < width {
        most = max(most, f32::cast_from(logits[start + i]));
        i += units;
    }
    let most = most_of_cube(most, units);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        sum += (f32::cast_from(logits[start + i]) - most).exp();
        i += units;
    }
    let z = most + sum_of_cube(sum, units).ln();
    if UNIT_POS == 0 {
        log_z[row] = z;
        let target = targets[row] - first as i32;
        let mut logit = 0.0f32;
        if target >= 0 && target < width as i32 {
            logit = f32::cast_from(logits[start + target as usize]);
        }
        if part {
            losses[row] = logit;
        } else {
            losses[row] = z - logit + z_loss * z * z;
        }
    }
}

#[cube(launch)]
fn backward_kernel<F: Float>(
    logits: &Array<F>,
    targets: &Array<i32>,
    log_z: &Array<f32>,
    factor: &Array<f32>,
    d_logits: &mut Array<F>,
    width: u32,
    first: u32,
    z_loss: f32,
    weight: f32,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= d_logits.len() {
        terminate!();
    }
    let width = width as usize;
    let row = i / width;
    let z = log_z[row];
    let mut d = (f32::cast_from(logits[i]) - z).exp() * (1.0f32 + 2.0f32 * z_loss * z);
    if targets[row] as usize == first as usize + i - row * width {
        d -= 1.0f32;
    }
    d_logits[i] = F::cast_from(d * factor[0] * weight);
}

type Matrix<R, I, BT> = Tensor<CubeBackend<R, f32, I, BT>, 2>;

/// Losses, or the logits of the targets in a part from column `first` on, and the logarithms of the sums of the exponentials.
fn sums<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    logits: &CubeTensor<R>,
    targets: &Tensor<CubeBackend<R, f32, I, BT>, 2, Int>,
    first: Option<usize>,
    z_loss: f64,
) -> [CubeTensor<R>; 2] {
    let [rows, width] = [0, 1].map(|axis| logits.meta.shape()[axis]);
    let [losses, log_z] = [(); 2].map(|()| empty(logits, [rows, 1], DType::F32));
    let units = units_of_row(width);
    forward_kernel::launch(
        &losses.client,
        grid(rows),
        cube(units),
        logits.clone().into_array_arg(),
        targets.clone().into_primitive().into_array_arg(),
        losses.clone().into_array_arg(),
        log_z.clone().into_array_arg(),
        width as u32,
        first.unwrap_or(0) as u32,
        z_loss as f32,
        first.is_some(),
        units,
        logits.dtype.into(),
    );
    [losses, log_z]
}

pub fn forward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    logits_rv: Matrix<R, I, BT>,
    targets: &Tensor<CubeBackend<R, f32, I, BT>, 2, Int>,
    z_loss: f64,
) -> (Matrix<R, I, BT>, CrossEntropyKept<CubeBackend<R, f32, I, BT>>) {
    let logits = array(logits_rv);
    let [losses, log_z] = sums(&logits, targets, None, z_loss);
    let kept = CrossEntropyKept { values_rv: tensor(logits), log_z_r1: Some(tensor(log_z)) };
    (tensor(losses), kept)
}

pub fn logit_sums<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    logits_rc: Matrix<R, I, BT>,
    targets: &Tensor<CubeBackend<R, f32, I, BT>, 2, Int>,
    first: usize,
) -> [Matrix<R, I, BT>; 2] {
    let [of_targets, sums] = sums(&array(logits_rc), targets, Some(first), 0.0);
    [tensor(sums), tensor(of_targets)]
}

pub fn backward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    kept: CrossEntropyKept<CubeBackend<R, f32, I, BT>>,
    given: CrossEntropyGiven<CubeBackend<R, f32, I, BT>>,
) -> Matrix<R, I, BT> {
    let log_z = kept.log_z_r1.expect("the forward keeps it");
    logit_gradients(kept.values_rv, &log_z, &given, 0)
}

pub fn logit_gradients<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    logits_rc: Matrix<R, I, BT>,
    log_z_r1: &Matrix<R, I, BT>,
    given: &CrossEntropyGiven<CubeBackend<R, f32, I, BT>>,
    first: usize,
) -> Matrix<R, I, BT> {
    let CrossEntropyGiven { targets_r1, dy, weight, z_loss, .. } = given;
    let [_, width] = logits_rc.dims();
    let logits = array(logits_rc);
    let d_logits = empty_like(&logits);
    let (grid, cube) = pointwise(logits.meta.num_elements(), 1);
    backward_kernel::launch(
        &d_logits.client,
        grid,
        cube,
        logits.into_array_arg(),
        targets_r1.clone().into_primitive().into_array_arg(),
        array(log_z_r1.clone()).into_array_arg(),
        array(dy.clone()).into_array_arg(),
        d_logits.clone().into_array_arg(),
        width as u32,
        first as u32,
        *z_loss as f32,
        *weight as f32,
        d_logits.dtype.into(),
    );
    tensor(d_logits)
}
