//! The image processors of `transformers` by class, with their defaults.

use super::{
    ColorStatistics, ImageRule, NativeRule, PixelScale, PixelSize, ResizeFilter, SplitRule,
    SquareResize, SquareRule, TilesRule,
};
use crate::hf::fields::Fields;
use crate::spec::SpecError;

const REMEDY: &str = "take the files that came with the weights, or choose a model without it";
/// Longest side of a view or of a divided picture, in pixels.
const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels of a picture in its own proportions.
pub(super) const MAX_PIXELS: u64 = 1 << 26;
/// Most sizes that a picture may be divided at.
const MAX_SIZES: usize = 1024;
/// Most tiles of a picture.
const MAX_TILES: u64 = 256;

/// A class of image processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Qwen2Vl,
    Clip,
    Siglip,
    Llava,
    LlavaNext,
    LlavaOnevision,
    Idefics3,
    SmolVlm,
}

/// Name of the class, model types that use it without naming it, and the class.
const CLASSES: [(&str, &[&str], Class); 8] = [
    ("Qwen2VLImageProcessor", &["qwen2_vl", "qwen2_5_vl", "qwen3_vl"], Class::Qwen2Vl),
    ("CLIPImageProcessor", &["clip"], Class::Clip),
    ("SiglipImageProcessor", &["siglip"], Class::Siglip),
    ("LlavaImageProcessor", &["llava"], Class::Llava),
    ("LlavaNextImageProcessor", &["llava_next"], Class::LlavaNext),
    ("LlavaOnevisionImageProcessor", &["llava_onevision"], Class::LlavaOnevision),
    ("Idefics3ImageProcessor", &["idefics3"], Class::Idefics3),
    ("SmolVLMImageProcessor", &["smolvlm"], Class::SmolVlm),
];

impl Class {
    /// The class that the file names, otherwise that of the model.
    pub fn read(image: &Fields<'_>, model: Option<&Fields<'_>>) -> Result<Self, SpecError> {
        let known = || {
            let names: Vec<_> = CLASSES.iter().map(|(name, ..)| *name).collect();
            format!("one of {}", names.join(", "))
        };
        for field in ["image_processor_type", "feature_extractor_type"] {
            let found = image.text_or(field, "")?;
            if found.is_empty() {
                continue;
            }
            let name = found.strip_suffix("Fast").unwrap_or(found);
            let name = name.replace("FeatureExtractor", "ImageProcessor");
            return match CLASSES.iter().find(|(known, ..)| *known == name) {
                Some((.., class)) => Ok(*class),
                None => Err(image.error(field, format!("{found:?}"), &known(), REMEDY)),
            };
        }
        let model_type = model.map_or(Ok(""), |model| model.text_or("model_type", ""))?;
        match CLASSES.iter().find(|(_, types, _)| types.contains(&model_type)) {
            Some((.., class)) => Ok(*class),
            None => Err(image.error("image_processor_type", "absent".into(), &known(), REMEDY)),
        }
    }

    pub fn filter(self) -> ResizeFilter {
        match self {
            Self::Idefics3 | Self::SmolVlm => ResizeFilter::Lanczos,
            _ => ResizeFilter::Bicubic,
        }
    }

    pub fn statistics(self) -> ColorStatistics {
        match self {
            Self::Siglip | Self::Idefics3 | Self::SmolVlm => ColorStatistics::HALF,
            _ => ColorStatistics::CLIP,
        }
    }

