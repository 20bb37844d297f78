//! Rotary positions: one table of angles for sequences, for images (rows and columns), and for videos (time, rows and columns).
//!
//! Shape legend: n sequences, s their length, r = n * s rows, h heads, d head width.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{Rope, RopeScaling, YarnScaling};

pub use crate::kernels::RotaryPairs;
use crate::kernels::{RotaryTables, kernels};
use crate::model::gradients::bytes_of;
use crate::uploads::floats;

/// For each pair of values in a head: the angle of rotation per position, and the coordinate that gives the position.
#[derive(Debug, Clone)]
pub struct RotaryFrequencies {
    /// Angle for a position, `[d / 2]`.
    per_position: Vec<f64>,
    /// Time, row or column, `[d / 2]`.
    axes: Vec<usize>,
    /// Factor of rotated queries and keys.
    amplitude: f64,
}

impl RotaryFrequencies {
    /// The frequencies of a module whose heads are `head_dim` wide, which is even.
    pub fn of(rope: &Rope, head_dim: usize) -> Self {
        let half = head_dim / 2;
        let ramp = rope.yarn.map(|yarn| yarn_ramp(&yarn, rope.theta, head_dim));
        let angle = |i: usize| {
            let angle = rope.theta.powf(-(i as f64) / half as f64);
            let angle = rope.scaling.map_or(angle, |s| scaled_angle(angle, s));
            let angle = angle / rope.linear.unwrap_or(1.0);
            match (&rope.yarn, &ramp) {
                (Some(yarn), Some(ramp)) => {
                    let rarely =
                        ((i as f64 - ramp.start) / (ramp.end - ramp.start)).clamp(0.0, 1.0);
                    angle * (1.0 - rarely + rarely / yarn.factor)
                }
                _ => angle,
            }
        };
        let sections = rope.sections.unwrap_or([half as u32, 0, 0]);
        let runs = (0..3).flat_map(|axis| vec![axis; sections[axis] as usize]);
        let axes = match rope.interleaved {
            false => runs.take(half).collect(),
            true => (0..half).map(|i| alternating_axis(i, sections)).collect(),
        };
        let amplitude = rope.yarn.map_or(1.0, |yarn| yarn.amplitude);
        Self { per_position: (0..half).map(angle).collect(), axes, amplitude }
    }
}

/// The axis of angle `i` where rows and columns take turns with time until their sections are used up.
fn alternating_axis(i: usize, sections: [u32; 3]) -> usize {
    let axis = i % 3;
    if i < 3 * sections[axis] as usize { axis } else { 0 }
}

/// Scales an angle for longer contexts. Waves that are short compared with the training context keep their angle.
fn scaled_angle(angle: f64, s: RopeScaling) -> f64 {
    let waves = f64::from(s.original_positions) * angle / std::f64::consts::TAU;
    let kept = ((waves - s.low) / (s.high - s.low)).clamp(0.0, 1.0);
    angle * (kept + (1.0 - kept) / s.factor)
}

impl RotaryPairs {
    /// The two places of pair `i` of a head of `2 * half` values.
    fn places(self, i: usize, half: usize) -> [usize; 2] {
        match self {
            Self::Halves => [i, i + half],
            Self::Neighbours => [2 * i, 2 * i + 1],
        }
    }
}

/// The angles of a head between those that turn often and those that turn rarely in the original training.
fn yarn_ramp(yarn: &YarnScaling, theta: f64, head_dim: usize) -> Range<f64> {
    let angle_of_turns = |turns: f64| {
        let waves = f64::from(yarn.original_positions) / (turns * std::f64::consts::TAU);
        head_dim as f64 * waves.ln() / (2.0 * theta.ln())
    };
    let (start, end) = (angle_of_turns(yarn.fast), angle_of_turns(yarn.slow));
    let (start, end) = if yarn.whole_angles { (start.floor(), end.ceil()) } else { (start, end) };
    let (start, end) = (start.max(0.0), end.min(head_dim as f64 - 1.0));
    // A ramp without length is a step.
    start..if start == end { end + 1e-3 } else { end }
}

/// Rotates the heads of queries and keys by their positions.
#[derive(Debug, Clone)]
pub struct Rotary<B: Backend> {
    /// Cosine and sine of every position, `[s, d]`.
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    pairs: RotaryPairs,
    /// `R`, `[d, d]`.
    swap: Tensor<B, 2>,
}

