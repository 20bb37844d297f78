//! Matrix products, whose results are contiguous: CubeCL pads the rows of its own, and every kernel that takes arrays would copy them.

use burn::tensor::{Shape, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, empty, pointwise, primitive, tensor, vector_of};

#[cube(launch)]
fn bias_kernel<F: Float, N: Size>(
    y: &mut Array<Vector<F, N>>,
    bias: &Array<Vector<F, N>>,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= y.len() {
        terminate!();
    }
    let sum = Vector::<f32, N>::cast_from(y[i]) + Vector::<f32, N>::cast_from(bias[i % bias.len()]);
    y[i] = Vector::cast_from(sum);
}

fn contiguous_product<R: CubeRuntime>(
    x: CubeTensor<R>,
    y: CubeTensor<R>,
    shape: impl Into<Shape>,
) -> CubeTensor<R> {
    let dtype = x.dtype;
    let result = empty(&x, shape, dtype);
    matmul(x, y, Some(result), MatmulStrategy::default(), dtype)
        .expect("a product of matching matrices has a kernel")
}

pub fn product<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    w: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    bias: Option<Tensor<CubeBackend<R, f32, I, BT>, 1>>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let ([rows, _], [_, width]) = (x.dims(), w.dims());
    let y = contiguous_product(primitive(x), primitive(w), [rows, width]);
    if let Some(bias) = bias {
        let (bias, dtype) = (array(bias), y.dtype);
        let vector = vector_of(width, dtype);
        let (grid, cube) = pointwise(rows * width, vector);
        let (result, bias) = (y.clone().into_array_arg(), bias.into_array_arg());
        bias_kernel::launch(&y.client, grid, cube, vector, result, bias, dtype.into());
    }
    tensor(y)
}

pub fn products<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x: Tensor<CubeBackend<R, f32, I, BT>, 4>,
    y: Tensor<CubeBackend<R, f32, I, BT>, 4>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 4> {
    let ([n, h, rows, _], [_, _, _, width]) = (x.dims(), y.dims());
    tensor(contiguous_product(primitive(x), primitive(y), [n, h, rows, width]))
}
