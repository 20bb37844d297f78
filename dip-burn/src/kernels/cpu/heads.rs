//! Copies the heads of attention to contiguous rows, on which products are fast, and back.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{tensor, values};

/// `sequences` sequences of `length` rows of `x`, `[rows, heads * width]`, from row `start`: `[sequences, heads, length, width]`.
pub fn split_heads(
    x: &Tensor<Flex, 2>,
    start: usize,
    [sequences, length, width]: [usize; 3],
) -> Tensor<Flex, 4> {
    let [_, across] = x.dims();
    let heads = across / width;
    let x = values(x.clone());
    let rows = &x.storage::<f32>()[start * across..];
    let mut y = Vec::with_capacity(sequences * length * across);
    for sequence in rows.chunks_exact((length * across).max(1)).take(sequences) {
        for head in 0..heads {
            for row in sequence.chunks_exact(across) {
                y.extend_from_slice(&row[head * width..(head + 1) * width]);
            }
        }
    }
    tensor(y, [sequences, heads, length, width])
}

/// The reverse of [`split_heads`]: `[n, h, s, d]` as rows, `[n * s, h * d]`.
pub fn joined_heads(x: Tensor<Flex, 4>) -> Tensor<Flex, 2> {
    let [sequences, heads, length, width] = x.dims();
    let x = values(x);
    let x = x.storage::<f32>();
    let mut y = Vec::with_capacity(x.len());
    for sequence in x.chunks_exact((heads * length * width).max(1)) {
        for row in 0..length {
            for head in 0..heads {
                let from = (head * length + row) * width;
                y.extend_from_slice(&sequence[from..from + width]);
            }
        }
    }
    tensor(y, [sequences * length, heads * width])
}
