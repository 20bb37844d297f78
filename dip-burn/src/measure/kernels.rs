//! Times of kernels beside their twins in Burn's operations.

use std::cell::Cell;
use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use dip_core::Activation;
use serde::Serialize;

use super::finish;
use crate::kernels::{
    AdamwStep, Addend, AttentionRanges, ClipRows, ClipTables, CrossEntropyGiven, Kernels,
    PackedAttention, RotaryPairs, RotaryTables, RowFactor, kernels, plain_kernels,
};
use crate::model::{Precision, cast, to_f32};
use crate::params::ReadError;

/// Seconds that the calls of one sample take at least.
const SAMPLE_S: f64 = 20e-3;
const SAMPLES: usize = 3;
const MOST_CALLS: usize = 1000;
/// Width of a head, and heads of a row, in the kernels of attention.
const HEAD_DIM: usize = 64;

/// One kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTime {
    /// Its name.
    pub kernel: &'static str,
    /// Rows of its input.
    pub rows: usize,
    /// Width of its input.
    pub width: usize,
    /// Type of its values.
    pub precision: &'static str,
    /// Seconds of a call.
    pub seconds: f64,
    /// Seconds of a call in Burn's operations.
    pub plain_seconds: f64,
    /// Bytes that it must read and write at least.
    pub bytes: u64,
    /// The same for a second: its bandwidth.
    pub gb_per_s: f64,
    /// Largest difference of its results from those of Burn's operations, as a share of the largest result.
    pub difference: f64,
}

/// The sizes of the tensors that kernels are timed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSizes {
    /// Rows of activations; a multiple of 64.
    pub rows: usize,
    /// Width of activations; a multiple of 64.
    pub width: usize,
    /// Width of the logits.
    pub vocabulary: usize,
    /// Type of activations.
    pub precision: Precision,
}

/// Times every kernel of a backend and its twin on `device`.
///
/// # Errors
/// [`ReadError`] if the device fails.
pub fn kernel_times<B: Backend>(
    device: &B::Device,
    sizes: KernelSizes,
) -> Result<Vec<KernelTime>, ReadError> {
    let time = |(kernel, bytes, call): (&'static str, u64, Call<B>)| {
        let KernelSizes { rows, width, precision, .. } = sizes;
        let own = seconds::<B>(device, || drop(call(kernels())))?;
        Ok(KernelTime {
            kernel,
            rows,
            width,
            precision: precision.name(),
            seconds: own,
            plain_seconds: seconds::<B>(device, || drop(call(plain_kernels())))?,
            bytes,
            gb_per_s: bytes as f64 / own / 1e9,
            difference: difference(call(kernels()), call(plain_kernels()))?,
        })
    };
    let mut times = Vec::new();
    for call in calls::<B>(device, sizes) {
        times.push(time(call)?);
    }
    Ok(times)
}

/// Runs a kernel once and returns its results.
type Call<B> = Box<dyn Fn(&dyn Kernels<B>) -> Vec<Tensor<B, 1>>>;

/// The least seconds of a call.
fn seconds<B: Backend>(device: &B::Device, call: impl Fn()) -> Result<f64, ReadError> {
    let run = |calls: usize| {
        finish::<B>(device)?;
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        finish::<B>(device)?;
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    };
    // The first call compiles.
    run(1)?;
    let calls = ((SAMPLE_S / run(1)?.max(1e-9)).ceil() as usize).clamp(1, MOST_CALLS);
    (0..SAMPLES).try_fold(f64::INFINITY, |least, _| Ok(least.min(run(calls)?)))
}

/// The largest difference of two lists of results, as a share of the largest result.
fn difference<B: Backend>(
    found: Vec<Tensor<B, 1>>,
    expected: Vec<Tensor<B, 1>>,
) -> Result<f64, ReadError> {
    let read = |x: Tensor<B, 1>| x.try_into_data().map_err(ReadError::new);
    let mut largest = 0.0f64;
    for (found, expected) in found.into_iter().zip(expected) {
        let (found, expected) = (read(found)?, read(expected)?);
        let most = expected.iter::<f64>().fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
        // A comparison with NaN is false.
        let differ =
            |(a, b): (f64, f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
        largest = pairs.map(differ).fold(0.0, f64::max).max(largest * most) / most;
    }
    Ok(largest)
}

/// A result without its shape.
fn flat<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 1> {
    x.flatten(0, D - 1)
}

/// Makes the inputs of kernels: no two alike, and the same for every call and precision.
struct Inputs<'a, B: Backend> {
    device: &'a B::Device,
    made: Cell<u32>,
}

