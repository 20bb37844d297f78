//! Activations and rotary rotations.

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use super::lanes::{normal, sigmoid};
use super::{in_parts, of_flex, tensor, values};

/// `1 / sqrt(2 pi)`
const BELL: f32 = 0.398_942_3;

/// GELU of `x`, with the exact error function.
pub fn gelu(x: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    let shape = x.dims();
    let x = values(x);
    let x = x.storage::<f32>();
    let mut y = vec![0.0; x.len()];
    in_parts(&mut y, 1, |start, y| {
        for (y, x) in y.iter_mut().zip(&x[start..]) {
            *y = x * normal(*x).0;
        }
    });
    tensor(y, shape)
}

/// The gradient of `x` from the gradient of `y = gelu(x)`.
pub fn gelu_backward(x: Tensor<Flex, 2>, dy: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    let (x, mut d) = (values(x), values(dy));
    let x = x.storage::<f32>();
    in_parts(d.storage_mut(), 1, |start, d| {
        for (d, x) in d.iter_mut().zip(&x[start..]) {
            let (below, bell) = normal(*x);
            *d *= below + x * (bell * BELL);
        }
    });
    of_flex(d)
}

/// `silu(gate) * up`
pub fn gated(gate: Tensor<Flex, 2>, up: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    let shape = gate.dims();
    let (gate, up) = (values(gate), values(up));
    let (gate, up) = (gate.storage::<f32>(), up.storage::<f32>());
    let mut y = vec![0.0; gate.len()];
    in_parts(&mut y, 1, |start, y| {
        for ((y, gate), up) in y.iter_mut().zip(&gate[start..]).zip(&up[start..]) {
            *y = gate * sigmoid(*gate) * up;
        }
    });
    tensor(y, shape)
}

/// The gradients of gate and up from the gradient of [`gated`].
pub fn gated_backward(
    gate: Tensor<Flex, 2>,
    up: Tensor<Flex, 2>,
    dy: Tensor<Flex, 2>,
) -> [Tensor<Flex, 2>; 2] {
    let (gate, up, dy) = (values(gate), values(up), values(dy));
    let by_up = |open: f32, gate: f32, _: f32| gate * open;
    let by_gate = |open: f32, gate: f32, up: f32| up * (open + gate * open * (1.0 - open));
    let inputs = [&gate, &up];
    let d_up = of_flex(times(dy.clone(), inputs, by_up));
    [of_flex(times(dy, inputs, by_gate)), d_up]
}

/// `d` times a derivative of sigmoid, gate and up.
fn times(
    mut d: FlexTensor,
    [gate, up]: [&FlexTensor; 2],
    slope: impl Fn(f32, f32, f32) -> f32 + Sync,
) -> FlexTensor {
    let (gate, up) = (gate.storage::<f32>(), up.storage::<f32>());
    in_parts(d.storage_mut(), 1, |start, d| {
        for ((d, gate), up) in d.iter_mut().zip(&gate[start..]).zip(&up[start..]) {
            *d *= slope(sigmoid(*gate), *gate, *up);
        }
    });
    d
}

/// Rotates the pairs `(x[i], x[i + width / 2])` of every head of `x`, `width` wide, by the angles whose cosines and sines are `tables`,
/// repeated for all sequences; with `back`, by the negative angles.
pub fn rotated(
    x: Tensor<Flex, 2>,
    tables: [Tensor<Flex, 2>; 2],
    width: usize,
    back: bool,
) -> Tensor<Flex, 2> {
    let mut x = values(x);
    let tables = tables.map(values);
    let [cos, sin] = tables.each_ref().map(|table| table.storage::<f32>());
    let sign = if back { -1.0 } else { 1.0 };
    in_parts(x.storage_mut(), width, |start, x| {
        for (i, head) in x.chunks_exact_mut(width).enumerate() {
            let from = (start + i * width) % cos.len();
            let (cos, sin) = (&cos[from..from + width / 2], &sin[from..from + width / 2]);
            let (first, second) = head.split_at_mut(width / 2);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let sin = sign * sin;
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    });
    of_flex(x)
}

/// As [`rotated`], with pairs of neighbours: `(x[2 i], x[2 i + 1])`.
pub fn rotated_neighbours(
    x: Tensor<Flex, 2>,
    tables: [Tensor<Flex, 2>; 2],
    back: bool,
) -> Tensor<Flex, 2> {
    let mut x = values(x);
    let tables = tables.map(values);
    let [cos, sin] = tables.each_ref().map(|table| table.storage::<f32>());
    let sign = if back { -1.0 } else { 1.0 };
    in_parts(x.storage_mut(), 2, |start, x| {
        for (i, pair) in x.chunks_exact_mut(2).enumerate() {
            let at = (start + 2 * i) % cos.len();
            let (cos, sin) = (cos[at], sign * sin[at]);
            (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
        }
    });
    of_flex(x)
}