    /// Sizes and division. `others` are the other files of the model, which may have fields that are absent from `image`.
    pub fn rule(
        self,
        image: &Fields<'_>,
        others: &[Option<&Fields<'_>>],
    ) -> Result<ImageRule, SpecError> {
        match self {
            Self::Qwen2Vl => native(image).map(ImageRule::Native),
            Self::Clip | Self::Siglip | Self::Llava => self.square(image).map(ImageRule::Square),
            Self::LlavaNext => self.tiles(image, None).map(ImageRule::Tiles),
            Self::LlavaOnevision => {
                let max_tiles = max_tiles(others)?;
                self.tiles(image, Some(max_tiles)).map(ImageRule::Tiles)
            }
            Self::Idefics3 | Self::SmolVlm => split(image).map(ImageRule::Split),
        }
    }

    fn square(self, image: &Fields<'_>) -> Result<SquareRule, SpecError> {
        let default = match self {
            Self::Siglip => Size::Exact(PixelSize::square(224)),
            _ => Size::ShorterSide(224),
        };
        let resize = match Size::read(image, "size", false)?.unwrap_or(default) {
            Size::ShorterSide(side) => SquareResize::ShorterSide(side),
            Size::Exact(size) => SquareResize::Both(side_of(image, "size", size)?),
            other => {
                return Err(other.refused(image, "size", "shortest_edge, or height and width"));
            }
        };
        let crops = image.flag_or("do_center_crop", self != Self::Siglip)?;
        let crop_px = if crops { Some(crop_side(image)?.unwrap_or(224)) } else { None };
        // Other classes only pad batches of different sizes, and these have one size.
        let pad = self == Self::Llava && image.flag_or("do_pad", false)?;
        if let (SquareResize::ShorterSide(side), None, false) = (resize, crop_px, pad) {
            let limit = "an object with height and width if do_center_crop is false";
            return Err(image.error("size.shortest_edge", side.to_string(), limit, REMEDY));
        }
        Ok(SquareRule { pad, resize, crop_px })
    }

    fn tiles(self, image: &Fields<'_>, max_tiles: Option<u32>) -> Result<TilesRule, SpecError> {
        let default = match self {
            Self::LlavaNext => Size::ShorterSide(224),
            _ => Size::Exact(PixelSize::square(384)),
        };
        let side_px = match Size::read(image, "size", false)?.unwrap_or(default) {
            Size::ShorterSide(side) => side,
            Size::Exact(size) => side_of(image, "size", size)?,
            other => {
                return Err(other.refused(image, "size", "shortest_edge, or height and width"));
            }
        };
        let crops = image.flag_or("do_center_crop", self == Self::LlavaNext)?;
        let default = (self == Self::LlavaNext).then_some(224);
        let crop = crop_side(image)?.or(default);
        if let Some(crop) = crop.filter(|&crop| crop != side_px && (crops || crop > 0)) {
            let limit = format!("{side_px}, the side of size");
            return Err(image.error("crop_size", crop.to_string(), &limit, REMEDY));
        }
        let sizes = match pinpoints(image, side_px)? {
            Some(sizes) => sizes,
            None => self.default_pinpoints(image, side_px)?,
        };
        Ok(TilesRule { side_px, sizes, alone: self == Self::LlavaOnevision, max_tiles })
    }

    fn default_pinpoints(self, image: &Fields<'_>, side: u32) -> Result<Vec<PixelSize>, SpecError> {
        let of = |columns: u32, rows: u32| PixelSize::new(columns * side, rows * side);
        match (self, side) {
            (Self::LlavaNext, 336) => Ok([(2, 1), (1, 2), (2, 2), (1, 3), (3, 1)]
                .map(|(columns, rows)| of(columns, rows))
                .to_vec()),
            (Self::LlavaOnevision, 384) => {
                Ok((1..=6).flat_map(|rows| (1..=6).map(move |columns| of(columns, rows))).collect())
            }
            _ => {
                let limit = "a list of heights and widths";
                Err(image.error("image_grid_pinpoints", "absent".into(), limit, REMEDY))
            }
        }
    }
}

/// A size as the files write it.
#[derive(Debug, Clone, Copy)]
enum Size {
    ShorterSide(u32),
    LongerSide(u32),
    Both { shortest: u64, longest: u64 },
    Exact(PixelSize),
}

impl Size {
    /// Reads a number, a list of height and width, or an object. A number is a square if `square` is true, otherwise the
    /// shorter side.
    fn read(image: &Fields<'_>, name: &str, square: bool) -> Result<Option<Self>, SpecError> {
        if image.is_number(name) {
            let side = side(image, name)?;
            return Ok(Some(match square {
                true => Self::Exact(PixelSize::square(side)),
                false => Self::ShorterSide(side),
            }));
        }
        if image.is_list(name) {
            let list = image.sizes(name)?.unwrap_or_default();
            return match list[..] {
                [height @ 1..=MAX_SIDE_PX, width @ 1..=MAX_SIDE_PX] => {
                    Ok(Some(Self::Exact(PixelSize::new(width, height))))
                }
                _ => Err(image.error(name, format!("{list:?}"), "height and width", REMEDY)),
            };
        }
        let Some(size) = image.child(name)? else { return Ok(None) };
        let shortest = size.optional_count("shortest_edge")?;
        let longest = size.optional_count("longest_edge")?;
        let height = size.optional_size("height")?;
        let width = size.optional_size("width")?;
        match (shortest, longest, height, width) {
            (Some(shortest), Some(longest), None, None) => {
                Ok(Some(Self::Both { shortest, longest }))
            }
            (Some(_), None, None, None) => {
                Ok(Some(Self::ShorterSide(side(&size, "shortest_edge")?)))
            }
            (None, Some(_), None, None) => Ok(Some(Self::LongerSide(side(&size, "longest_edge")?))),
            (None, None, Some(_), Some(_)) => {
                let (height, width) = (side(&size, "height")?, side(&size, "width")?);
                Ok(Some(Self::Exact(PixelSize::new(width, height))))
            }
            // Qwen2-VL of transformers 4; the fields are read with those of the same names outside.
            _ if size.optional_count("min_pixels")?.is_some() => Ok(None),
            _ => {
                let limit = "shortest_edge, longest_edge, or height and width";
                Err(image.error(name, "another object".into(), limit, REMEDY))
            }
        }
    }

