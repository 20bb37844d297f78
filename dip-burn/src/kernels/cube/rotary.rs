//! Rotations of queries and keys by their positions: one unit a pair of values.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, empty_like, pointwise, tensor};
use crate::kernels::{RotaryPairs, RotaryTables};

#[cube(launch)]
fn rotated_kernel<F: Float>(
    x: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    y: &mut Array<F>,
    head_dim: u32,
    width: u32,
    of_table: u32,
    #[comptime] halves: bool,
    #[comptime] back: bool,
    #[define(F)] _dtype: StorageType,
) {
    let pair = ABSOLUTE_POS;
    if 2 * pair >= y.len() {
        terminate!();
    }
    let mut first = 2 * pair;
    let mut second = first + 1;
    if halves {
        let half = head_dim as usize / 2;
        first = pair / half * head_dim as usize + pair % half;
        second = first + half;
    }
    let row = first / width as usize;
    let at = (row * of_table as usize + first % of_table as usize) % cos.len();
    let mut s = sin[at];
    if back {
        s = 0.0f32 - s;
    }
    let c = cos[at];
    let a = f32::cast_from(x[first]);
    let b = f32::cast_from(x[second]);
    y[first] = F::cast_from(a * c - b * s);
    y[second] = F::cast_from(b * c + a * s);
}

pub fn rotated<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x_rm: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    tables: &RotaryTables<CubeBackend<R, f32, I, BT>>,
    back: bool,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let ([head_dim, _], [_, width]) = (tables.swap.dims(), x_rm.dims());
    let x = array(x_rm);
    let y = empty_like(&x);
    let (grid, cube) = pointwise(x.meta.num_elements() / 2, 1);
    let (client, dtype) = (x.client.clone(), x.dtype.into());
    rotated_kernel::launch(
        &client,
        grid,
        cube,
        x.into_array_arg(),
        array(tables.cos.clone()).into_array_arg(),
        array(tables.sin.clone()).into_array_arg(),
        y.clone().into_array_arg(),
        head_dim as u32,
        width as u32,
        (tables.heads * head_dim) as u32,
        tables.pairs == RotaryPairs::Halves,
        back,
        dtype,
    );
    tensor(y)
}
