//! Inputs, outputs and grids of a launch.

use burn::tensor::{DType, Shape, Tensor, TensorPrimitive};
use burn_cubecl::cubecl::CubeCount;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

/// Most units of a cube that sums a row.
const MOST_UNITS: usize = 256;
/// Units of a cube of values that do not depend on each other.
const POINTWISE_UNITS: usize = 256;
/// Most cubes along one axis of a grid, on all devices.
const MOST_CUBES: usize = 65_535;
/// Most tensors of one kind in a launch.
const MOST_TENSORS: usize = 16;
/// Most values that a unit reads at once.
const MOST_VALUES: usize = 8;

/// The primitive of a tensor, contiguous.
pub fn array<R: CubeRuntime, I: IntElement, BT: BoolElement, const D: usize>(
    x: Tensor<CubeBackend<R, f32, I, BT>, D>,
) -> CubeTensor<R> {
    into_contiguous(primitive(x))
}

/// The primitive of a tensor, with its strides.
pub fn primitive<R: CubeRuntime, I: IntElement, BT: BoolElement, const D: usize>(
    x: Tensor<CubeBackend<R, f32, I, BT>, D>,
) -> CubeTensor<R> {
    x.into_primitive().tensor()
}

/// A tensor of a primitive.
pub fn tensor<R: CubeRuntime, I: IntElement, BT: BoolElement, const D: usize>(
    x: CubeTensor<R>,
) -> Tensor<CubeBackend<R, f32, I, BT>, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// New memory on the device of `like`.
pub fn empty<R: CubeRuntime>(
    like: &CubeTensor<R>,
    shape: impl Into<Shape>,
    dtype: DType,
) -> CubeTensor<R> {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), dtype)
}

/// New memory of the shape and type of `like`.
pub fn empty_like<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    empty(like, like.meta.shape().clone(), like.dtype)
}

/// Units of a cube that reads a row of `width` values together: a power of two.
pub fn units_of_row(width: usize) -> usize {
    width.div_ceil(2).next_power_of_two().clamp(32, MOST_UNITS)
}

/// A grid of at least `cubes` cubes. Kernels leave out the cubes beyond.
pub fn grid(cubes: usize) -> CubeCount {
    let x = cubes.clamp(1, MOST_CUBES);
    CubeCount::Static(x as u32, cubes.div_ceil(x).max(1) as u32, 1)
}

/// A cube of `units` units.
pub fn cube(units: usize) -> CubeDim {
    CubeDim::new_1d(units as u32)
}

/// Grid and cube for `count` values, `of_unit` a unit.
pub fn pointwise(count: usize, of_unit: usize) -> (CubeCount, CubeDim) {
    (grid(count.div_ceil(POINTWISE_UNITS * of_unit)), cube(POINTWISE_UNITS))
}

/// How many tensors of `arrays` arrays each a launch can have: the device limits all arrays, of which one has the lengths and one more is
/// left for a result. A power of two, so that few kernels are compiled.
pub fn arrays_of_launch<R: CubeRuntime>(x: &CubeTensor<R>, arrays: usize) -> usize {
    let most = x.client.properties().hardware.max_bindings as usize;
    let fitting = (most.saturating_sub(2) / arrays).clamp(1, MOST_TENSORS);
    1 << fitting.ilog2()
}

/// Values that a unit reads at once: a divisor of `count`, 16 bytes at most.
pub fn vector_of(count: usize, dtype: DType) -> usize {
    let most = (16 / dtype.size()).min(MOST_VALUES);
    (0..).map(|halvings| most >> halvings).find(|&n| n <= 1 || count.is_multiple_of(n)).unwrap_or(1)
}

/// `x` in memory that nobody else reads.
pub fn own<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    if x.can_mut() { x } else { x.copy() }
}
