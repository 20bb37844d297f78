//! Sums over rows: a cube sums some columns of a part of the rows. Shape legend: r rows, m width.

use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, empty, tensor};

/// Columns of a cube.
const COLUMNS: usize = 32;
/// Rows that a cube reads at the same time: a power of two.
const LANES: usize = 8;
/// Rows that a cube sums at least, unless there are fewer.
const ROWS_OF_PART: usize = 512;
/// Most parts of the rows.
const MOST_PARTS: usize = 32;

#[cube(launch)]
fn sums_kernel<F: Float>(
    x: &Array<F>,
    y: &Array<F>,
    sums: &mut Array<f32>,
    rows: u32,
    width: u32,
    rows_of_part: u32,
    #[comptime] product: bool,
    #[define(F)] _dtype: StorageType,
) {
    let mut shared = SharedMemory::<f32>::new(256usize);
    let width = width as usize;
    let column = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X) as usize;
    let lane = UNIT_POS_Y as usize;
    let lanes = CUBE_DIM_Y as usize;
    let first = (CUBE_POS_Y * rows_of_part) as usize;
    let last = min(first + rows_of_part as usize, rows as usize);
    let mut sum = 0.0f32;
    if column < width {
        let mut row = first + lane;
        while row < last {
            let mut value = f32::cast_from(x[row * width + column]);
            if product {
                value *= f32::cast_from(y[row * width + column]);
            }
            sum += value;
            row += lanes;
        }
    }
    let unit = UNIT_POS as usize;
    let across = CUBE_DIM_X as usize;
    shared[unit] = sum;
    sync_cube();
    let mut half = lanes / 2;
    while half > 0 {
        if lane < half {
            shared[unit] = shared[unit] + shared[unit + half * across];
        }
        sync_cube();
        half /= 2;
    }
    if lane == 0 && column < width {
        sums[CUBE_POS_Y as usize * width + column] = shared[unit];
    }
}

/// The sums of the rows, in parts `[p, m]`.
fn parts<R: CubeRuntime>(
    x: CubeTensor<R>,
    y: Option<CubeTensor<R>>,
    [rows, width]: [usize; 2],
) -> CubeTensor<R> {
    let parts = rows.div_ceil(ROWS_OF_PART).min(MOST_PARTS);
    let rows_of_part = rows.div_ceil(parts);
    let parts = rows.div_ceil(rows_of_part);
    let sums = empty(&x, [parts, width], DType::F32);
    let (client, dtype) = (x.client.clone(), x.dtype.into());
    let product = y.is_some();
    sums_kernel::launch(
        &client,
        CubeCount::Static(width.div_ceil(COLUMNS) as u32, parts as u32, 1),
        CubeDim::new_2d(COLUMNS as u32, LANES as u32),
        x.clone().into_array_arg(),
        y.unwrap_or(x).into_array_arg(),
        sums.clone().into_array_arg(),
        rows as u32,
        width as u32,
        rows_of_part as u32,
        product,
        dtype,
    );
    sums
}

fn sums<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x: CubeTensor<R>,
    y: Option<CubeTensor<R>>,
    [rows, width]: [usize; 2],
) -> Tensor<CubeBackend<R, f32, I, BT>, 1> {
    let mut sums = parts(x, y, [rows, width]);
    while sums.meta.shape()[0] > 1 {
        let rows = sums.meta.shape()[0];
        sums = parts(sums, None, [rows, width]);
    }
    let sums: Tensor<CubeBackend<R, f32, I, BT>, 2> = tensor(sums);
    sums.reshape([width])
}

pub fn row_sums<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 1> {
    let shape = x_rm.dims();
    sums(array(x_rm), None, shape)
}

pub fn product_sums<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    y_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 1> {
    let shape = x_rm.dims();
    sums(array(x_rm), Some(array(y_rm)), shape)
}
