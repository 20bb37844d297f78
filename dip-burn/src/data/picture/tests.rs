use std::io::Cursor;
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISO_HDLC, Crc};
use image::{DynamicImage, ImageFormat, Rgb, RgbaImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Expected {
    width: u32,
    height: u32,
    crc32: u32,
    /// The middle row, in hexadecimal digits.
    row: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/processors")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("pictures").join(name)).unwrap()
}

fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn hexadecimal(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

#[test]
fn files_of_every_format_have_the_pixels_that_pillow_reads() {
    let text = std::fs::read_to_string(fixtures().join("pictures.json")).unwrap();
    let all: std::collections::BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut wrong = Vec::new();
    for (name, expected) in &all {
        let picture = Picture::Encoded(file(name).into());
        picture.check().expect(name);
        let size = PixelSize::new(expected.width, expected.height);
        assert_eq!(picture.size(0).expect(name), size, "{name}");
        let rgb = picture.rgb(0).expect(name);
        assert_eq!(rgb.dimensions(), (size.width, size.height), "{name}");
        if crc.checksum(rgb.as_raw()) != expected.crc32 {
            let row = hexadecimal(&expected.row);
            let found = &rgb.as_raw()[size.height as usize / 2 * row.len()..];
            let worst = row.iter().zip(found).map(|(a, b)| a.abs_diff(*b)).max();
            wrong.push(format!("{name}: {worst:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn formats_that_are_not_read_are_named() {
    let avif = [&[0, 0, 0, 28], &b"ftypavif"[..], &[0; 40]].concat();
    let heif = [&[0, 0, 0, 28], &b"ftypheic"[..], &[0; 40]].concat();
    for (bytes, name) in [(avif, "AVIF"), (heif, "HEIF"), (vec![0xff, 0x0a, 0, 0], "JPEG XL")] {
        let error = Picture::Encoded(bytes.into()).check().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.reason(), SkipReason::UnsupportedPicture);
    }
}

#[test]
fn files_that_are_cut_off_are_refused() {
    let image = DynamicImage::ImageRgb8(RgbImage::from_fn(40, 30, |x, y| {
        Rgb([(x * y) as u8, (7 * x) as u8, (5 * y) as u8])
    }));
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    for format in [Jpeg, Png, WebP, Gif, Bmp, Tiff] {
        let bytes = encoded(image.clone(), format);
        let picture = |bytes: &[u8]| Picture::Encoded(bytes.into());
        picture(&bytes).check().unwrap();
        // Some cameras append their own data.
        picture(&[&bytes[..], &[0; 10]].concat()).rgb(0).unwrap();
        for kept in [bytes.len() / 3, bytes.len() / 2, bytes.len() * 9 / 10] {
            let cut = picture(&bytes[..kept]);
            assert!(cut.rgb(0).is_err(), "{format:?}, {kept} of {} bytes", bytes.len());
            if matches!(format, Jpeg | Png | WebP) {
                let error = cut.check().unwrap_err().to_string();
                assert!(error.contains("cut off"), "{format:?}, {kept}: {error}");
            }
        }
    }
}

#[test]
fn transparency_becomes_white() {
    let clear = RgbaImage::from_pixel(3, 3, image::Rgba([9, 9, 9, 0]));
    let bytes = encoded(DynamicImage::ImageRgba8(clear), ImageFormat::Png);
    let rgb = Picture::Encoded(bytes.into()).rgb(3).unwrap();
    assert!(rgb.pixels().all(|pixel| pixel.0 == [255; 3]));
}

#[test]
fn damaged_and_oversized_files_are_refused_with_a_reason() {
    let damaged = Picture::Encoded(b"not a picture".to_vec().into());
    assert!(damaged.check().unwrap_err().to_string().contains("JPEG, PNG, WebP"));
    let wide = DynamicImage::ImageLuma8(image::GrayImage::new(MAX_SIDE_PX + 1, 1));
    let wide = Picture::Encoded(encoded(wide, ImageFormat::Png).into());
    assert!(wide.check().is_err());
    assert!(wide.rgb(4).is_err() && wide.size(4).is_err());
}

/// Reads `count` files with damaged, missing and repeated bytes. None may panic.
fn damage(count: usize) {
    let names: Vec<_> = std::fs::read_dir(fixtures().join("pictures"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let files: Vec<_> = names.iter().map(|name| file(name)).collect();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for _ in 0..count {
        let mut bytes = files[random.random_range(0..files.len())].clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[at] = random.random(),
                1 => bytes[at] ^= 1 << random.random_range(0..8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        let picture = Picture::Encoded(bytes.into());
        let caught = |error: &PictureError| error.to_string().contains("panicked");
        for result in [picture.check().err(), picture.size(0).err(), picture.rgb(0).err()] {
            assert!(!result.as_ref().is_some_and(caught), "{picture:?}");
        }
    }
}

#[test]
fn damaged_files_do_not_panic() {
    damage(400);
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn ten_thousand_damaged_files_do_not_panic() {
    damage(10_000);
}
