//! AdamW with moments in place, and the squares of gradients: many tensors in one launch.

use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, arrays_of_launch, empty, empty_like, grid, own, tensor};
use super::reduce::sum_of_cube;
use crate::kernels::{AdamwStep, AdamwSteps};

/// Units of a cube: a power of two.
const UNITS: usize = 256;
/// Values of a cube that updates parameters.
const VALUES: usize = 4096;
/// Least values of a cube that sums squares, and most cubes beside one for each tensor: all sums are read.
const LEAST_SQUARES: usize = 16_384;
const MOST_SUMS: usize = 1024;
/// Most values of the parameters of one launch: whoever reads the old parameters holds both meanwhile.
const MOST_VALUES: usize = 1 << 24;
/// Arrays of a parameter: before and after the step, its gradient and its moments.
const ARRAYS: usize = 5;

/// The settings of a step, as scalars of a kernel.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Rates {
    scale: f32,
    beta_1: f32,
    beta_2: f32,
    correction_1: f32,
    correction_2: f32,
    epsilon: f32,
    kept: f32,
    rate: f32,
}

#[cube(launch)]
fn adamw_kernel(
    parameters: &Sequence<Array<f32>>,
    gradients: &Sequence<Array<f32>>,
    updated: &mut Sequence<Array<f32>>,
    first: &mut Sequence<Array<f32>>,
    second: &mut Sequence<Array<f32>>,
    rates: &Rates,
    #[comptime] fresh: bool,
    #[comptime] units: usize,
    #[comptime] values: usize,
) {
    let mut cubes = 0usize;
    #[unroll]
    for k in 0..parameters.len() {
        let length = parameters.index(k).len();
        let of_tensor = length.div_ceil(values);
        if CUBE_POS >= cubes && CUBE_POS < cubes + of_tensor {
            let start = (CUBE_POS - cubes) * values;
            let end = min(start + values, length);
            let mut i = start + UNIT_POS as usize;
            while i < end {
                let g = gradients.index(k)[i] * rates.scale;
                let mut m = g * (1.0f32 - rates.beta_1);
                let mut v = g * g * (1.0f32 - rates.beta_2);
                if !fresh {
                    m += first.index(k)[i] * rates.beta_1;
                    v += second.index(k)[i] * rates.beta_2;
                }
                first.index_mut(k)[i] = m;
                second.index_mut(k)[i] = v;
                let root = (v / rates.correction_2).sqrt() + rates.epsilon;
                let delta = m / rates.correction_1 / root;
                updated.index_mut(k)[i] = parameters.index(k)[i] * rates.kept - delta * rates.rate;
                i += units;
            }
        }
        cubes += of_tensor;
    }
}

#[cube(launch)]
fn squares_kernel(
    tensors: &Sequence<Array<f32>>,
    sums: &mut Array<f32>,
    offset: u32,
    values: u32,
    #[comptime] units: usize,
) {
    let values = values as usize;
    let mut sum = 0.0f32;
    let mut cubes = 0usize;
    #[unroll]
    for k in 0..tensors.len() {
        let length = tensors.index(k).len();
        let of_tensor = length.div_ceil(values);
        if CUBE_POS >= cubes && CUBE_POS < cubes + of_tensor {
            let start = (CUBE_POS - cubes) * values;
            let end = min(start + values, length);
            let mut i = start + UNIT_POS as usize;
            while i < end {
                let x = tensors.index(k)[i];
                sum += x * x;
                i += units;
            }
        }
        cubes += of_tensor;
    }
    let sum = sum_of_cube(sum, units);
    let at = CUBE_POS + offset as usize;
    if UNIT_POS == 0 && at < sums.len() {
        sums[at] = sum;
    }
}

/// Cubes of a tensor.
fn cubes_of<R: CubeRuntime>(x: &CubeTensor<R>, values: usize) -> usize {
    x.meta.num_elements().div_ceil(values)
}

/// The arrays of one kernel argument.
fn arrays<R: CubeRuntime>(
    tensors: impl Iterator<Item = CubeTensor<R>>,
) -> SequenceArg<R, Array<f32>> {
    tensors.map(CubeTensor::into_array_arg).collect()
}

/// One parameter of a launch.
struct Parameter<R: CubeRuntime> {
    before: CubeTensor<R>,
    after: CubeTensor<R>,
    gradient: CubeTensor<R>,
    moments: [CubeTensor<R>; 2],
}

/// Parameters that wait for their launch. They share all settings.
struct Bucket<R: CubeRuntime> {
    step: AdamwStep,
    /// True if it is the first step.
    fresh: bool,
    parameters: Vec<Parameter<R>>,
    values: usize,
}

/// Steps of AdamW in launches of many parameters: one bucket for each kind of settings.
pub struct AdamwBuckets<R: CubeRuntime>(Vec<Bucket<R>>);