impl<B: Backend> Inputs<'_, B> {
    /// Values that fill the range evenly, in an order that looks random.
    fn between<const D: usize>(&self, least: f64, most: f64, shape: [usize; D]) -> Tensor<B, D> {
        self.made.set(self.made.get() + 1);
        let places =
            Tensor::<B, 1, Int>::arange(0..shape.iter().product::<usize>() as i64, self.device);
        // Small factors keep the digits of f32.
        let (row, column) = (places.clone() / 4096, places % 4096);
        let x = column.float() * 0.618_034
            + row.float() * 0.754_878
            + f64::from(self.made.get()) * 0.569_84;
        let x = to_f32(x);
        ((x.clone() - x.floor()) * (most - least) + least).reshape(shape)
    }
}

/// Every kernel with the bytes that it must move.
fn calls<B: Backend>(device: &B::Device, sizes: KernelSizes) -> Vec<(&'static str, u64, Call<B>)> {
    let KernelSizes { rows, width, vocabulary, precision } = sizes;
    let inputs = Inputs { device, made: Cell::new(0) };
    let random = |rows: usize, width: usize| -> Tensor<B, 2> {
        cast(inputs.between(-1.0, 1.0, [rows, width]), precision.dtype())
    };
    let element = precision.element_bytes();
    let of = |tensors: usize| tensors as u64 * (rows * width) as u64 * element;
    let x = || random(rows, width);
    let gamma = || random(1, width).reshape([width]);
    let (a, b, c, g) = (x(), x(), x(), gamma());
    let [unit, scale] = plain_kernels().standardised(x(), true, 1e-6);
    let mut all: Vec<(&'static str, u64, Call<B>)> = Vec::new();
    let input = a.clone();
    let call =
        move |k: &dyn Kernels<B>| k.standardised(input.clone(), true, 1e-6).map(flat).to_vec();
    all.push(("norm", of(2), Box::new(call)));
    let (input, weights) = (unit.clone(), g.clone());
    let call = move |k: &dyn Kernels<B>| vec![flat(k.affine(input.clone(), weights.clone(), None))];
    all.push(("norm weights", of(2), Box::new(call)));
    let (kept, dy) = ([unit.clone(), scale], a.clone());
    let call = move |k: &dyn Kernels<B>| {
        vec![flat(k.standardised_backward(kept.clone(), Some(g.clone()), dy.clone(), true))]
    };
    all.push(("norm backward", of(3), Box::new(call)));
    let (x, y) = (a.clone(), unit);
    let call = move |k: &dyn Kernels<B>| vec![flat(k.product_sums(x.clone(), y.clone()))];
    all.push(("norm weight gradients", of(2), Box::new(call)));
    let x = a.clone();
    let call = move |k: &dyn Kernels<B>| vec![flat(k.activate(Activation::Gelu, x.clone()))];
    all.push(("gelu", of(2), Box::new(call)));
    let (x, dy) = (a.clone(), b.clone());
    let call = move |k: &dyn Kernels<B>| {
        vec![flat(k.activate_backward(Activation::Gelu, x.clone(), dy.clone()))]
    };
    all.push(("gelu backward", of(3), Box::new(call)));
    let (gate, up) = (a.clone(), b.clone());
    let call = move |k: &dyn Kernels<B>| vec![flat(k.gated(gate.clone(), up.clone()))];
    all.push(("swiglu", of(3), Box::new(call)));
    let (gate, up) = (a.clone(), b.clone());
    let call = move |k: &dyn Kernels<B>| {
        k.gated_backward(gate.clone(), up.clone(), c.clone()).map(flat).to_vec()
    };
    all.push(("swiglu backward", of(5), Box::new(call)));
    let (x, tables) = (a.clone(), rotary(device, rows));
    let call = move |k: &dyn Kernels<B>| vec![flat(k.rotated(x.clone(), &tables, false))];
    all.push(("rotary", of(2) + 8 * (rows * HEAD_DIM) as u64, Box::new(call)));
    // Scores of `width / 64` heads, over as many queries and keys as give as many values as an activation.
    let heads = width / HEAD_DIM;
    let scores = a.reshape([1, heads, rows * width / heads / rows.min(1024), rows.min(1024)]);
    let (x, dy) = (scores.clone(), scores.clone());
    let call = move |k: &dyn Kernels<B>| vec![flat(k.softmax(x.clone(), None))];
    all.push(("softmax", of(2), Box::new(call)));
    let call = move |k: &dyn Kernels<B>| vec![flat(k.softmax_backward(scores.clone(), dy.clone()))];
    all.push(("softmax backward", of(3), Box::new(call)));
    all.extend(attention_calls(&inputs, sizes));
    all.extend(loss_calls(device, random(rows.min(2048), vocabulary), element));
    all.push(adamw_call(&inputs, rows * width));
    all.push(squares_call(&inputs, rows * width));
    all.extend(modulation_calls(&inputs, sizes));
    all.extend(product_calls(&inputs, sizes));
    all
}

fn rotary<B: Backend>(device: &B::Device, rows: usize) -> RotaryTables<B> {
    let length = rows * HEAD_DIM;
    // Both values of a pair share their angle.
    let half = HEAD_DIM / 2;
    let angles = (0..length).map(|i| ((i / HEAD_DIM * half + i % half) % 1000) as f32 * 0.01);
    let angles: Vec<f32> = angles.collect();
    let angles: Tensor<B, 2> = Tensor::from_data(TensorData::new(angles, [1, length]), device);
    let mut swap = vec![0.0f32; HEAD_DIM * HEAD_DIM];
    for i in 0..half {
        (swap[(i + half) * HEAD_DIM + i], swap[i * HEAD_DIM + i + half]) = (-1.0, 1.0);
    }
    let swap = Tensor::from_data(TensorData::new(swap, [HEAD_DIM, HEAD_DIM]), device);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    RotaryTables { cos, sin, heads: 1, pairs: RotaryPairs::Halves, swap }
}

/// Causal attention inside packed sequences of 100 tokens, two query heads to a key head where they are even.
fn attention_calls<B: Backend>(
    inputs: &Inputs<'_, B>,
    sizes: KernelSizes,
) -> Vec<(&'static str, u64, Call<B>)> {
    let KernelSizes { rows, width, precision, .. } = sizes;
    // Burn's operations compute all pairs of rows.
    let rows = rows.min(1024);
    let heads = width / HEAD_DIM;
    let kv_heads = if heads.is_multiple_of(2) { heads / 2 } else { heads };
    let random = |heads: usize| -> Tensor<B, 2> {
        cast(inputs.between(-1.0, 1.0, [rows, heads * HEAD_DIM]), precision.dtype())
    };
    let given = || PackedAttention {
        query: random(heads) * 0.2,
        key: random(kv_heads),
        value: random(kv_heads),
        heads,
        kv_heads,
        head_dim: HEAD_DIM,
    };
    let ranges: Vec<_> = (0..rows).map(|row| row / 100 * 100..row + 1).collect();
    let ranges = AttentionRanges::<B>::new(&ranges, rows, inputs.device);
    let bytes = |queries: usize, keys: usize| {
        ((queries * heads + keys * kv_heads) * rows * HEAD_DIM) as u64 * precision.element_bytes()
    };
    let (own, table) = (given(), ranges.clone());
    let forward = move |k: &dyn Kernels<B>| k.packed_attention(&own, &table).map(flat).to_vec();
    let (own, dy) = (given(), random(heads));
    let kept = plain_kernels().packed_attention(&own, &ranges);
    let backward = move |k: &dyn Kernels<B>| {
        let d = k.packed_attention_backward(&own, &ranges, kept.clone(), dy.clone());
        d.map(flat).to_vec()
    };
    vec![
        ("attention", bytes(2, 2), Box::new(forward)),
        ("attention backward", bytes(4, 4), Box::new(backward)),
    ]
}

fn loss_calls<B: Backend>(
    device: &B::Device,
    logits: Tensor<B, 2>,
    element: u64,
) -> Vec<(&'static str, u64, Call<B>)> {
    let [rows, vocabulary] = logits.dims();
    let targets: Vec<i32> = (0..rows).map(|row| (row % vocabulary) as i32).collect();
    let targets: Tensor<B, 2, Int> = Tensor::from_data(TensorData::new(targets, [rows, 1]), device);
    let bytes = (rows * vocabulary) as u64 * element;
    let (x, of_rows) = (logits.clone(), targets.clone());
    let (all, of_parts) = (logits.clone(), targets.clone());
    let forward =
        move |k: &dyn Kernels<B>| vec![flat(k.cross_entropy(x.clone(), &of_rows, 0.01).0)];
    let device = device.clone();
    let both = move |k: &dyn Kernels<B>| {
        let (_, kept) = k.cross_entropy(logits.clone(), &targets, 0.01);
        let dy = Tensor::ones([1, 1], &device);
        let (targets_r1, dtype) = (targets.clone(), logits.dtype());
        let given = CrossEntropyGiven { targets_r1, dy, weight: 0.5, z_loss: 0.01, dtype };
        vec![flat(k.cross_entropy_backward(kept, given))]
    };
    let in_parts = move |k: &dyn Kernels<B>| {
        let middle = vocabulary / 3;
        let part = |first: usize, columns: usize| all.clone().narrow(1, first, columns);
        let [sums, of_targets] = k.logit_sums(part(middle, vocabulary - middle), &of_parts, middle);
        let given = CrossEntropyGiven {
            targets_r1: of_parts.clone(),
            dy: Tensor::ones([1, 1], &sums.device()),
            weight: 0.5,
            z_loss: 0.01,
            dtype: all.dtype(),
        };
        let d = [(0, middle), (middle, vocabulary - middle)].map(|(first, columns)| {
            flat(k.logit_gradients(part(first, columns), &sums, &given, first))
        });
        d.into_iter().chain([flat(sums), flat(of_targets)]).collect()
    };
    vec![
        ("cross-entropy", bytes, Box::new(forward)),
        ("cross-entropy, forward and backward", 3 * bytes, Box::new(both)),
        ("cross-entropy in parts", 3 * bytes, Box::new(in_parts)),
    ]
}

/// One large parameter and some small ones.
fn adamw_call<B: Backend>(inputs: &Inputs<'_, B>, length: usize) -> (&'static str, u64, Call<B>) {
    let values = |length| inputs.between(0.1, 1.0, [length]);
    let parameter = |length: usize| [(); 4].map(|()| values(length));
    let lengths: Vec<usize> = [length].into_iter().chain((0..20).map(|i| 1 + 37 * i)).collect();
    let all: usize = lengths.iter().sum();
    let parameters: Vec<_> = lengths.into_iter().map(parameter).collect();
    let step = AdamwStep {
        learning_rate: 1e-3,
        weight_decay: 0.1,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        gradient_scale: 0.5,
        time: 2,
    };
    let call = move |k: &dyn Kernels<B>| {
        let mut steps = k.adamw();
        let mut results = Vec::new();
        for (i, [parameter, gradient, first, second]) in parameters.iter().cloned().enumerate() {
            let step = AdamwStep { weight_decay: if i % 2 == 0 { 0.1 } else { 0.0 }, ..step };
            let moments = Some([first, second]);
            let (parameter, moments) = steps.step(&step, parameter, gradient, moments);
            results.push(parameter);
            results.extend(moments);
        }
        steps.finish();
        results
    };
    // The kernel copies the moments, which this function still holds: 4 more passes than in training.
    ("adamw", 11 * 4 * all as u64, Box::new(call))
}

/// The sum of the squares of many gradients.
fn squares_call<B: Backend>(inputs: &Inputs<'_, B>, length: usize) -> (&'static str, u64, Call<B>) {
    let lengths = [length].into_iter().chain((0..20).map(|i| 1 + 37 * i));
    let values = |length| inputs.between(-1.0, 1.0, [length]);
    let gradients: Vec<Tensor<B, 1>> = lengths.map(values).collect();
    let all: usize = gradients.iter().map(|x| x.dims()[0]).sum();
    let call = move |k: &dyn Kernels<B>| vec![k.squares(gradients.clone()).sum()];
    ("squares of gradients", 4 * all as u64, Box::new(call))
}

/// Factor, shift and gate of rows that belong to clips, and the gradients of their tables.
fn modulation_calls<B: Backend>(
    inputs: &Inputs<'_, B>,
    sizes: KernelSizes,
) -> Vec<(&'static str, u64, Call<B>)> {
    let KernelSizes { rows, width, precision, .. } = sizes;
    let random = |rows: usize, width: usize| -> Tensor<B, 2> {
        cast(inputs.between(-1.0, 1.0, [rows, width]), precision.dtype())
    };
    let [x, dy] = [(); 2].map(|()| random(rows, width));
    let (steps, own) = (random(3, 6 * width), random(1, 6 * width));
    let clips = ClipRows::<B>::new(&[rows / 2, 5, rows - rows / 2 - 5], inputs.device);
    let of = |tensors: usize| (tensors * rows * width) as u64 * precision.element_bytes();
    let (input, residual, members) = (x.clone(), dy.clone(), clips.clone());
    let forward = move |k: &dyn Kernels<B>| {
        let tables = ClipTables { steps_na: &steps, own_1k: &own, clips: &members };
        let modulated = |factor: RowFactor, addend: Addend<B>| {
            flat(k.modulated(input.clone(), &tables, factor, addend))
        };
        vec![
            modulated(RowFactor { part: 1, base: 1.0 }, Addend::Shift(0)),
            modulated(RowFactor { part: 2, base: 0.0 }, Addend::Rows(residual.clone())),
            modulated(RowFactor { part: 5, base: 1.0 }, Addend::Nothing),
        ]
    };
    let device = inputs.device.clone();
    let backward = move |k: &dyn Kernels<B>| {
        let tables = Tensor::zeros([3, 6 * width], (&device, precision.dtype()));
        let pair = [x.clone(), dy.clone()];
        let d = k.table_gradients(tables, pair.clone(), &clips, 1, Some(0));
        vec![flat(k.table_gradients(d, pair, &clips, 2, None))]
    };
    vec![
        ("modulation", of(7), Box::new(forward)),
        ("modulation tables backward", of(4), Box::new(backward)),
    ]
}

/// Products of rows, with a bias, and of heads.
fn product_calls<B: Backend>(
    inputs: &Inputs<'_, B>,
    sizes: KernelSizes,
) -> Vec<(&'static str, u64, Call<B>)> {
    let KernelSizes { rows, width, precision, .. } = sizes;
    let random = |rows: usize, width: usize| -> Tensor<B, 2> {
        // Larger values would differ by the rounding of long sums.
        let most = (width as f64).sqrt().recip();
        cast(inputs.between(-most, most, [rows, width]), precision.dtype())
    };
    let (x, w, bias) = (random(rows, width), random(width, width), random(1, width));
    let bias = bias.reshape([width]);
    let bytes = (2 * rows * width + width * width) as u64 * precision.element_bytes();
    let [a, b] = [(); 2].map(|()| x.clone());
    let product =
        move |k: &dyn Kernels<B>| vec![flat(k.product(a.clone(), w.clone(), Some(bias.clone())))];
    let b = b.narrow(0, 0, rows.min(1024));
    let sequence = rows.min(1024) / 2 - 3;
    let heads = move |k: &dyn Kernels<B>| {
        let heads = k.split_heads(&b, 5, [2, sequence, HEAD_DIM]);
        let scores = k.products(heads.clone(), heads.clone().transpose());
        vec![flat(k.joined_heads(k.products(scores, heads)))]
    };
    let values = (4 * sequence * width + 2 * sequence * sequence * width / HEAD_DIM) as u64;
    vec![
        ("product", bytes, Box::new(product)),
        ("products of heads", values * precision.element_bytes(), Box::new(heads)),
    ]
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn every_kernel_is_timed_beside_its_twin() {
        let sizes = KernelSizes { rows: 64, width: 64, vocabulary: 100, precision: Precision::F32 };
        let times = kernel_times::<Flex>(&Default::default(), sizes).unwrap();
        assert_eq!(times.len(), 22);
        assert!(times.iter().all(|t| t.seconds > 0.0 && t.plain_seconds > 0.0 && t.bytes > 0));
        let off = times.iter().find(|t| t.difference > 1e-5);
        assert!(off.is_none(), "{off:?}");
    }

    #[test]
    fn kernels_of_sixteen_bits_differ_from_f32_by_their_rounding() {
        let sizes = |precision| KernelSizes { rows: 64, width: 64, vocabulary: 100, precision };
        let device = Default::default();
        let exact = calls::<Flex>(&device, sizes(Precision::F32));
        for (precision, most) in [(Precision::Bf16, 1.5e-2), (Precision::F16, 2e-3)] {
            let low = calls::<Flex>(&device, sizes(precision));
            for ((kernel, _, low), (_, _, exact)) in low.into_iter().zip(&exact) {
                let off = difference(low(kernels()), exact(plain_kernels())).unwrap();
                assert!(off < most, "{kernel} in {}: {off}", precision.name());
            }
        }
    }
}