/// The tables of a number of heads.
#[derive(Debug, Clone)]
pub struct Rotation<B: Backend>(RotaryTables<B>);

impl<B: Backend> Rotary<B> {
    /// Positions of tokens, as time, row and column; all three are the same in a text.
    pub fn sequence(
        positions: &[[u32; 3]],
        frequencies: &RotaryFrequencies,
        device: &B::Device,
    ) -> Self {
        let RotaryFrequencies { per_position, axes, amplitude } = frequencies;
        let angle = |s: usize, i: usize| f64::from(positions[s][axes[i]]) * per_position[i];
        let (length, half) = (positions.len(), per_position.len());
        let rotary = Self::from_angles(length, half, angle, RotaryPairs::Halves, device);
        match *amplitude {
            1.0 => rotary,
            // A longer rotated vector: both tables grow.
            amplitude => {
                Self { cos: rotary.cos * amplitude, sin: rotary.sin * amplitude, ..rotary }
            }
        }
    }

    /// Positions in a grid: the first half of the angles grows with the row, the second with the column. `head_dim` is a
    /// multiple of 4, `theta` the base of the angles.
    pub fn grid(places: &[(u32, u32)], head_dim: usize, theta: f64, device: &B::Device) -> Self {
        let (half, quarter) = (head_dim / 2, head_dim / 4);
        let angle = |s: usize, i: usize| {
            let (row, column) = places[s];
            let position = if i < quarter { row } else { column };
            f64::from(position) * theta.powf(-((i % quarter) as f64) / quarter as f64)
        };
        Self::from_angles(places.len(), half, angle, RotaryPairs::Halves, device)
    }

    /// Positions in a video, `[frame, row, column]`: the first third of the angles grows with the frame, the others with row
    /// and column. The remainder goes to the frame. `head_dim` is even and at least 6, `theta` the base of the angles.
    pub fn volume(
        places: &[[u32; 3]],
        head_dim: usize,
        theta: f64,
        pairs: RotaryPairs,
        device: &B::Device,
    ) -> Self {
        let half = head_dim / 2;
        let third = half / 3;
        let time = half - 2 * third;
        let angle = |s: usize, i: usize| {
            let (axis, i, of) = match i {
                i if i < time => (0, i, time),
                i if i < time + third => (1, i - time, third),
                i => (2, i - time - third, third),
            };
            f64::from(places[s][axis]) * theta.powf(-(i as f64) / of as f64)
        };
        Self::from_angles(places.len(), half, angle, pairs, device)
    }

    fn from_angles(
        length: usize,
        half: usize,
        angle: impl Fn(usize, usize) -> f64,
        pairs: RotaryPairs,
        device: &B::Device,
    ) -> Self {
        let d = 2 * half;
        let pair = |place: usize| match pairs {
            RotaryPairs::Halves => place % half,
            RotaryPairs::Neighbours => place / 2,
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> =
                (0..length * d).map(|k| f(angle(k / d, pair(k % d))) as f32).collect();
            floats(values, [length, d], device)
        };
        let mut swap = vec![0.0f32; d * d];
        for i in 0..half {
            let [first, second] = pairs.places(i, half);
            swap[second * d + first] = -1.0;
            swap[first * d + second] = 1.0;
        }
        let swap = floats(swap, [d, d], device);
        Self { cos: table(f64::cos), sin: table(f64::sin), pairs, swap }
    }

    /// Positions of one sequence.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// The device of its tables.
    pub fn device(&self) -> B::Device {
        self.cos.device()
    }

    /// The tables of `heads` heads.
    pub fn of_heads(&self, heads: usize) -> Rotation<B> {
        let [s, d] = self.cos.dims();
        let flat = |table: &Tensor<B, 2>| table.clone().reshape([1, s * d]);
        let (cos, sin, swap) = (flat(&self.cos), flat(&self.sin), self.swap.clone());
        let tables = RotaryTables { cos, sin, heads: 1, pairs: self.pairs, swap };
        let heads = if kernels::<B>().shares_rotary_tables() { 1 } else { heads };
        Rotation(tables.of_heads(heads))
    }
}

impl<B: Backend> Rotation<B> {
    /// The device of its tables.
    pub(in crate::model) fn device(&self) -> B::Device {
        self.0.cos.device()
    }

