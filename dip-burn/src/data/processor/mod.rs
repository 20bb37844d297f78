//! From pictures to images of the vision encoder, with the arithmetic of the model's own processor.
//!
//! Layouts and pixel values equal those of `AutoProcessor` of `transformers` 5, which takes the `torchvision` classes: resizes on
//! bytes, then one subtraction and one division. The pictures are what Pillow reads, turned upright by `exif_transpose`;
//! transparency is over white.

mod files;
mod layout;
mod pixels;
mod sizes;
mod videos;

use dip_core::hf::{
    ColorStatistics, ImageProcessorConfig, ImageRule, NativeRule, PixelSize, ResizeFilter,
    SquareResize, SquareRule, TilesRule,
};
use dip_core::{FieldError, ModelSpec, Tower, VitSpec};
use image::RgbImage;

use super::picture::{Picture, PictureError};
use crate::batch::{Image, ImageLayout, View};
pub(crate) use files::text as model_file;
use pixels::PixelTable;
pub use videos::VideoRule;

/// Turns pictures into images of a vision encoder: first their sizes, for packing and planning; later their pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
    patches: PatchGrid,
    /// The side for which drawn pictures are asked, in pixels.
    drawn_px: u32,
    table: PixelTable,
    /// The patches and the rule of videos, if the model takes videos.
    videos: Option<(NativeRule, VideoRule)>,
}

/// Patches and tokens of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PatchGrid {
    patch_px: u32,
    /// Patches along the side of the square that becomes one token.
    merge: u32,
    /// Tokens of a square view of the encoder's own size.
    square_tokens: u32,
}

impl ImageProcessor {
    /// A processor for the vision encoder of `model`, whose limits of pixels precede those of `config`.
    ///
    /// # Errors
    /// [`FieldError`] if the processor makes pictures that the encoder does not take, or if the model has no vision encoder.
    pub fn new(config: ImageProcessorConfig, model: &ModelSpec) -> Result<Self, FieldError> {
        let Some(vit) = vit_of(model) else {
            let remedy = "leave its processor out";
            return Err(FieldError::new("module", "text only", "with a vision encoder", remedy));
        };
        check(&config.rule, vit)?;
        let mut config = config;
        if let (ImageRule::Native(rule), Some(range)) = (&mut config.rule, vit.native) {
            (rule.min_pixels, rule.max_pixels) = (range.min_pixels, range.max_pixels);
        }
        Ok(Self::of_vit(config, vit))
    }

    /// The processor that suits the vision encoder of `model`, for models without files of their own; `None` without a vision
    /// encoder.
    ///
    /// Pictures keep their proportions if the encoder says so, with `native`. Otherwise they are scaled to its square; CLIP cuts out
    /// the middle. LLaVA-NeXT and LLaVA-OneVision divide them into tiles.
    pub fn of_model(model: &ModelSpec) -> Option<Self> {
        let vit = vit_of(model)?;
        let side = vit.image_px;
        let clip = vit.tower == Tower::Clip;
        let rule = match (&vit.tiles, vit.native) {
            (Some(tiles), _) => ImageRule::Tiles(TilesRule {
                side_px: side,
                sizes: tiles.resolutions.iter().map(|&[h, w]| PixelSize::new(w, h)).collect(),
                alone: tiles.max_tiles.is_some(),
                max_tiles: tiles.max_tiles,
            }),
            (None, Some(range)) => ImageRule::Native(NativeRule {
                patch_px: vit.patch_px,
                merge: vit.merge,
                frames: vit.tower.frames(),
                min_pixels: range.min_pixels,
                max_pixels: range.max_pixels,
            }),
            (None, None) if clip => ImageRule::Square(SquareRule {
                pad: false,
                resize: SquareResize::ShorterSide(side),
                crop_px: Some(side),
            }),
            (None, None) => ImageRule::Square(SquareRule {
                pad: false,
                resize: SquareResize::Both(side),
                crop_px: None,
            }),
        };
        let statistics = match vit.tower {
            Tower::Clip | Tower::Qwen2Vl => ColorStatistics::CLIP,
            _ => ColorStatistics::HALF,
        };
        let (filter, scale) = (ResizeFilter::Bicubic, statistics.into());
        Some(Self::of_vit(ImageProcessorConfig { rule, filter, scale }, vit))
    }

    fn of_vit(config: ImageProcessorConfig, vit: &VitSpec) -> Self {
        let table = PixelTable::new(&config.scale);
        let patches = PatchGrid {
            patch_px: vit.patch_px,
            merge: vit.merge,
            square_tokens: vit.tokens_per_image(),
        };
        // Qwen3-VL writes the time of every patch of frames between them.
        let takes_videos = vit.tower == Tower::Qwen2Vl;
        let videos = match config.rule {
            ImageRule::Native(rule) if takes_videos => Some((rule, VideoRule::of(&rule))),
            _ => None,
        };
        Self { config, patches, drawn_px: vit.image_px, table, videos }
    }

