//! Resizes pictures with antialiasing. Every byte equals that of `torchvision` on tensors of bytes.
//!
//! Two passes over bytes, first along rows and then along columns. The weights of a pass are 16-bit integers with as many binary
//! digits after the point as its largest weight allows.

use std::f64::consts::PI;

use dip_core::hf::{PixelSize, ResizeFilter};
use image::RgbImage;

/// Most binary digits of a weight after the point.
const MAX_DIGITS: u32 = 22;
/// Rows that are resized at once, so that the inner loop runs over neighbours in memory.
const BLOCK_ROWS: usize = 16;

/// The weights of one value of a pass.
struct Taps {
    /// The first value that counts.
    first: usize,
    /// The weights of this value and of those after it.
    weights: Vec<i32>,
}

/// The weights of one pass.
struct Pass {
    taps: Vec<Taps>,
    /// Binary digits of the weights after the point.
    digits: u32,
}

/// The picture at another size.
pub(in crate::data) fn resized(rgb: &RgbImage, size: PixelSize, filter: ResizeFilter) -> RgbImage {
    let (width, height) = rgb.dimensions();
    let mut image = None;
    if size.width != width {
        let pass = Pass::new(width, size.width, filter);
        image = Some(along_rows(rgb, &pass));
    }
    if size.height != height {
        let pass = Pass::new(height, size.height, filter);
        image = Some(along_columns(image.as_ref().unwrap_or(rgb), &pass));
    }
    image.unwrap_or_else(|| rgb.clone())
}

impl Pass {
    fn new(from: u32, to: u32, filter: ResizeFilter) -> Self {
        let scale = f64::from(from) / f64::from(to);
        // A filter that shrinks a picture is stretched over all the pixels that become one.
        let stretch = scale.max(1.0);
        let reach = radius(filter) * stretch;
        let mut largest = 0.0f64;
        let exact: Vec<(usize, Vec<f64>)> = (0..to)
            .map(|i| {
                let centre = scale * (f64::from(i) + 0.5);
                // Casts round towards 0, and stop at 0.
                let first = (centre - reach + 0.5) as u32;
                let end = ((centre + reach + 0.5) as u32).min(from);
                let at = |k| weight(filter, (f64::from(k) - centre + 0.5) / stretch);
                let mut weights: Vec<f64> = (first..end).map(at).collect();
                let sum: f64 = weights.iter().sum();
                if sum != 0.0 {
                    weights.iter_mut().for_each(|w| *w /= sum);
                }
                largest = weights.iter().copied().fold(largest, f64::max);
                (first as usize, weights)
            })
            .collect();
        let fits = |digits: u32| (0.5 + largest * f64::from(1u32 << (digits + 1))) < 32_768.0;
        let digits = (0..MAX_DIGITS).find(|&digits| !fits(digits)).unwrap_or(MAX_DIGITS);
        let whole = |w: f64| (w * f64::from(1u32 << digits)).round() as i32;
        let taps = exact.into_iter().map(|(first, weights)| Taps {
            first,
            weights: weights.into_iter().map(whole).collect(),
        });
        Self { taps: taps.collect(), digits }
    }

    fn half(&self) -> i32 {
        (1 << self.digits) >> 1
    }

    fn byte(&self, sum: i32) -> u8 {
        (sum >> self.digits).clamp(0, 255) as u8
    }
}

/// Half the width of a filter, in pixels.
fn radius(filter: ResizeFilter) -> f64 {
    match filter {
        ResizeFilter::Bilinear => 1.0,
        ResizeFilter::Bicubic => 2.0,
        ResizeFilter::Lanczos => 3.0,
    }
}

fn weight(filter: ResizeFilter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        ResizeFilter::Bilinear => (1.0 - x).max(0.0),
        ResizeFilter::Bicubic => cubic(x),
        ResizeFilter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
        ResizeFilter::Lanczos => 0.0,
    }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

fn along_rows(rgb: &RgbImage, pass: &Pass) -> RgbImage {
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    let to = pass.taps.len();
    let mut out = vec![0; 3 * to * height];
    let (source, lanes) = (rgb.as_raw().as_slice(), 3 * BLOCK_ROWS);
    // Pixels of one column lie side by side: `[width, BLOCK_ROWS, 3]`.
    let mut block = vec![0i32; width * lanes];
    let mut sums = vec![0i32; lanes];
    for start in (0..height).step_by(BLOCK_ROWS) {
        let rows = BLOCK_ROWS.min(height - start);
        for row in 0..rows {
            let line = &source[3 * width * (start + row)..][..3 * width];
            for (pixel, column) in line.chunks_exact(3).zip(block.chunks_exact_mut(lanes)) {
                for (to, &from) in column[3 * row..].iter_mut().zip(pixel) {
                    *to = i32::from(from);
                }
            }
        }
        for (column, taps) in pass.taps.iter().enumerate() {
            sums.fill(pass.half());
            let pixels = block[taps.first * lanes..].chunks_exact(lanes);
            for (&weight, pixels) in taps.weights.iter().zip(pixels) {
                add_weighted(&mut sums, pixels, weight);
            }
            for (row, pixel) in sums.chunks_exact(3).take(rows).enumerate() {
                let at = 3 * (to * (start + row) + column);
                for (to, &sum) in out[at..at + 3].iter_mut().zip(pixel) {
                    *to = pass.byte(sum);
                }
            }
        }
    }
    image(to, height, out)
}

fn along_columns(rgb: &RgbImage, pass: &Pass) -> RgbImage {
    let line = 3 * rgb.width() as usize;
    let mut out = Vec::with_capacity(line * pass.taps.len());
    let mut sums = vec![0i32; line];
    for taps in &pass.taps {
        sums.fill(pass.half());
        let rows = rgb.as_raw()[taps.first * line..].chunks_exact(line);
        for (&weight, row) in taps.weights.iter().zip(rows) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(value);
            }
        }
        out.extend(sums.iter().map(|&sum| pass.byte(sum)));
    }
    image(rgb.width() as usize, pass.taps.len(), out)
}

fn add_weighted(sums: &mut [i32], values: &[i32], weight: i32) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

fn image(width: usize, height: usize, bytes: Vec<u8>) -> RgbImage {
    RgbImage::from_raw(width as u32, height as u32, bytes).expect("three bytes per pixel")
}
