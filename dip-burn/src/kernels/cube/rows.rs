//! Rows gathered from one array, and from several one after another.

use burn::tensor::{Int, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{
    array, arrays_of_launch, empty, grid, pointwise, primitive, tensor, vector_of,
};

/// Units of a cube.
const UNITS: usize = 256;
/// Values of a cube that copies.
const VALUES: usize = 2048;

#[cube(launch)]
fn selected_kernel<F: Numeric, N: Size>(
    x: &Array<Vector<F, N>>,
    rows: &Array<i32>,
    y: &mut Array<Vector<F, N>>,
    width: u32,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= y.len() {
        terminate!();
    }
    let width = width as usize;
    y[i] = x[rows[i / width] as usize * width + i % width];
}

#[cube(launch)]
fn joined_kernel<F: Numeric, N: Size>(
    parts: &Sequence<Array<Vector<F, N>>>,
    y: &mut Array<Vector<F, N>>,
    start: u32,
    #[comptime] units: usize,
    #[comptime] values: usize,
    #[define(F)] _dtype: StorageType,
) {
    let mut cubes = 0usize;
    let mut before = start as usize;
    #[unroll]
    for k in 0..parts.len() {
        let length = parts.index(k).len();
        let of_part = length.div_ceil(values);
        if CUBE_POS >= cubes && CUBE_POS < cubes + of_part {
            let first = (CUBE_POS - cubes) * values;
            let end = min(first + values, length);
            let mut i = first + UNIT_POS as usize;
            while i < end {
                y[before + i] = parts.index(k)[i];
                i += units;
            }
        }
        cubes += of_part;
        before += length;
    }
}

type Matrix<R, I, BT> = Tensor<CubeBackend<R, f32, I, BT>, 2>;

pub fn selected<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x_rm: Matrix<R, I, BT>,
    rows: Tensor<CubeBackend<R, f32, I, BT>, 1, Int>,
) -> Matrix<R, I, BT> {
    let ([_, width], [count]) = (x_rm.dims(), rows.dims());
    let x = primitive(x_rm);
    if !x.is_contiguous() {
        // A copy of a whole table would cost more than the shapes that Burn uploads.
        return tensor::<R, I, BT, 2>(x).select(0, rows);
    }
    let y = empty(&x, [count, width], x.dtype);
    let vector = vector_of(width, x.dtype);
    let (grid, cube) = pointwise(count * width, vector);
    let (client, dtype) = (x.client.clone(), x.dtype.into());
    selected_kernel::launch(
        &client,
        grid,
        cube,
        vector,
        x.into_array_arg(),
        rows.into_primitive().into_array_arg(),
        y.clone().into_array_arg(),
        (width / vector) as u32,
        dtype,
    );
    tensor(y)
}

pub fn joined<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    parts: Vec<Matrix<R, I, BT>>,
) -> Matrix<R, I, BT> {
    let [_, width] = parts[0].dims();
    let rows = parts.iter().map(|part| part.dims()[0]).sum::<usize>();
    let mut left: Vec<CubeTensor<R>> = parts.into_iter().map(array).collect();
    let y = empty(&left[0], [rows, width], left[0].dtype);
    let (vector, dtype) = (vector_of(width, y.dtype), y.dtype);
    let most = arrays_of_launch(&y, 1);
    let mut start = 0;
    while !left.is_empty() {
        let rest = left.split_off(most.min(1 << left.len().ilog2()));
        let lengths = left.iter().map(|part| part.meta.num_elements() / vector);
        let (copied, cubes) = lengths.fold((0, 0), |(values, cubes), length| {
            (values + length, cubes + length.div_ceil(VALUES))
        });
        joined_kernel::launch(
            &y.client,
            grid(cubes),
            CubeDim::new_1d(UNITS as u32),
            vector,
            left.into_iter().map(CubeTensor::into_array_arg).collect(),
            y.clone().into_array_arg(),
            start as u32,
            UNITS,
            VALUES,
            dtype.into(),
        );
        start += copied;
        left = rest;
    }
    tensor(y)
}