    /// The rule of pictures and their pixel values.
    pub fn config(&self) -> &ImageProcessorConfig {
        &self.config
    }

    /// The side for which drawn pictures are asked, in pixels.
    pub fn drawn_px(&self) -> u32 {
        self.drawn_px
    }

    /// The layout of every picture, if all have the same.
    pub fn fixed(&self) -> Option<ImageLayout> {
        match &self.config.rule {
            ImageRule::Square(rule) => Some(self.patches.square(layout::side(rule))),
            _ => None,
        }
    }

    /// The layout of a picture in a document with `pictures` pictures.
    ///
    /// # Errors
    /// [`PictureError`] if the encoder does not take pictures of this shape.
    pub fn layout(&self, size: PixelSize, pictures: usize) -> Result<ImageLayout, PictureError> {
        layout::of(&self.config.rule, self.patches, size, pictures)
    }

    /// Like [`layout`](Self::layout), from the header of the picture.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged header, or if the encoder does not take pictures of this shape.
    pub fn layout_of(
        &self,
        picture: &Picture,
        pictures: usize,
    ) -> Result<ImageLayout, PictureError> {
        match self.fixed() {
            Some(layout) => Ok(layout),
            None => self.layout(picture.size(self.drawn_px)?, pictures),
        }
    }

    /// The views of a picture, with normalised pixels.
    ///
    /// # Errors
    /// [`PictureError`] if a picture of this size has another layout.
    pub fn process(&self, rgb: &RgbImage, layout: &ImageLayout) -> Result<Vec<View>, PictureError> {
        let views = pixels::views(&self.config, rgb, layout.arrangement)?;
        let side = self.patches.patch_px;
        if views.len() != layout.views.len() {
            return Err(PictureError::broken("its size is not that of its layout"));
        }
        let view = |(rgb, &grid): (RgbImage, _)| {
            let pixels = self.table.values(&rgb, grid, side);
            pixels.map(|pixels| View { grid, pixels })
        };
        views.into_iter().zip(&layout.views).map(view).collect()
    }

    /// The image of a picture with its pixels.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged or oversized file, and if its pixels have another layout than its header.
    pub fn image(&self, picture: &Picture, layout: &ImageLayout) -> Result<Image, PictureError> {
        let views = self.process(&picture.rgb(self.drawn_px)?, layout)?;
        let &ImageLayout { arrangement, tokens, frame_seconds, .. } = layout;
        Ok(Image { views, arrangement, tokens, frame_seconds })
    }

    /// The image of a picture that cannot be decoded: the mean colour of the training data.
    pub fn blank(&self, layout: &ImageLayout) -> Image {
        layout.blank(self.patches.patch_px)
    }
}

fn vit_of(model: &ModelSpec) -> Option<&VitSpec> {
    model.modules.iter().find_map(|module| module.kind.get::<VitSpec>())
}

/// Checks that the encoder takes the views of a rule.
fn check(rule: &ImageRule, vit: &VitSpec) -> Result<(), FieldError> {
    let remedy = "take the processor files and the config.json of one model";
    let equal = |path: &str, found: u32, expected: u32, name: &str| {
        let limit = || format!("{expected}, the {name} of the vision encoder");
        match found == expected {
            true => Ok(()),
            false => Err(FieldError::new(path, found, limit(), remedy)),
        }
    };
    let tiled = matches!(rule, ImageRule::Tiles(_));
    if tiled != vit.tiles.is_some() {
        let (value, limit) = match tiled {
            true => ("given", "absent: the model has no token for the end of a row of tiles"),
            false => ("absent", "given: the model takes pictures in tiles"),
        };
        return Err(FieldError::new("image_grid_pinpoints", value, limit, remedy));
    }
    let side = match rule {
        ImageRule::Native(rule) => {
            if vit.tower.learned_positions() {
                let limit = "a processor of squares for an encoder with learned positions";
                return Err(FieldError::new("image processor", "native", limit, remedy));
            }
            equal("patch_size", rule.patch_px, vit.patch_px, "patches")?;
            equal("merge_size", rule.merge, vit.merge, "merged patches")?;
            return equal("temporal_patch_size", rule.frames, vit.tower.frames(), "frames");
        }
        ImageRule::Square(rule) => layout::side(rule),
        ImageRule::Tiles(rule) => rule.side_px,
        ImageRule::Split(rule) => rule.side_px,
    };
    equal("size", side, vit.image_px, "image side")
}

#[cfg(test)]
mod tests;