    /// Bytes of the tables.
    pub(in crate::model) fn bytes(&self) -> u64 {
        bytes_of(&self.0.cos) + bytes_of(&self.0.sin)
    }

    /// Rotates each pair of every head of `x_rm`, `[n * s, h * d]`, by the angle of its position.
    pub fn apply(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        kernels().rotated(x_rm, &self.0, false)
    }

    /// The gradient of `x_rm`: the rotation back.
    pub fn backward(&self, dy_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        kernels().rotated(dy_rm, &self.0, true)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Distribution, TensorData};

    use super::*;

    #[test]
    fn scores_in_a_video_depend_only_on_distances_along_each_axis() {
        let device = Default::default();
        let row = [[0.3f32, -0.8, 1.4, 0.6, -1.1, 0.5, 0.2, -0.9]];
        let row = Tensor::<Flex, 2>::from_floats(row, &device);
        let pairs = RotaryPairs::default();
        let score = |a: [u32; 3], b: [u32; 3]| {
            let x = row.clone().repeat_dim(0, 2);
            let rotary = Rotary::<Flex>::volume(&[a, b], 8, 10_000.0, pairs, &device);
            let y = rotary.of_heads(1).apply(x);
            (y.clone().narrow(0, 0, 1) * y.narrow(0, 1, 1)).sum().into_scalar()
        };
        let at_distance = |d: [u32; 3]| score([0; 3], d);
        for d in [[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 3, 1]] {
            let moved = score([4, 5, 6], [4 + d[0], 5 + d[1], 6 + d[2]]);
            assert!((moved - at_distance(d)).abs() < 1e-4, "{d:?}");
        }
        assert!((at_distance([1, 0, 0]) - at_distance([0, 1, 0])).abs() > 1e-3);
        assert!((at_distance([0, 0, 1]) - at_distance([0, 1, 0])).abs() > 1e-3);
    }

    #[test]
    fn every_pair_is_rotated_by_the_angle_of_its_position() {
        let device = Default::default();
        let x = Tensor::<Flex, 2>::random([6, 8], Distribution::Normal(0.0, 1.0), &device);
        let frequencies = RotaryFrequencies::of(&Rope::default(), 4);
        let rotary = Rotary::<Flex>::sequence(&[[0; 3], [5; 3], [1; 3]], &frequencies, &device);
        let y: Vec<f32> = rotary.of_heads(2).apply(x.clone()).into_data().to_vec().unwrap();
        let x: Vec<f32> = x.into_data().to_vec().unwrap();
        for (row, position) in (0..6).zip([0.0f32, 5.0, 1.0].into_iter().cycle()) {
            for head in 0..2 {
                for i in 0..2 {
                    let (a, b) = (row * 8 + head * 4 + i, row * 8 + head * 4 + i + 2);
                    let (sin, cos) = (position * 10_000f32.powf(-(i as f32) / 2.0)).sin_cos();
                    assert!((y[a] - (x[a] * cos - x[b] * sin)).abs() < 1e-5);
                    assert!((y[b] - (x[b] * cos + x[a] * sin)).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn neighbours_are_rotated_like_halves_in_another_order() {
        let device = Default::default();
        let x = Tensor::<Flex, 2>::random([2, 16], Distribution::Normal(0.0, 1.0), &device);
        let order = [0, 2, 4, 6, 1, 3, 5, 7].map(|i| i as i64);
        let both = order.iter().copied().chain(order.map(|i| i + 8)).collect::<Vec<_>>();
        let order = Tensor::from_data(TensorData::new(both, [16]), &device);
        let rotated = |x, pairs, back: bool| {
            let places = [[1, 2, 3], [4, 0, 1]];
            let rotation = Rotary::volume(&places, 8, 100.0, pairs, &device).of_heads(2);
            if back { rotation.backward(x) } else { rotation.apply(x) }
        };
        for back in [false, true] {
            let halves = rotated(x.clone().select(1, order.clone()), RotaryPairs::Halves, back);
            let neighbours = rotated(x.clone(), RotaryPairs::Neighbours, back);
            let neighbours = neighbours.select(1, order.clone()).into_data();
            neighbours.assert_approx_eq::<f32>(
                &halves.into_data(),
                burn::tensor::Tolerance::absolute(1e-6),
            );
        }
    }
}
