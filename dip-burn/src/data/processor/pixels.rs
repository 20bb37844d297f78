//! Pixel values of views.

use dip_core::hf::{
    ImageProcessorConfig, ImageRule, PixelScale, PixelSize, SplitRule, SquareResize, SquareRule,
    TilesRule,
};
use image::imageops::{crop_imm, replace};
use image::{Rgb, RgbImage};

use super::{layout, sizes};
use crate::batch::{Arrangement, TileGrid, ViewGrid};
use crate::data::picture::{PictureError, resized};

/// Most pixels of a picture after a step.
const MAX_PIXELS: u64 = 1 << 27;

/// The value of every byte of every colour.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PixelTable(Box<[[f32; 256]; 3]>);

impl PixelTable {
    pub fn new(scale: &PixelScale) -> Self {
        let value = |color: usize, byte: usize| {
            let value = byte as f32;
            match (scale.factor, scale.normal) {
                (None, None) => value,
                (Some(factor), None) => value * factor as f32,
                (factor, Some(normal)) => {
                    let unit = factor.map_or(1.0, |factor| (1.0 / factor) as f32);
                    let mean = normal.mean[color] as f32 * unit;
                    (value - mean) / (normal.deviation[color] as f32 * unit)
                }
            }
        };
        Self(Box::new(std::array::from_fn(|c| std::array::from_fn(|byte| value(c, byte)))))
    }

    /// Values `[3, rows * patch_px, columns * patch_px]`. Pixels right of and below the last whole patch are left out.
    pub fn values(
        &self,
        rgb: &RgbImage,
        grid: ViewGrid,
        patch_px: u32,
    ) -> Result<Vec<f32>, PictureError> {
        let (width, height) = (grid.columns * patch_px, grid.rows * patch_px);
        let (found_width, found_height) = rgb.dimensions();
        if width > found_width || found_width - width >= patch_px {
            return Err(PictureError::broken("its width is not that of its layout"));
        }
        if height > found_height || found_height - height >= patch_px {
            return Err(PictureError::broken("its height is not that of its layout"));
        }
        let line = 3 * found_width as usize;
        let mut values = Vec::with_capacity(3 * (width * height) as usize);
        for (color, table) in self.0.iter().enumerate() {
            for row in rgb.as_raw().chunks_exact(line).take(height as usize) {
                let bytes = row[color..].iter().step_by(3).take(width as usize);
                values.extend(bytes.map(|&byte| table[usize::from(byte)]));
            }
        }
        Ok(values)
    }
}

/// The views of a picture, in bytes. `arrangement` says whether a picture is divided.
pub(super) fn views(
    config: &ImageProcessorConfig,
    rgb: &RgbImage,
    arrangement: Arrangement,
) -> Result<Vec<RgbImage>, PictureError> {
    let to = Resizer { config };
    match &config.rule {
        ImageRule::Native(rule) => Ok(vec![to.size(rgb, sizes::native(size_of(rgb), rule)?)?]),
        ImageRule::Square(rule) => Ok(vec![to.square(rgb, rule)?]),
        ImageRule::Tiles(rule) if arrangement == Arrangement::RowsWithNewline => {
            let padded = to.padded_to_square(rgb)?;
            Ok(vec![to.size(&padded, PixelSize::square(rule.side_px))?])
        }
        ImageRule::Tiles(rule) => to.tiles(rgb, rule),
        ImageRule::Split(rule) => to.split(rgb, rule),
    }
}

struct Resizer<'a> {
    config: &'a ImageProcessorConfig,
}

