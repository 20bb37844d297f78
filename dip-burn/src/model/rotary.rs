//! Rotary positions: one table of angles for sequences, and for the rows and columns of images.
//!
//! Turning a pair is written as `x cos + (x R) sin`, where `R` moves the halves of a head past each other with a sign: products of
//! whole rows, which every backend runs at full speed, where slices of heads would be strided.
//!
//! Shape legend: n sequences, s their length, r = n * s rows, h heads, d head width.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::{cast, to_f32};

/// Base of the angles.
const BASE: f64 = 10_000.0;

/// Turns the heads of queries and keys by their positions.
#[derive(Debug, Clone)]
pub struct Rotary<B: Backend> {
    /// Cosine and sine of every position, `[s, d]`.
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    /// `R`, `[d, d]`.
    halves: Tensor<B, 2>,
}

/// The tables of a number of heads: `[1, s * h * d]` each.
#[derive(Debug, Clone)]
pub struct Turn<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    halves: Tensor<B, 2>,
}

impl<B: Backend> Rotary<B> {
    /// Positions in a sequence. `head_dim` is even.
    pub fn sequence(positions: &[u32], head_dim: usize, device: &B::Device) -> Self {
        let half = head_dim / 2;
        let angle =
            |s: usize, i: usize| f64::from(positions[s]) * BASE.powf(-(i as f64) / half as f64);
        Self::from_angles(positions.len(), half, angle, device)
    }

    /// Positions in a grid: the first half of the angles turns with the row, the second with the column. `head_dim` is a
    /// multiple of 4.
    pub fn grid(places: &[(u32, u32)], head_dim: usize, device: &B::Device) -> Self {
        let (half, quarter) = (head_dim / 2, head_dim / 4);
        let angle = |s: usize, i: usize| {
            let (row, column) = places[s];
            let position = if i < quarter { row } else { column };
            f64::from(position) * BASE.powf(-((i % quarter) as f64) / quarter as f64)
        };
        Self::from_angles(places.len(), half, angle, device)
    }

    fn from_angles(
        length: usize,
        half: usize,
        angle: impl Fn(usize, usize) -> f64,
        device: &B::Device,
    ) -> Self {
        let d = 2 * half;
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> =
                (0..length * d).map(|k| f(angle(k / d, k % d % half)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [length, d]), device)
        };
        let mut halves = vec![0.0f32; d * d];
        for i in 0..half {
            halves[(i + half) * d + i] = -1.0;
            halves[i * d + i + half] = 1.0;
        }
        let halves = Tensor::from_data(TensorData::new(halves, [d, d]), device);
        Self { cos: table(f64::cos), sin: table(f64::sin), halves }
    }

    /// Positions of one sequence.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Where its tables are.
    pub fn device(&self) -> B::Device {
        self.cos.device()
    }

    /// The tables of `heads` heads.
    pub fn of_heads(&self, heads: usize) -> Turn<B> {
        let [s, d] = self.cos.dims();
        let repeat = |table: &Tensor<B, 2>| {
            let table = table.clone().reshape([s, 1, d]).repeat_dim(1, heads);
            table.reshape([1, s * heads * d])
        };
        Turn { cos: repeat(&self.cos), sin: repeat(&self.sin), halves: self.halves.clone() }
    }
}

impl<B: Backend> Turn<B> {
    /// Turns each pair `(x[i], x[i + d / 2])` of every head of `x_rm`, `[n * s, h * d]`, by the angle of its position.
    pub fn apply(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        self.turned(x_rm, self.sin.clone())
    }

    /// The gradient of `x_rm`: the turn back.
    pub fn backward(&self, dy_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        self.turned(dy_rm, -self.sin.clone())
    }

    /// `x cos + (x R) sin`. Both halves of a head have the same angle, so a turn by the negative one is its transpose.
    fn turned(&self, x_rm: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 2> {
        let (shape @ [rows, width], dtype) = (x_rm.dims(), x_rm.dtype());
        let x_rm = to_f32(x_rm);
        let [d, _] = self.halves.dims();
        let [_, length] = self.cos.dims();
        let sequences = [rows * width / length, length];
        let moved = x_rm.clone().reshape([rows * width / d, d]).matmul(self.halves.clone());
        let x = x_rm.reshape(sequences) * self.cos.clone();
        cast((x + moved.reshape(sequences) * sin).reshape(shape), dtype)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn every_pair_is_turned_by_the_angle_of_its_position() {
        let device = Default::default();
        let x = Tensor::<Flex, 2>::random([6, 8], Distribution::Normal(0.0, 1.0), &device);
        let rotary = Rotary::<Flex>::sequence(&[0, 5, 1], 4, &device);
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
}
