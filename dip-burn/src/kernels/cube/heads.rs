//! Rows as heads and back. Shape legend: n sequences, s rows of one, h heads, d head width.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, empty, pointwise, tensor, vector_of};

/// Copies between `heads`, `[n, h, s, d]`, and as many rows `[n * s, h * d]` from row `start` of the other array.
#[cube(launch)]
fn heads_kernel<F: Float, N: Size>(
    from: &Array<Vector<F, N>>,
    to: &mut Array<Vector<F, N>>,
    start: u32,
    s: u32,
    h: u32,
    d: u32,
    #[comptime] split: bool,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= to.len() {
        terminate!();
    }
    let s = s as usize;
    let h = h as usize;
    let d = d as usize;
    let column = i % d;
    if split {
        let row = i / d % s;
        let head = i / (d * s) % h;
        let sequence = i / (d * s * h);
        to[i] = from[((start as usize + sequence * s + row) * h + head) * d + column];
    } else {
        let head = i / d % h;
        let row = i / (d * h) % s;
        let sequence = i / (d * h * s);
        to[i] = from[((sequence * h + head) * s + row) * d + column];
    }
}

fn copy<R: CubeRuntime>(
    [from, to]: [CubeTensor<R>; 2],
    start: usize,
    [s, h, d]: [usize; 3],
    split: bool,
) {
    let vector = vector_of(d, to.dtype);
    let (grid, cube) = pointwise(to.meta.num_elements(), vector);
    let (client, dtype) = (to.client.clone(), to.dtype.into());
    let (from, to) = (from.into_array_arg(), to.into_array_arg());
    let d = (d / vector) as u32;
    let (start, s, h) = (start as u32, s as u32, h as u32);
    heads_kernel::launch(&client, grid, cube, vector, from, to, start, s, h, d, split, dtype);
}

pub fn split_heads<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x: &Tensor<CubeBackend<R, f32, I, BT>, 2>,
    start: usize,
    [n, s, d]: [usize; 3],
) -> Tensor<CubeBackend<R, f32, I, BT>, 4> {
    let [_, width] = x.dims();
    let (x, h) = (array(x.clone()), width / d);
    if s == 1 && n * width == x.meta.num_elements() {
        return tensor::<R, I, BT, 2>(x).reshape([n, h, s, d]);
    }
    let heads = empty(&x, [n, h, s, d], x.dtype);
    copy([x, heads.clone()], start, [s, h, d], true);
    tensor(heads)
}

pub fn joined_heads<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x: Tensor<CubeBackend<R, f32, I, BT>, 4>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let [n, h, s, d] = x.dims();
    let x = array(x);
    let rows = empty(&x, [n * s, h * d], x.dtype);
    copy([x, rows.clone()], 0, [s, h, d], false);
    tensor(rows)
}