impl<R: CubeRuntime> Default for AdamwBuckets<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: CubeRuntime> AdamwBuckets<R> {
    fn add(&mut self, parameter: Parameter<R>, step: AdamwStep, fresh: bool) {
        let known = self.0.iter().position(|of| of.step == step && of.fresh == fresh);
        let at = known.unwrap_or_else(|| {
            self.0.push(Bucket { step, fresh, parameters: Vec::new(), values: 0 });
            self.0.len() - 1
        });
        let (bucket, most) = (&mut self.0[at], arrays_of_launch(&parameter.before, ARRAYS));
        bucket.values += parameter.before.meta.num_elements();
        bucket.parameters.push(parameter);
        if bucket.parameters.len() >= most || bucket.values >= MOST_VALUES {
            self.0.swap_remove(at).launch();
        }
    }
}

impl<R: CubeRuntime> Bucket<R> {
    fn launch(mut self) {
        while !self.parameters.is_empty() {
            // In powers of two: few kernels are compiled.
            let rest = self.parameters.split_off(1 << self.parameters.len().ilog2());
            launch(&self.parameters, &self.step, self.fresh);
            self.parameters = rest;
        }
    }
}

fn launch<R: CubeRuntime>(parameters: &[Parameter<R>], step: &AdamwStep, fresh: bool) {
    let [correction_1, correction_2] = step.corrections();
    let rates = RatesLaunch::new(
        step.gradient_scale as f32,
        step.beta_1,
        step.beta_2,
        correction_1,
        correction_2,
        step.epsilon,
        (1.0 - step.decay_rate()) as f32,
        step.learning_rate as f32,
    );
    let each = |of: fn(&Parameter<R>) -> &CubeTensor<R>| arrays(parameters.iter().map(of).cloned());
    adamw_kernel::launch(
        &parameters[0].after.client,
        grid(parameters.iter().map(|parameter| cubes_of(&parameter.before, VALUES)).sum()),
        CubeDim::new_1d(UNITS as u32),
        each(|parameter| &parameter.before),
        each(|parameter| &parameter.gradient),
        each(|parameter| &parameter.after),
        each(|parameter| &parameter.moments[0]),
        each(|parameter| &parameter.moments[1]),
        rates,
        fresh,
        UNITS,
        VALUES,
    );
}

type Flat<R, I, BT> = Tensor<CubeBackend<R, f32, I, BT>, 1>;

impl<R: CubeRuntime, I: IntElement, BT: BoolElement> AdamwSteps<CubeBackend<R, f32, I, BT>>
    for AdamwBuckets<R>
where
    CubeBackend<R, f32, I, BT>:
        burn::tensor::backend::Backend<FloatTensorPrimitive = CubeTensor<R>>,
{
    fn step(
        &mut self,
        step: &AdamwStep,
        parameter: Flat<R, I, BT>,
        gradient: Flat<R, I, BT>,
        moments: Option<[Flat<R, I, BT>; 2]>,
    ) -> (Flat<R, I, BT>, [Flat<R, I, BT>; 2]) {
        let before = array(parameter);
        // The module that is updated still holds the parameter.
        let after = empty_like(&before);
        let fresh = moments.is_none();
        let moments = match moments {
            Some(moments) => moments.map(|moment| own(array(moment))),
            None => [empty_like(&before), empty_like(&before)],
        };
        let results = (tensor(after.clone()), moments.clone().map(tensor));
        self.add(Parameter { before, after, gradient: array(gradient), moments }, *step, fresh);
        results
    }

    fn finish(&mut self) {
        self.0.drain(..).for_each(Bucket::launch);
    }
}

pub fn squares<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    tensors: Vec<Flat<R, I, BT>>,
) -> Flat<R, I, BT> {
    let mut left: Vec<_> = tensors.into_iter().map(array).collect();
    let all: usize = left.iter().map(|x| x.meta.num_elements()).sum();
    let values = LEAST_SQUARES.max(all.div_ceil(MOST_SUMS));
    let cubes = |tensors: &[CubeTensor<R>]| tensors.iter().map(|x| cubes_of(x, values)).sum();
    let sums = empty(&left[0], [cubes(&left)], DType::F32);
    let most = arrays_of_launch(&sums, 1);
    let mut offset = 0;
    while !left.is_empty() {
        let rest = left.split_off(most.min(1 << left.len().ilog2()));
        let own: usize = cubes(&left);
        squares_kernel::launch(
            &sums.client,
            grid(own),
            CubeDim::new_1d(UNITS as u32),
            arrays(left.into_iter()),
            sums.clone().into_array_arg(),
            offset as u32,
            values as u32,
            UNITS,
        );
        offset += own;
        left = rest;
    }
    tensor(sums)
}
