//! Colours of components.

use image::RgbImage;

use super::Damage;

/// What the components of a picture are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

impl Space {
    /// The space of components with these ids, by the rules of libjpeg.
    pub fn of(ids: &[u8], has_jfif: bool, adobe: Option<u8>) -> Self {
        match (ids, adobe) {
            ([_], _) => Self::Grey,
            ([_, _, _], _) if has_jfif => Self::YCbCr,
            ([_, _, _], Some(0)) => Self::Rgb,
            (b"RGB", None) => Self::Rgb,
            ([_, _, _], _) => Self::YCbCr,
            (_, Some(0) | None) => Self::Cmyk,
            _ => Self::Ycck,
        }
    }
}

/// The picture from its components, each `[height, width]`.
pub(super) fn rgb(
    planes: &[Vec<u8>],
    (width, height): (usize, usize),
    space: Space,
) -> Result<RgbImage, Damage> {
    let mut bytes = vec![0; 3 * width * height];
    let pixels = bytes.chunks_exact_mut(3);
    let convert = YCbCr::new();
    match planes {
        [grey] => pixels.zip(grey).for_each(|(pixel, &grey)| pixel.fill(grey)),
        [a, b, c] => {
            for (((pixel, &a), &b), &c) in pixels.zip(a).zip(b).zip(c) {
                pixel.copy_from_slice(&match space {
                    Space::Rgb => [a, b, c],
                    _ => convert.rgb([a, b, c]),
                });
            }
        }
        [a, b, c, k] => {
            for ((((pixel, &a), &b), &c), &k) in pixels.zip(a).zip(b).zip(c).zip(k) {
                // Adobe stores the inverse of every ink, and Pillow takes all files for Adobe's.
                let inks = match space {
                    Space::Ycck => convert.rgb([a, b, c]),
                    _ => [255 - a, 255 - b, 255 - c],
                };
                pixel.copy_from_slice(&inks.map(|ink| of_ink(ink, k)));
            }
        }
        _ => return Err("a wrong number of colours"),
    }
    RgbImage::from_raw(width as u32, height as u32, bytes).ok_or("a wrong number of colours")
}

/// The light that an ink leaves, where black ink leaves `light`.
fn of_ink(ink: u8, light: u8) -> u8 {
    let product = u32::from(ink) * u32::from(light) + 128;
    light - (((product >> 8) + product) >> 8) as u8
}

/// Tables of the conversion, with 16 binary digits after the point.
struct YCbCr {
    red: [i32; 256],
    blue: [i32; 256],
    green_of_cr: [i32; 256],
    green_of_cb: [i32; 256],
}

impl YCbCr {
    fn new() -> Self {
        const HALF: i32 = 1 << 15;
        let table =
            |factor: i32, half: i32| std::array::from_fn(|i| factor * (i as i32 - 128) + half);
        Self {
            red: table(91_881, HALF).map(|value: i32| value >> 16),
            blue: table(116_130, HALF).map(|value: i32| value >> 16),
            green_of_cr: table(-46_802, 0),
            green_of_cb: table(-22_554, HALF),
        }
    }

    fn rgb(&self, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let (y, cb, cr) = (i32::from(y), usize::from(cb), usize::from(cr));
        let green = (self.green_of_cb[cb] + self.green_of_cr[cr]) >> 16;
        [y + self.red[cr], y + green, y + self.blue[cb]].map(|value| value.clamp(0, 255) as u8)
    }
}
