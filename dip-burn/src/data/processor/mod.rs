//! From pictures to images of the vision encoder.

use dip_core::{ModelSpec, VitSpec};
use image::RgbImage;

use super::picture::{Picture, PictureError, scaled};
use crate::batch::{Image, ImageLayout, View};

/// Turns pictures into images of a vision encoder: first their sizes, for packing and planning; later their pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    vit: VitSpec,
}

impl ImageProcessor {
    /// The processor of the vision encoder of `model`, or `None` if it has none.
    pub fn of_model(model: &ModelSpec) -> Option<Self> {
        let vit = model.modules.iter().find_map(|module| module.kind.get::<VitSpec>());
        vit.map(|vit| Self { vit: vit.clone() })
    }

    /// The side for which drawn pictures are asked, in pixels.
    pub fn drawn_px(&self) -> u32 {
        self.vit.image_px
    }

    /// The layout of every picture, if all have the same.
    pub fn fixed(&self) -> Option<ImageLayout> {
        Some(ImageLayout::square(&self.vit))
    }

    /// The layout of a picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`PictureError`] if the encoder does not take pictures of this shape.
    pub fn layout(&self, width: u32, height: u32) -> Result<ImageLayout, PictureError> {
        let _ = (width, height);
        Ok(ImageLayout::square(&self.vit))
    }

    /// The layout of a picture, from its header.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged header, or if the encoder does not take pictures of this shape.
    pub fn layout_of(&self, picture: &Picture) -> Result<ImageLayout, PictureError> {
        if let Some(layout) = self.fixed() {
            return Ok(layout);
        }
        let (width, height) = picture.size(self.drawn_px())?;
        self.layout(width, height)
    }

    /// The views of a picture, with normalised pixels.
    ///
    /// # Errors
    /// [`PictureError`] if the encoder does not take pictures of this shape.
    pub fn process(&self, rgb: &RgbImage) -> Result<Vec<View>, PictureError> {
        let layout = self.layout(rgb.width(), rgb.height())?;
        let side = self.vit.image_px;
        let pixels = self.normalised(&scaled(rgb, side, side));
        Ok(layout.with_pixels([pixels]).views)
    }

    /// The image of a picture with its pixels.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged or oversized file, and if its pixels have another layout than its header.
    pub fn image(&self, picture: &Picture, layout: &ImageLayout) -> Result<Image, PictureError> {
        let views = self.process(&picture.rgb(self.drawn_px())?)?;
        let &ImageLayout { arrangement, tokens, frame_seconds, .. } = layout;
        let image = Image { views, arrangement, tokens, frame_seconds };
        if image.layout() != *layout {
            return Err(PictureError::broken("its pixels have another size than its header says"));
        }
        Ok(image)
    }

    /// The image of a picture that cannot be decoded: the mean colour of the training data.
    pub fn blank(&self, layout: &ImageLayout) -> Image {
        layout.blank(self.vit.patch_px)
    }

    /// Values `[3, height, width]`, normalised by the statistics of the tower.
    fn normalised(&self, rgb: &RgbImage) -> Vec<f32> {
        let pixels = (rgb.width() * rgb.height()) as usize;
        let statistics = self.vit.tower.pixel_statistics();
        let mut chw = vec![0.0; 3 * pixels];
        for (i, pixel) in rgb.pixels().enumerate() {
            for (channel, &value) in pixel.0.iter().enumerate() {
                let value = f32::from(value) / 127.5 - 1.0;
                chw[channel * pixels + i] = match statistics {
                    Some(statistics) => {
                        let (mean, deviation) = statistics[channel];
                        ((value + 1.0) / 2.0 - mean) / deviation
                    }
                    None => value,
                };
            }
        }
        chw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn channels_are_separate_and_values_lie_between_minus_one_and_one() {
        let vit: VitSpec = dip_core::from_toml("image_px = 2\npatch_px = 1\nmerge = 1").unwrap();
        let processor = ImageProcessor { vit };
        let red = RgbImage::from_pixel(8, 4, Rgb([255, 0, 51]));
        let views = processor.process(&red).unwrap();
        let pixels = &views[0].pixels;
        assert_eq!(pixels[..8], [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
        assert!((pixels[8] - (-0.6)).abs() < 1e-6);
    }
}
