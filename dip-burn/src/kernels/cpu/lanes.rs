//! Loops at the full vector width of the processor, and functions that the compiler can inline into them.
//!
//! Every product and sum is rounded separately, without fused multiply-add, so that all processors give the same bits.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

use pulp::Arch;

/// The number of partial sums of a row: two full vectors.
const LANES: usize = 32;
/// Below this value the exponential is not a normal number; it becomes zero.
const LOWEST: f32 = -87.33;
/// Above this value the exponential would be infinite or nearly infinite.
const HIGHEST: f32 = 88.37;
/// Adding this value rounds to the nearest whole number and leaves it in the lowest bits.
const ROUND: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts: products of the first with exponents are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// Runs `kernel` compiled for the widest vectors of this processor.
#[inline(always)]
pub fn vectorised<R>(kernel: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(kernel)
}

/// `e^x` to 3 parts in ten million; zero below the range of normal numbers, and `e^`[`HIGHEST`] above it.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // NaN fails these comparisons, and so stays NaN.
    let inside = if x < LOWEST { LOWEST } else { x };
    let inside = if inside > HIGHEST { HIGHEST } else { inside };
    let rounded = inside * LOG2_E + ROUND;
    let exponent = rounded - ROUND;
    let r = inside - exponent * LN_2[0] - exponent * LN_2[1];
    // Taylor's series: |r| is at most ln(2) / 2, where the next term is below 6e-9.
    let series = r * (1.0 / 5040.0) + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < LOWEST { 0.0 } else { series * power }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The normal distribution function of `x`, to 3e-7, and `e^(-x^2 / 2)`: Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * FRAC_1_SQRT_2 * x.abs());
    let series = t * 1.061_405_4 - 1.453_152;
    let series = series * t + 1.421_413_7;
    let series = series * t - 0.284_496_74;
    let series = series * t + 0.254_829_6;
    let tail = 0.5 * series * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// Folds the rows `x`, of equal length, from `start`. Place `i` goes to partial result `i % LANES`; the partial results are then
/// joined.
#[inline(always)]
pub fn folded<const N: usize>(
    x: [&[f32]; N],
    start: f32,
    add: impl Fn(f32, [f32; N]) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = x.map(|x| x.as_chunks::<LANES>());
    for i in 0..chunks[0].0.len() {
        let chunk = chunks.map(|(whole, _)| &whole[i]);
        for lane in 0..LANES {
            lanes[lane] = add(lanes[lane], chunk.map(|values| values[lane]));
        }
    }
    for lane in 0..chunks[0].1.len() {
        lanes[lane] = add(lanes[lane], chunks.map(|(_, rest)| rest[lane]));
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of `term` over the places of the rows `x`.
#[inline(always)]
pub fn sum<const N: usize>(x: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    folded(x, 0.0, |sum, x| sum + term(x), |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from -120 to 120, denser around zero.
    fn numbers() -> impl Iterator<Item = f32> {
        (-20_000..=20_000).map(|i| i as f32 / 20_000.0).map(|u| u * u * u * 120.0)
    }

    #[test]
    fn exponentials_equal_double_precision_to_three_parts_in_ten_million() {
        for x in numbers().filter(|x| (-87.0..88.0).contains(x)) {
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "{x}: {}", exp(x));
        }
        assert_eq!([-88.0, -1e9, f32::NEG_INFINITY].map(exp), [0.0; 3]);
        assert_eq!((exp(0.0), exp(1e9)), (1.0, exp(HIGHEST)));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_distribution_equals_the_mathematics_library() {
        for x in numbers() {
            let exact = 0.5 * (1.0 + libm_erf(f64::from(x) / 2f64.sqrt()));
            assert!((f64::from(normal(x).0) - exact).abs() < 5e-7, "{x}: {}", normal(x).0);
        }
        assert!(normal(f32::NAN).0.is_nan());
        assert_eq!((normal(f32::INFINITY).0, normal(f32::NEG_INFINITY).0), (1.0, 0.0));
    }

    #[test]
    fn sums_count_every_place_once_at_any_length() {
        for length in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected = (0..length).map(|i| 2 * i * i).sum::<i32>() as f32;
            assert_eq!(sum([&x, &x], |[a, b]| 2.0 * a * b), expected);
        }
    }

    /// The error function by Burn, on the CPU backend from the mathematics library, in double precision.
    fn libm_erf(x: f64) -> f64 {
        use burn::tensor::{DType, Tensor, TensorData};
        let data = TensorData::new(vec![x], [1]);
        let options = (&Default::default(), DType::F64);
        let x = Tensor::<burn::backend::Flex, 1>::from_data(data, options);
        x.erf().into_data().to_vec::<f64>().expect("doubles")[0]
    }
}
