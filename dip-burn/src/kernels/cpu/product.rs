//! Products of matrices in blocks of columns.
//!
//! The kernel of the CPU backend packs its operands. A block of few columns stays in the caches meanwhile. All columns of a wide
//! matrix, such as 1024, do not, which costs up to half of the speed.

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use super::{flex, tensor, values};
use crate::kernels::plain::product as plain;

/// Columns of a block.
const BLOCK: usize = 128;
/// Columns that are computed at once by default.
const FEW: usize = 256;
/// Fewest multiplications for which blocks pay off.
const LARGE: usize = 1 << 22;
/// Rows at a distance of a multiple of this many values share cache sets, and evict each other.
const COLLIDING: usize = 512;
/// Added to that distance.
const APART: usize = 16;

/// `x w + bias`: `[r, i]` times `[i, o]`, and `[o]`.
pub fn product(
    x: Tensor<Flex, 2>,
    w: Tensor<Flex, 2>,
    bias: Option<Tensor<Flex, 1>>,
) -> Tensor<Flex, 2> {
    if rayon::current_num_threads() > 1 {
        return plain(x, w, bias);
    }
    let ([rows, inner], [_, columns]) = (x.dims(), w.dims());
    let large = rows.saturating_mul(inner).saturating_mul(columns) >= LARGE;
    let lies_across = flex(x.clone()).layout().strides()[1] != 1;
    let colliding = collides(&flex(w.clone()));
    match large && columns > BLOCK && (columns > FEW || lies_across || colliding) {
        true => in_blocks(x, w, bias),
        false => plain(x, w, bias),
    }
}

fn in_blocks(
    x: Tensor<Flex, 2>,
    w: Tensor<Flex, 2>,
    bias: Option<Tensor<Flex, 1>>,
) -> Tensor<Flex, 2> {
    let ([rows, _], [_, columns]) = (x.dims(), w.dims());
    let bias = bias.map(values);
    let mut y = vec![0.0; rows * columns];
    for start in (0..columns).step_by(BLOCK) {
        let width = BLOCK.min(columns - start);
        let part = spread_rows(w.clone().narrow(1, start, width));
        let part = values(x.clone().matmul(part));
        for (y, part) in y.chunks_exact_mut(columns).zip(part.storage::<f32>().chunks_exact(width))
        {
            let y = &mut y[start..start + width];
            match &bias {
                Some(bias) => {
                    let bias = &bias.storage::<f32>()[start..start + width];
                    y.iter_mut().zip(part).zip(bias).for_each(|((y, x), bias)| *y = x + bias);
                }
                None => y.copy_from_slice(part),
            }
        }
    }
    tensor(y, [rows, columns])
}

/// True if `w` is a transposed matrix whose rows collide.
fn collides(w: &FlexTensor) -> bool {
    let strides = w.layout().strides();
    strides[0] == 1 && strides[1] > 0 && strides[1].unsigned_abs().is_multiple_of(COLLIDING)
}

/// Returns `w` with a larger distance between its rows if they collide.
fn spread_rows(w: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    if !collides(&flex(w.clone())) {
        return w;
    }
    let [inner, columns] = w.dims();
    let rows = values(w.transpose());
    let mut wide = vec![0.0; columns * (inner + APART)];
    let pairs = wide.chunks_exact_mut(inner + APART).zip(rows.storage::<f32>().chunks_exact(inner));
    pairs.for_each(|(wide, row)| wide[..inner].copy_from_slice(row));
    tensor(wide, [columns, inner + APART]).narrow(1, 0, inner).transpose()
}