    fn refused(self, image: &Fields<'_>, name: &str, limit: &str) -> SpecError {
        let found = match self {
            Self::ShorterSide(_) => "shortest_edge",
            Self::LongerSide(_) => "longest_edge",
            Self::Both { .. } => "shortest_edge and longest_edge",
            Self::Exact(_) => "height and width",
        };
        image.error(name, found.into(), limit, REMEDY)
    }
}

fn side(fields: &Fields<'_>, name: &str) -> Result<u32, SpecError> {
    let side = fields.size(name)?;
    if side > MAX_SIDE_PX {
        let limit = format!("at most {MAX_SIDE_PX} pixels");
        return Err(fields.error(name, side.to_string(), &limit, REMEDY));
    }
    Ok(side)
}

fn side_of(image: &Fields<'_>, name: &str, size: PixelSize) -> Result<u32, SpecError> {
    if size.width != size.height {
        let found = format!("{} x {}", size.width, size.height);
        return Err(image.error(name, found, "a square", REMEDY));
    }
    Ok(size.width)
}

fn crop_side(image: &Fields<'_>) -> Result<Option<u32>, SpecError> {
    match Size::read(image, "crop_size", true)? {
        None => Ok(None),
        Some(Size::Exact(size)) => side_of(image, "crop_size", size).map(Some),
        Some(other) => Err(other.refused(image, "crop_size", "height and width")),
    }
}

fn native(image: &Fields<'_>) -> Result<NativeRule, SpecError> {
    // The limits do not grow with the patches of the file.
    let usual = NativeRule::usual(14, 2, 2);
    let (mut min_pixels, mut max_pixels) = match Size::read(image, "size", false)? {
        Some(Size::Both { shortest, longest }) => (shortest, longest),
        Some(other) => return Err(other.refused(image, "size", "shortest_edge and longest_edge")),
        None => (usual.min_pixels, usual.max_pixels),
    };
    let inner = image.child("size").ok().flatten();
    for fields in inner.iter().chain([image]) {
        min_pixels = fields.optional_count("min_pixels")?.unwrap_or(min_pixels);
        max_pixels = fields.optional_count("max_pixels")?.unwrap_or(max_pixels);
    }
    let rule = NativeRule {
        patch_px: image.size_or("patch_size", usual.patch_px)?,
        merge: image.size_or("merge_size", usual.merge)?,
        frames: image.size_or("temporal_patch_size", usual.frames)?,
        min_pixels,
        max_pixels,
    };
    if rule.patch_px > 1024 || rule.merge > 16 || rule.frames > 16 {
        let found = format!("{} (merge {}, {} frames)", rule.patch_px, rule.merge, rule.frames);
        let limit = "at most 1024, with merge_size and temporal_patch_size of at most 16";
        return Err(image.error("patch_size", found, limit, REMEDY));
    }
    if max_pixels > MAX_PIXELS || min_pixels > max_pixels {
        let found = format!("{max_pixels} (min_pixels {min_pixels})");
        let limit = format!("at least min_pixels and at most {MAX_PIXELS}");
        return Err(image.error("max_pixels", found, &limit, REMEDY));
    }
    Ok(rule)
}

fn split(image: &Fields<'_>) -> Result<SplitRule, SpecError> {
    let longer = |name: &str, default: u32| match Size::read(image, name, false)? {
        None => Ok(default),
        Some(Size::LongerSide(side)) => Ok(side),
        Some(other) => Err(other.refused(image, name, "longest_edge")),
    };
    let rule = SplitRule {
        longer_side_px: longer("size", 4 * 364)?,
        side_px: longer("max_image_size", 364)?,
        divide: image.flag_or("do_image_splitting", true)?,
    };
    if u64::from(rule.longer_side_px.div_ceil(rule.side_px)).pow(2) > MAX_TILES {
        let found = format!("{} (max_image_size {})", rule.longer_side_px, rule.side_px);
        let limit = format!("such that a picture has at most {MAX_TILES} tiles");
        return Err(image.error("size.longest_edge", found, &limit, REMEDY));
    }
    Ok(rule)
}

/// The sizes of `image_grid_pinpoints`, which are pairs of height and width.
fn pinpoints(image: &Fields<'_>, side: u32) -> Result<Option<Vec<PixelSize>>, SpecError> {
    let name = "image_grid_pinpoints";
    let Some(pairs) = image.size_pairs(name, MAX_SIZES)? else { return Ok(None) };
    let sizes: Vec<_> = pairs.into_iter().map(|[h, w]| PixelSize::new(w, h)).collect();
    let whole = |n: u32| n > 0 && n <= MAX_SIDE_PX && n.is_multiple_of(side);
    for size in &sizes {
        let tiles = u64::from(size.width / side) * u64::from(size.height / side);
        if !(whole(size.width) && whole(size.height) && tiles <= MAX_TILES) {
            let found = format!("{} x {}", size.height, size.width);
            let limit = format!("of multiples of {side} pixels, with at most {MAX_TILES} tiles");
            return Err(image.error(name, found, &limit, REMEDY));
        }
    }
    if sizes.is_empty() {
        return Err(image.error(name, "empty".into(), "a list of heights and widths", REMEDY));
    }
    Ok(Some(sizes))
}

/// The number in `anyres_max_9`, which is in `processor_config.json` or `config.json`.
fn max_tiles(others: &[Option<&Fields<'_>>]) -> Result<u32, SpecError> {
    let name = "vision_aspect_ratio";
    for fields in others.iter().flatten() {
        let found = fields.text_or(name, "")?;
        if found.is_empty() {
            continue;
        }
        let number = found.strip_prefix("anyres_max_").and_then(|number| number.parse().ok());
        return match number {
            Some(tiles @ 1..=MAX_TILES) => Ok(tiles as u32),
            _ => {
                let limit = "anyres_max_ and a number from 1 to 256";
                Err(fields.error(name, format!("{found:?}"), limit, REMEDY))
            }
        };
    }
    Ok(9)
}

/// Refuses fields that change pixel values in ways that are not supported.
pub(super) fn refuse_unsupported(image: &Fields<'_>) -> Result<(), SpecError> {
    for name in ["do_resize", "do_convert_rgb"] {
        if !image.flag_or(name, true)? {
            return Err(image.error(name, "false".into(), "true", REMEDY));
        }
    }
    for name in ["pad_size", "use_square_size", "do_reduce_labels", "do_flip_channel_order"] {
        if image.is_set(name) {
            return Err(image.error(name, "set".into(), "absent", REMEDY));
        }
    }
    Ok(())
}

/// The filter with a number of Pillow.
pub(super) fn filter(image: &Fields<'_>, default: ResizeFilter) -> Result<ResizeFilter, SpecError> {
    if !image.is_set("resample") {
        return Ok(default);
    }
    match image.integer_or("resample", -1)? {
        1 => Ok(ResizeFilter::Lanczos),
        2 => Ok(ResizeFilter::Bilinear),
        3 => Ok(ResizeFilter::Bicubic),
        other => {
            let limit = "1 (Lanczos), 2 (bilinear) or 3 (bicubic)";
            Err(image.error("resample", other.to_string(), limit, REMEDY))
        }
    }
}

pub(super) fn scale(image: &Fields<'_>, default: ColorStatistics) -> Result<PixelScale, SpecError> {
    let mean = image.three_numbers("image_mean")?.unwrap_or(default.mean);
    let deviation = image.three_numbers("image_std")?.unwrap_or(default.deviation);
    let within = |limit: f64| move |value: &f64| value.is_finite() && value.abs() <= limit;
    if !mean.iter().all(within(1e6)) {
        return Err(image.error("image_mean", format!("{mean:?}"), "at most 1e6", REMEDY));
    }
    if !deviation.iter().all(|value| within(1e6)(value) && *value >= 1e-6) {
        let found = format!("{deviation:?}");
        return Err(image.error("image_std", found, "from 1e-6 to 1e6", REMEDY));
    }
    let factor = image.number_or("rescale_factor", 1.0 / 255.0)?;
    if !(1e-9..=1e6).contains(&factor) {
        return Err(image.error("rescale_factor", factor.to_string(), "from 1e-9 to 1e6", REMEDY));
    }
    Ok(PixelScale {
        factor: image.flag_or("do_rescale", true)?.then_some(factor),
        normal: image.flag_or("do_normalize", true)?.then_some(ColorStatistics { mean, deviation }),
        mean,
    })
}
