//! Components at the size of the picture. Those of half size are interpolated with a triangle, as libjpeg does by default.

use super::{Component, Damage, Frame};

/// The samples of a component at the size of the picture, `[height, width]`.
pub(super) fn to_full_size(
    samples: Vec<u8>,
    component: &Component,
    frame: &Frame,
) -> Result<Vec<u8>, Damage> {
    if !frame.h_max.is_multiple_of(component.h) || !frame.v_max.is_multiple_of(component.v) {
        return Err("sampling factors that are no whole multiples, which are not read");
    }
    let (h, v) = (frame.h_max / component.h, frame.v_max / component.v);
    let source = Source { samples, stride: component.stride * 8, component };
    let (width, height) = (frame.width, frame.height);
    let mut out = Vec::with_capacity(width * height);
    let mut line = vec![0; width.max(2 * component.width)];
    // Two columns are too few to interpolate.
    let is_wide = component.width > 2;
    for y in 0..height {
        match (h, v) {
            (1, 1) => line[..width].copy_from_slice(source.row(y)),
            (2, 1) if is_wide => twice_as_wide(source.row(y), &mut line),
            (2, 2) if is_wide => {
                let (near, far) = source.rows_around(y);
                twice_as_large(near, far, &mut line);
            }
            (1, 2) => {
                let (near, far) = source.rows_around(y);
                // Upper rows round down at half, lower ones up.
                let half = if y % 2 == 0 { 1 } else { 2 };
                for ((to, &near), &far) in line.iter_mut().zip(near).zip(far) {
                    *to = ((3 * u32::from(near) + u32::from(far) + half) >> 2) as u8;
                }
            }
            _ => {
                let row = source.row(y / v);
                line[..width].chunks_mut(h).zip(row).for_each(|(to, &value)| to.fill(value));
            }
        }
        out.extend_from_slice(&line[..width]);
    }
    Ok(out)
}

struct Source<'a> {
    samples: Vec<u8>,
    stride: usize,
    component: &'a Component,
}

impl Source<'_> {
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.component.width]
    }

    /// The nearest row of half height to row `y`, and the next nearest.
    fn rows_around(&self, y: usize) -> (&[u8], &[u8]) {
        let near = y / 2;
        let far = match y % 2 {
            0 => near.saturating_sub(1),
            _ => (near + 1).min(self.component.height - 1),
        };
        (self.row(near), self.row(far))
    }
}

fn twice_as_wide(row: &[u8], out: &mut [u8]) {
    let toward = |value: u8, other: u8, half: u32| {
        ((3 * u32::from(value) + u32::from(other) + half) >> 2) as u8
    };
    for (pair, three) in out[2..].chunks_exact_mut(2).zip(row.windows(3)) {
        pair.copy_from_slice(&[toward(three[1], three[0], 1), toward(three[1], three[2], 2)]);
    }
    let last = row.len() - 1;
    (out[0], out[1]) = (row[0], toward(row[0], row[1], 2));
    (out[2 * last], out[2 * last + 1]) = (toward(row[last], row[last - 1], 1), row[last]);
}

fn twice_as_large(near: &[u8], far: &[u8], out: &mut [u8]) {
    let sum = |(&near, &far): (&u8, &u8)| 3 * u32::from(near) + u32::from(far);
    let mut sums = near.iter().zip(far).map(sum);
    let mut this = sums.next().unwrap_or(0);
    let mut left = this;
    for pair in out.chunks_exact_mut(2).take(near.len()) {
        // At the ends the neighbour is the value itself.
        let right = sums.next().unwrap_or(this);
        pair.copy_from_slice(&[
            ((3 * this + left + 8) >> 4) as u8,
            ((3 * this + right + 7) >> 4) as u8,
        ]);
        (left, this) = (this, right);
    }
}
