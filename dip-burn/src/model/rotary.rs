//! Rotary positions: one table of angles for sequences, and for the rows and columns of images.
//!
//! Shape legend: b batch, h heads, s sequence, d head width.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// Base of the angles.
const BASE: f64 = 10_000.0;

/// Cosines and sines of every position, `[1, 1, s, d / 2]` each.
#[derive(Debug, Clone)]
pub struct Rotary<B: Backend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
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
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> =
                (0..length * half).map(|k| f(angle(k / half, k % half)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, length, half]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Turns each pair `(x[i], x[i + d / 2])` of a head by the angle of its position.
    pub fn apply(&self, x_bhsd: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut halves = x_bhsd.chunk(2, 3).into_iter();
        let (Some(a), Some(b)) = (halves.next(), halves.next()) else {
            unreachable!("an even width has two halves")
        };
        let turned_a = a.clone() * self.cos.clone() - b.clone() * self.sin.clone();
        let turned_b = b * self.cos.clone() + a * self.sin.clone();
        Tensor::cat(vec![turned_a, turned_b], 3)
    }
}
