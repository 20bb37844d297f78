//! Softmax over the last dimension.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::lanes::{exp, folded, sum};
use super::{in_parts, of_flex, values};

/// The softmax of `scores` plus `mask`, which is the mask of one sequence and is repeated for all.
pub fn softmax(scores: Tensor<Flex, 4>, mask: Option<&Tensor<Flex, 4>>) -> Tensor<Flex, 4> {
    let width = scores.dims()[3].max(1);
    let mask = mask.map(|mask| values(mask.clone()));
    let mask = mask.as_ref().map(|mask| mask.storage::<f32>());
    let mut scores = values(scores);
    in_parts(scores.storage_mut(), width, |start, scores| {
        for (i, row) in scores.chunks_exact_mut(width).enumerate() {
            if let Some(mask) = mask {
                let from = (start + i * width) % mask.len();
                row.iter_mut().zip(&mask[from..]).for_each(|(x, m)| *x += m);
            }
            let larger = |a: f32, b: f32| if a < b { b } else { a };
            let most = folded([row], f32::NEG_INFINITY, |a, [b]| larger(a, b), larger);
            row.iter_mut().for_each(|x| *x = exp(*x - most));
            let scale = 1.0 / sum([row], |[x]| x);
            row.iter_mut().for_each(|x| *x *= scale);
        }
    });
    of_flex(scores)
}

/// The gradient of the scores from the `weights` of the softmax and their gradient.
pub fn softmax_backward(weights: Tensor<Flex, 4>, d_weights: Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let width = weights.dims()[3].max(1);
    let weights = values(weights);
    let weights = weights.storage::<f32>();
    let mut d = values(d_weights);
    in_parts(d.storage_mut(), width, |start, d| {
        for (row, p) in d.chunks_exact_mut(width).zip(weights[start..].chunks_exact(width)) {
            let along = sum([row, p], |[d, p]| d * p);
            row.iter_mut().zip(p).for_each(|(d, p)| *d = (*d - along) * p);
        }
    });
    of_flex(d)
}
