//! Norms. Shape legend: r rows, m width.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::lanes::{sum, vectorised};
use super::{in_parts, of_flex, tensor, values};

/// `x_rm` at unit variance, with mean zero if `centred`, and the factor of each row, `[r, 1]`.
pub fn standardised(x_rm: Tensor<Flex, 2>, centred: bool, epsilon: f64) -> [Tensor<Flex, 2>; 2] {
    let [rows, width] = x_rm.dims();
    let x = values(x_rm);
    let x = x.storage::<f32>();
    let share = 1.0 / width as f32;
    let mean = |row: &[f32]| if centred { sum([row], |[x]| x) * share } else { 0.0 };
    let mut scale = vec![0.0; rows];
    in_parts(&mut scale, 1, |start, scale| {
        for (scale, row) in scale.iter_mut().zip(x[start * width..].chunks_exact(width)) {
            let mean = mean(row);
            let variance = sum([row], |[x]| (x - mean) * (x - mean)) * share;
            *scale = 1.0 / (variance + epsilon as f32).sqrt();
        }
    });
    let mut unit = vec![0.0; x.len()];
    in_parts(&mut unit, width, |start, unit| {
        let rows = unit.chunks_exact_mut(width).zip(x[start..].chunks_exact(width));
        for ((unit, row), scale) in rows.zip(&scale[start / width..]) {
            let mean = mean(row);
            unit.iter_mut().zip(row).for_each(|(unit, x)| *unit = (x - mean) * scale);
        }
    });
    [tensor(unit, [rows, width]), tensor(scale, [rows, 1])]
}

/// `unit * gamma`, plus `beta` if there is one.
pub fn affine(
    unit_rm: Tensor<Flex, 2>,
    gamma: Tensor<Flex, 1>,
    beta: Option<Tensor<Flex, 1>>,
) -> Tensor<Flex, 2> {
    let shape @ [_, width] = unit_rm.dims();
    let (unit, gamma) = (values(unit_rm), values(gamma));
    let beta = beta.map(values);
    let (unit, gamma) = (unit.storage::<f32>(), gamma.storage::<f32>());
    let beta = beta.as_ref().map(|beta| beta.storage::<f32>());
    let mut y = vec![0.0; unit.len()];
    in_parts(&mut y, width, |start, y| {
        for (y, unit) in y.chunks_exact_mut(width).zip(unit[start..].chunks_exact(width)) {
            y.iter_mut().zip(unit).zip(gamma).for_each(|((y, unit), gamma)| *y = unit * gamma);
            if let Some(beta) = beta {
                y.iter_mut().zip(beta).for_each(|(y, beta)| *y += beta);
            }
        }
    });
    tensor(y, shape)
}

/// The gradient of the input of [`standardised`] from its results and the gradient of the affine result, or of the unit rows
/// without `gamma`.
pub fn standardised_backward(
    [unit_rm, scale]: [Tensor<Flex, 2>; 2],
    gamma: Option<Tensor<Flex, 1>>,
    dy_rm: Tensor<Flex, 2>,
    centred: bool,
) -> Tensor<Flex, 2> {
    let [_, width] = unit_rm.dims();
    let (unit, scale, gamma) = (values(unit_rm), values(scale), gamma.map(values));
    let (unit, scale) = (unit.storage::<f32>(), scale.storage::<f32>());
    let gamma = gamma.as_ref().map(|gamma| gamma.storage::<f32>());
    let share = 1.0 / width as f32;
    let mut d = values(dy_rm);
    in_parts(d.storage_mut(), width, |start, d| {
        let rows = d.chunks_exact_mut(width).zip(unit[start..].chunks_exact(width));
        for ((d, unit), scale) in rows.zip(&scale[start / width..]) {
            if let Some(gamma) = gamma {
                d.iter_mut().zip(gamma).for_each(|(d, gamma)| *d *= gamma);
            }
            let mean = if centred { sum([d], |[d]| d) * share } else { 0.0 };
            let along = sum([d, unit], |[d, unit]| d * unit) * share;
            d.iter_mut().zip(unit).for_each(|(d, u)| *d = (*d - mean - u * along) * scale);
        }
    });
    of_flex(d)
}

/// The sums of `x * y` over the rows, `[m]`.
pub fn product_sums(x_rm: Tensor<Flex, 2>, y_rm: Tensor<Flex, 2>) -> Tensor<Flex, 1> {
    let [_, width] = x_rm.dims();
    let (x, y) = (values(x_rm), values(y_rm));
    let (x, y) = (x.storage::<f32>(), y.storage::<f32>());
    let mut sums = vec![0.0; width];
    vectorised(|| {
        for (x, y) in x.chunks_exact(width.max(1)).zip(y.chunks_exact(width.max(1))) {
            sums.iter_mut().zip(x).zip(y).for_each(|((sum, x), y)| *sum += x * y);
        }
    });
    tensor(sums, [width])
}