impl Resizer<'_> {
    fn size(&self, rgb: &RgbImage, size: PixelSize) -> Result<RgbImage, PictureError> {
        bounded(size)?;
        Ok(resized(rgb, size, self.config.filter))
    }

    fn square(&self, rgb: &RgbImage, rule: &SquareRule) -> Result<RgbImage, PictureError> {
        let padded = if rule.pad { Some(self.padded_to_square(rgb)?) } else { None };
        let rgb = padded.as_ref().unwrap_or(rgb);
        let size = match rule.resize {
            SquareResize::ShorterSide(side) => sizes::with_shorter_side(size_of(rgb), side),
            SquareResize::Both(side) => PixelSize::square(side),
        };
        let rgb = self.size(rgb, size)?;
        Ok(match rule.crop_px {
            Some(side) => centre(&rgb, side),
            None => rgb,
        })
    }

    /// The picture in the middle of a square of the mean colour.
    fn padded_to_square(&self, rgb: &RgbImage) -> Result<RgbImage, PictureError> {
        let (width, height) = rgb.dimensions();
        let side = width.max(height);
        bounded(PixelSize::square(side))?;
        let mean = self.config.scale.mean.map(|mean| (mean * 255.0) as u8);
        let mut square = RgbImage::from_pixel(side, side, Rgb(mean));
        replace(&mut square, rgb, ((side - width) / 2).into(), ((side - height) / 2).into());
        Ok(square)
    }

    fn tiles(&self, rgb: &RgbImage, rule: &TilesRule) -> Result<Vec<RgbImage>, PictureError> {
        let side = rule.side_px;
        let size = size_of(rgb);
        let best = sizes::best_of(size, &rule.sizes)
            .ok_or(PictureError::Unfit { size, limit: "such that it can be divided into tiles" })?;
        bounded(best)?;
        let fitted = self.size(rgb, sizes::fitted(size, best))?;
        let left = (best.width - fitted.width()) / 2;
        let top = (best.height - fitted.height()) / 2;
        let mut padded = RgbImage::new(best.width, best.height);
        replace(&mut padded, &fitted, left.into(), top.into());
        let mut views = vec![self.size(rgb, PixelSize::square(side))?];
        let tiles = TileGrid { rows: best.height / side, columns: best.width / side };
        views.extend(cut(&padded, tiles, side));
        Ok(views)
    }

    fn split(&self, rgb: &RgbImage, rule: &SplitRule) -> Result<Vec<RgbImage>, PictureError> {
        let (size, side) = (size_of(rgb), PixelSize::square(rule.side_px));
        let longer = sizes::with_longer_side(size, rule.longer_side_px);
        let rgb = self.size(rgb, longer)?;
        let tiles = layout::split_tiles(rule, size);
        if tiles.rows == 0 {
            return Ok(vec![self.size(&rgb, side)?]);
        }
        let rgb = self.size(&rgb, sizes::in_tiles(longer, rule.side_px))?;
        let mut views = cut(&rgb, tiles, rule.side_px);
        views.push(self.size(&rgb, side)?);
        Ok(views)
    }
}

fn size_of(rgb: &RgbImage) -> PixelSize {
    PixelSize::new(rgb.width(), rgb.height())
}

/// Checks a size before anything is allocated for it.
fn bounded(size: PixelSize) -> Result<(), PictureError> {
    match size.pixels() {
        0 => Err(PictureError::Unfit { size, limit: "at least one pixel" }),
        pixels if pixels > MAX_PIXELS => {
            Err(PictureError::Unfit { size, limit: "at most 134217728 pixels once it is resized" })
        }
        _ => Ok(()),
    }
}

/// Square tiles, row by row.
fn cut(rgb: &RgbImage, tiles: TileGrid, side: u32) -> Vec<RgbImage> {
    let tile = |row, column| crop_imm(rgb, column * side, row * side, side, side).to_image();
    let row = |row| (0..tiles.columns).map(move |column| tile(row, column));
    (0..tiles.rows).flat_map(row).collect()
}

/// The square in the middle; a smaller picture gets a black border.
fn centre(rgb: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = rgb.dimensions();
    if (width, height) == (side, side) {
        return rgb.clone();
    }
    let mut square = RgbImage::new(side, side);
    // Of an odd border, the lower and the right half are wider; of an odd rest, the upper and the left half are narrower.
    let offset = |length: u32| match length > side {
        true => -i64::from((length - side) / 2),
        false => i64::from((side - length) / 2),
    };
    replace(&mut square, rgb, offset(width), offset(height));
    square
}
