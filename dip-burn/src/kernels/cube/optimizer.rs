//! AdamW with moments in place, and the squares of gradients.

use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, cube, empty, empty_like, pointwise, tensor};
use super::reduce::sum_of_cube;
use crate::kernels::AdamwStep;

/// Units of a cube that sums squares: a power of two.
const UNITS: usize = 256;
/// Values of a cube that sums squares, at least.
const VALUES: usize = 16_384;
/// Most cubes of one gradient.
const MOST_CUBES: usize = 256;

#[cube(launch)]
fn adamw_kernel(
    parameter: &Array<f32>,
    updated: &mut Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    gradient: &Array<f32>,
    scale: f32,
    beta_1: f32,
    beta_2: f32,
    correction_1: f32,
    correction_2: f32,
    epsilon: f32,
    kept: f32,
    rate: f32,
    #[comptime] fresh: bool,
) {
    let i = ABSOLUTE_POS;
    if i >= parameter.len() {
        terminate!();
    }
    let g = gradient[i] * scale;
    let mut m = g * (1.0f32 - beta_1);
    let mut v = g * g * (1.0f32 - beta_2);
    if !fresh {
        m += first[i] * beta_1;
        v += second[i] * beta_2;
    }
    first[i] = m;
    second[i] = v;
    let delta = m / correction_1 / ((v / correction_2).sqrt() + epsilon);
    updated[i] = parameter[i] * kept - delta * rate;
}

#[cube(launch)]
fn squares_kernel(x: &Array<f32>, sums: &mut Array<f32>, offset: u32, #[comptime] units: usize) {
    let mut sum = 0.0f32;
    let mut i = CUBE_POS_X as usize * units + UNIT_POS as usize;
    let step = CUBE_COUNT_X as usize * units;
    while i < x.len() {
        sum += x[i] * x[i];
        i += step;
    }
    let sum = sum_of_cube(sum, units);
    if UNIT_POS == 0 {
        sums[(CUBE_POS_X + offset) as usize] = sum;
    }
}

/// `x` in memory that nobody else reads.
fn own<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    if x.can_mut() { x } else { x.copy() }
}

pub fn adamw<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    step: &AdamwStep,
    parameter: Tensor<CubeBackend<R, f32, I, BT>, 1>,
    gradient: Tensor<CubeBackend<R, f32, I, BT>, 1>,
    moments: Option<[Tensor<CubeBackend<R, f32, I, BT>, 1>; 2]>,
) -> (Tensor<CubeBackend<R, f32, I, BT>, 1>, [Tensor<CubeBackend<R, f32, I, BT>, 1>; 2]) {
    let (parameter, gradient) = (array(parameter), array(gradient));
    // The module that is updated still holds the parameter.
    let updated = empty_like(&parameter);
    let fresh = moments.is_none();
    let [first, second] = match moments {
        Some(moments) => moments.map(|moment| own(array(moment))),
        None => [empty_like(&parameter), empty_like(&parameter)],
    };
    let (grid, cube) = pointwise(parameter.meta.num_elements(), 1);
    let [correction_1, correction_2] = step.corrections();
    adamw_kernel::launch(
        &updated.client,
        grid,
        cube,
        parameter.into_array_arg(),
        updated.clone().into_array_arg(),
        first.clone().into_array_arg(),
        second.clone().into_array_arg(),
        gradient.into_array_arg(),
        step.gradient_scale as f32,
        step.beta_1,
        step.beta_2,
        correction_1,
        correction_2,
        step.epsilon,
        (1.0 - step.decay_rate()) as f32,
        step.learning_rate as f32,
        fresh,
    );
    (tensor(updated), [tensor(first), tensor(second)])
}

pub fn squares<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    tensors: Vec<Tensor<CubeBackend<R, f32, I, BT>, 1>>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 1> {
    let arrays: Vec<_> = tensors.into_iter().map(array).collect();
    let cubes = |x: &CubeTensor<R>| x.meta.num_elements().div_ceil(VALUES).min(MOST_CUBES);
    let all: usize = arrays.iter().map(cubes).sum();
    let sums = empty(&arrays[0], [all], DType::F32);
    let mut offset = 0;
    for x in arrays {
        let count = cubes(&x);
        squares_kernel::launch(
            &sums.client,
            CubeCount::Static(count as u32, 1, 1),
            cube(UNITS),
            x.into_array_arg(),
            sums.clone().into_array_arg(),
            offset as u32,
            UNITS,
        );
        offset += count;
    }
    tensor(sums)
}
