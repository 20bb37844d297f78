//! The inverse transform of libjpeg's `islow`, in integers.

use super::Component;
use super::tables::QuantTable;

/// The place of each coefficient of the zigzag order, row by row.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
/// Binary digits of the constants after the point.
const CONST_BITS: u32 = 13;
/// Binary digits that the first pass keeps.
const PASS_BITS: u32 = 2;

/// The samples of a component, `[rows of blocks * 8, stride * 8]`.
pub(super) fn samples(component: &Component, table: &QuantTable) -> Vec<u8> {
    let line = component.stride * 8;
    let mut out = vec![0; component.coefficients.len() * 64];
    for (index, block) in component.coefficients.iter().enumerate() {
        let (row, column) = (index / component.stride, index % component.stride);
        let at = row * 8 * line + column * 8;
        let mut values = [[0i32; 8]; 8];
        for ((&place, &value), &factor) in ZIGZAG.iter().zip(block).zip(table) {
            let place = usize::from(place);
            values[place / 8][place % 8] = i32::from(value).wrapping_mul(factor.into());
        }
        if block[1..].iter().all(|&value| value == 0) {
            let value = byte(values[0][0].wrapping_add(4) >> 3);
            (0..8).for_each(|y| out[at + y * line..][..8].fill(value));
            continue;
        }
        pass(&mut values, CONST_BITS - PASS_BITS);
        transpose(&mut values);
        pass(&mut values, CONST_BITS + PASS_BITS + 3);
        transpose(&mut values);
        for (y, row) in values.iter().enumerate() {
            out[at + y * line..][..8].copy_from_slice(&row.map(byte));
        }
    }
    out
}

fn byte(value: i32) -> u8 {
    value.saturating_add(128).clamp(0, 255) as u8
}

/// Eight columns, each transformed alike.
type Lanes = [i32; 8];

fn add(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

fn sub(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
}

fn times(a: Lanes, factor: i32) -> Lanes {
    a.map(|value| value.wrapping_mul(factor))
}

/// Transforms every column, and shifts the values right by `shift`, rounded.
fn pass(rows: &mut [Lanes; 8], shift: u32) {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = *rows;
    // Even part.
    let z1 = times(add(r2, r6), 4433);
    let even2 = add(z1, times(r6, -15137));
    let even3 = add(z1, times(r2, 6270));
    let even0 = times(add(r0, r4), 1 << CONST_BITS);
    let even1 = times(sub(r0, r4), 1 << CONST_BITS);
    let even = [add(even0, even3), add(even1, even2), sub(even1, even2), sub(even0, even3)];
    // Odd part.
    let (z3, z4) = (add(r7, r3), add(r5, r1));
    let z5 = times(add(z3, z4), 9633);
    let (z1, z2) = (times(add(r7, r1), -7373), times(add(r5, r3), -20995));
    let (z3, z4) = (add(times(z3, -16069), z5), add(times(z4, -3196), z5));
    let odd = [
        add(add(times(r1, 12299), z1), z4),
        add(add(times(r3, 25172), z2), z3),
        add(add(times(r5, 16819), z2), z4),
        add(add(times(r7, 2446), z1), z3),
    ];
    let half = 1i32 << (shift - 1);
    let rounded = |lanes: Lanes| lanes.map(|value| value.wrapping_add(half) >> shift);
    for (i, (even, odd)) in even.into_iter().zip(odd).enumerate() {
        rows[i] = rounded(add(even, odd));
        rows[7 - i] = rounded(sub(even, odd));
    }
}

fn transpose(rows: &mut [Lanes; 8]) {
    *rows = std::array::from_fn(|i| std::array::from_fn(|k| rows[k][i]));
}
