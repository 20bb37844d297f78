//! Reads `preprocessor_config.json` and `processor_config.json` of Hugging Face: how a model sees a picture.
//!
//! Absent fields have the defaults of the class that `image_processor_type` names. A field that changes pixel values and is
//! not supported is an error.

mod rules;
mod video;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{self, Fields};
use crate::spec::SpecError;
pub use video::VideoProcessorConfig;

use rules::{Class, MAX_PIXELS};

/// Mean of each colour in the data of CLIP.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviation of each colour in the data of CLIP.
const CLIP_DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// How a picture becomes the pixel values of a vision encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageProcessorConfig {
    /// Size and division of the picture.
    pub rule: ImageRule,
    /// The filter of every resize.
    pub filter: ResizeFilter,
    /// From bytes to pixel values.
    pub scale: PixelScale,
}

/// Which views of a picture the vision encoder sees, and in which sizes. All sizes are in pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageRule {
    /// The picture in its own proportions, as in the Qwen-VL family: both sides become multiples of `patch_px * merge`.
    Native(NativeRule),
    /// One square, as in CLIP, SigLIP and LLaVA 1.5.
    Square(SquareRule),
    /// A square view of the whole picture, then square tiles of it, as in LLaVA-NeXT and LLaVA-OneVision.
    Tiles(TilesRule),
    /// Square tiles of the picture, then a square view of it, as in Idefics3 and SmolVLM.
    Split(SplitRule),
}

/// The sizes of [`ImageRule::Native`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeRule {
    /// Side of a patch.
    pub patch_px: u32,
    /// Patches along the side of the square that becomes one token.
    pub merge: u32,
    /// Frames that one patch spans; a still picture fills all of them.
    pub frames: u32,
    /// Fewest pixels of a resized picture.
    pub min_pixels: u64,
    /// Most pixels of a resized picture.
    pub max_pixels: u64,
}

impl NativeRule {
    /// The sizes of the processor of Qwen2-VL, where no file gives others: 4 to 1,280 tokens of `merge` x `merge` patches.
    pub fn usual(patch_px: u32, merge: u32, frames: u32) -> Self {
        let token = (u64::from(patch_px) * u64::from(merge)).pow(2);
        let (min_pixels, max_pixels) = (4 * token, 1280 * token);
        Self { patch_px, merge, frames, min_pixels, max_pixels }
    }
}

/// The steps of [`ImageRule::Square`], in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SquareRule {
    /// True if the picture is first padded to a square with the mean colour.
    pub pad: bool,
    /// The resize.
    pub resize: SquareResize,
    /// Side of the square that is cut out of the middle; a smaller picture gets a black border.
    pub crop_px: Option<u32>,
}

/// The resize of [`SquareRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SquareResize {
    /// The shorter side gets this length; proportions stay.
    ShorterSide(u32),
    /// Both sides get this length.
    Both(u32),
}

/// The sizes of [`ImageRule::Tiles`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TilesRule {
    /// Side of a tile, and of the view of the whole picture.
    pub side_px: u32,
    /// The sizes that a picture may be divided at; multiples of `side_px`.
    pub sizes: Vec<PixelSize>,
    /// True if only the picture of a document that has no other is divided. The others are padded to squares.
    pub alone: bool,
    /// Tiles whose tokens a divided picture may have; more tokens are interpolated to fewer. `None` without a limit.
    pub max_tiles: Option<u32>,
}

/// The sizes of [`ImageRule::Split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRule {
    /// Length of the longer side of a picture before it is divided.
    pub longer_side_px: u32,
    /// Side of a tile, and of the view of the whole picture.
    pub side_px: u32,
    /// True if the picture is divided; otherwise there is only the view of the whole picture.
    pub divide: bool,
}

/// Width and height of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PixelSize {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

impl PixelSize {
    /// A size of `width` x `height` pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// A square.
    pub fn square(side: u32) -> Self {
        Self::new(side, side)
    }

