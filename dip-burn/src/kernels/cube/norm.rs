//! Norms: one cube a row. Shape legend: r rows, m width.

use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, cube, empty, empty_like, grid, pointwise, tensor, units_of_row};
use super::reduce::sum_of_cube;

#[cube(launch)]
fn standardised_kernel<F: Float>(
    x: &Array<F>,
    unit: &mut Array<F>,
    scale: &mut Array<f32>,
    width: u32,
    epsilon: f32,
    #[comptime] centred: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= scale.len() {
        terminate!();
    }
    let width = width as usize;
    let start = row * width;
    let share = 1.0f32 / f32::cast_from(width as u32);
    let mut mean = 0.0f32;
    if centred {
        let mut sum = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < width {
            sum += f32::cast_from(x[start + i]);
            i += units;
        }
        mean = sum_of_cube(sum, units) * share;
    }
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let d = f32::cast_from(x[start + i]) - mean;
        sum += d * d;
        i += units;
    }
    let variance = sum_of_cube(sum, units) * share;
    let factor = 1.0f32 / (variance + epsilon).sqrt();
    let mut i = UNIT_POS as usize;
    while i < width {
        unit[start + i] = F::cast_from((f32::cast_from(x[start + i]) - mean) * factor);
        i += units;
    }
    if UNIT_POS == 0 {
        scale[row] = factor;
    }
}

#[cube(launch)]
fn affine_kernel<F: Float>(
    unit: &Array<F>,
    gamma: &Array<F>,
    beta: &Array<F>,
    y: &mut Array<F>,
    #[comptime] shifted: bool,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= y.len() {
        terminate!();
    }
    let column = i % gamma.len();
    let mut value = f32::cast_from(unit[i]) * f32::cast_from(gamma[column]);
    if shifted {
        value += f32::cast_from(beta[column]);
    }
    y[i] = F::cast_from(value);
}

#[cube(launch)]
fn backward_kernel<F: Float>(
    unit: &Array<F>,
    scale: &Array<f32>,
    gamma: &Array<F>,
    dy: &Array<F>,
    dx: &mut Array<F>,
    width: u32,
    #[comptime] weighted: bool,
    #[comptime] centred: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= scale.len() {
        terminate!();
    }
    let width = width as usize;
    let start = row * width;
    let share = 1.0f32 / f32::cast_from(width as u32);
    let mut sum = 0.0f32;
    let mut along = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut d = f32::cast_from(dy[start + i]);
        if weighted {
            d *= f32::cast_from(gamma[i]);
        }
        sum += d;
        along += d * f32::cast_from(unit[start + i]);
        i += units;
    }
    let along = sum_of_cube(along, units) * share;
    let mut mean = 0.0f32;
    if centred {
        mean = sum_of_cube(sum, units) * share;
    }
    let factor = scale[row];
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut d = f32::cast_from(dy[start + i]);
        if weighted {
            d *= f32::cast_from(gamma[i]);
        }
        let u = f32::cast_from(unit[start + i]);
        dx[start + i] = F::cast_from((d - mean - u * along) * factor);
        i += units;
    }
}

pub fn standardised<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    centred: bool,
    epsilon: f64,
) -> [Tensor<CubeBackend<R, f32, I, BT>, 2>; 2] {
    let [rows, width] = x_rm.dims();
    let x = array(x_rm);
    let (unit, scale) = (empty_like(&x), empty(&x, [rows, 1], DType::F32));
    let units = units_of_row(width);
    let (client, dtype) = (x.client.clone(), x.dtype.into());
    standardised_kernel::launch(
        &client,
        grid(rows),
        cube(units),
        x.into_array_arg(),
        unit.clone().into_array_arg(),
        scale.clone().into_array_arg(),
        width as u32,
        epsilon as f32,
        centred,
        units,
        dtype,
    );
    [tensor(unit), tensor(scale)]
}

pub fn affine<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    unit_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    gamma: Tensor<CubeBackend<R, f32, I, BT>, 1>,
    beta: Option<Tensor<CubeBackend<R, f32, I, BT>, 1>>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let (unit, gamma, beta) = (array(unit_rm), array(gamma), beta.map(array));
    let y = empty_like(&unit);
    let (grid, cube) = pointwise(y.meta.num_elements(), 1);
    let (client, dtype) = (unit.client.clone(), unit.dtype.into());
    let shifted = beta.is_some();
    affine_kernel::launch(
        &client,
        grid,
        cube,
        unit.into_array_arg(),
        gamma.clone().into_array_arg(),
        beta.unwrap_or(gamma).into_array_arg(),
        y.clone().into_array_arg(),
        shifted,
        dtype,
    );
    tensor(y)
}

pub fn standardised_backward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    [unit_rm, scale]: [Tensor<CubeBackend<R, f32, I, BT>, 2>; 2],
    gamma: Option<Tensor<CubeBackend<R, f32, I, BT>, 1>>,
    dy_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    centred: bool,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let [rows, width] = unit_rm.dims();
    let (unit, scale, dy): (CubeTensor<R>, _, _) = (array(unit_rm), array(scale), array(dy_rm));
    let gamma = gamma.map(array);
    let weighted = gamma.is_some();
    let dx = empty_like(&dy);
    let units = units_of_row(width);
    let (client, dtype) = (unit.client.clone(), unit.dtype.into());
    backward_kernel::launch(
        &client,
        grid(rows),
        cube(units),
        unit.clone().into_array_arg(),
        scale.into_array_arg(),
        gamma.unwrap_or(unit).into_array_arg(),
        dy.into_array_arg(),
        dx.clone().into_array_arg(),
        width as u32,
        weighted,
        centred,
        units,
        dtype,
    );
    tensor(dx)
}