    /// Number of pixels.
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// A filter for resizing, with antialiasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeFilter {
    /// A triangle, 2 pixels wide.
    Bilinear,
    /// Cubic with `a = -0.5`, 4 pixels wide.
    Bicubic,
    /// Windowed sinc, 6 pixels wide.
    Lanczos,
}

/// From the bytes of a picture to pixel values: `(byte * factor - mean) / deviation`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PixelScale {
    /// Factor of the bytes, mostly 1/255; `None` leaves them as they are.
    pub factor: Option<f64>,
    /// Mean and standard deviation of each colour; `None` leaves the scaled values as they are.
    pub normal: Option<ColorStatistics>,
    /// Mean of each colour. It is the padding of pictures that are padded to squares.
    pub mean: [f64; 3],
}

/// Mean and standard deviation of each colour, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ColorStatistics {
    /// The mean.
    pub mean: [f64; 3],
    /// The standard deviation.
    pub deviation: [f64; 3],
}

impl ColorStatistics {
    /// The statistics of the data of CLIP.
    pub const CLIP: Self = Self { mean: CLIP_MEAN, deviation: CLIP_DEVIATION };
    /// Values from -1 to 1.
    pub const HALF: Self = Self { mean: [0.5; 3], deviation: [0.5; 3] };
}

impl From<ColorStatistics> for PixelScale {
    fn from(statistics: ColorStatistics) -> Self {
        Self { factor: Some(1.0 / 255.0), normal: Some(statistics), mean: statistics.mean }
    }
}

/// The texts of the files of a model that describe its processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessorFiles<'a> {
    /// `preprocessor_config.json`
    pub preprocessor: Option<&'a str>,
    /// `processor_config.json`
    pub processor: Option<&'a str>,
    /// `config.json`
    pub model: Option<&'a str>,
}

impl ImageProcessorConfig {
    /// Reads the image processor of a model; `None` if no file describes one.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn read(files: ProcessorFiles<'_>) -> Result<Option<Self>, SpecError> {
        let processor = parsed(files.processor, PROCESSOR)?;
        let model = parsed(files.model, MODEL)?;
        let processor = processor.as_ref().map(|json| Fields::of_file(json, PROCESSOR));
        let processor = processor.transpose()?;
        let model = model.as_ref().map(|json| Fields::of_file(json, MODEL)).transpose()?;
        let nested = processor.as_ref().map(|all| all.child("image_processor")).transpose()?;
        let json = match nested.flatten() {
            Some(image) => return Self::of(&image, processor.as_ref(), model.as_ref()).map(Some),
            None => parsed(files.preprocessor, PREPROCESSOR)?,
        };
        let Some(json) = json else { return Ok(None) };
        let image = Fields::of_file(&json, PREPROCESSOR)?;
        // Models that only hear have a feature extractor of sounds in this file.
        if image.text_or("feature_extractor_type", "")? == SOUNDS {
            return Ok(None);
        }
        Self::of(&image, processor.as_ref(), model.as_ref()).map(Some)
    }

    fn of(
        image: &Fields<'_>,
        processor: Option<&Fields<'_>>,
        model: Option<&Fields<'_>>,
    ) -> Result<Self, SpecError> {
        let class = Class::read(image, model)?;
        rules::refuse_unsupported(image)?;
        Ok(Self {
            rule: class.rule(image, &[processor, model])?,
            filter: rules::filter(image, class.filter())?,
            scale: rules::scale(image, class.statistics())?,
        })
    }
}

const PREPROCESSOR: &str = "preprocessor_config.json";
/// Reads sounds, not pictures.
const SOUNDS: &str = "WhisperFeatureExtractor";
const PROCESSOR: &str = "processor_config.json";
const MODEL: &str = "config.json";

fn parsed(text: Option<&str>, file: &str) -> Result<Option<Value>, SpecError> {
    text.map(|text| fields::parsed(text, &format!("{file}: "))).transpose()
}

#[cfg(test)]
mod tests;
