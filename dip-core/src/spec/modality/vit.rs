//! Vision encoders.

use serde::{Deserialize, Serialize};

use super::{
    Filling, InstanceLoads, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice, ModuleSpec,
    TileSpec, Workload, add, square,
};
use crate::spec::batch::ImageSize;
use crate::spec::error::FieldError;

/// Vision encoder with a spatial-merge adapter at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VitSpec {
    /// Side of the square input image, in pixels. Pixels beyond the last whole patch are not used. With `native`, the side of a
    /// typical image: plans count images of unknown size as such squares.
    pub image_px: u32,
    /// Side of a patch, in pixels.
    pub patch_px: u32,
    /// Side of the square of patches that becomes one token of the decoder.
    pub merge: u32,
    /// The number of pixels of an image, if images keep their proportions. Without it they are scaled to squares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<PixelRange>,
    /// How it begins and ends.
    #[serde(default, skip_serializing_if = "Tower::is_native")]
    pub tower: Tower,
    /// The norm of its layers and of its adapter.
    #[serde(default, skip_serializing_if = "NormKind::is_layer")]
    pub norm: NormKind,
    /// Attention inside windows, if most layers have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSpec>,
    /// Side of a square table of learned positions, in patches. The table is interpolated to the grid of each image and added
    /// to its patches, beside the rotary positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position_side: Option<u32>,
    /// Layers whose outputs are merged, too, ascending. The first of these features is added to the output of the first layer
    /// of the decoder, the second to that of the second layer, and so on (DeepStack).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacked_layers: Vec<u32>,
    /// Steps of the time coordinate per second of a video. By default the time grows by one with each patch of frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions_per_second: Option<u32>,
    /// True if the first row of every image is dropped before the adapter. Defaults to true if it is a class token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_first: Option<bool>,
    /// Tiles, if large pictures are cut into several images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<TileSpec>,
}

/// Fewest and most pixels of an image that keeps its proportions. Smaller and larger pictures are scaled; both sides become
/// multiples of `patch_px * merge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PixelRange {
    /// Fewest pixels.
    pub min_pixels: u64,
    /// Most pixels.
    pub max_pixels: u64,
}

/// The norm of a vision encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Layer norm, with a shift.
    #[default]
    Layer,
    /// Root-mean-square norm.
    Rms,
}

impl NormKind {
    /// True if it is the default.
    pub fn is_layer(&self) -> bool {
        *self == Self::Layer
    }
}

/// Attention inside square windows of an image, as in Qwen2.5-VL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Side of a window, in pixels. Windows at the right and at the lower edge of an image may be smaller.
    pub px: u32,
    /// Layers in which every patch attends to its whole image instead.
    pub full_layers: Vec<u32>,
}

/// How a vision encoder begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Tower {
    /// Patch embedding with a bias, rotary positions of rows and columns, an adapter with a norm before it.
    #[default]
    Native,
    /// Like `Native`, without the bias. A patch spans two frames; a still image fills both.
    Qwen2Vl,
    /// Like `Native`; a patch spans two frames.
    Qwen3Vl,
    /// A class token, learned positions, a norm before the layers. The adapter has no norm.
    Clip,
    /// Patch embedding with a bias, learned positions, an adapter without a norm.
    Siglip,
    /// Like `Siglip`, with a norm after the layers. The adapter is one matrix without a bias.
    Idefics,
}

impl Tower {
    /// Frames of one patch.
    pub fn frames(self) -> u32 {
        if matches!(self, Self::Qwen2Vl | Self::Qwen3Vl) { 2 } else { 1 }
    }

    /// True if the patch embedding has a bias.
    pub fn patch_bias(self) -> bool {
        matches!(self, Self::Native | Self::Qwen3Vl | Self::Siglip | Self::Idefics)
    }

    /// True if positions are a learned table instead of rotary.
    pub fn learned_positions(self) -> bool {
        matches!(self, Self::Clip | Self::Siglip | Self::Idefics)
    }

    /// True if a norm goes between the layers and the adapter.
    pub fn end_norm(self) -> bool {
        !matches!(self, Self::Clip | Self::Siglip)
    }

    /// True if the adapter is one matrix without a bias instead of two layers.
    pub fn linear_adapter(self) -> bool {
        self == Self::Idefics
    }

    /// True if a class token goes before the patches of an image, and a norm before the layers.
    pub fn class_token(self) -> bool {
        self == Self::Clip
    }

    /// True if it is the default.
    pub fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

impl VitSpec {
    /// An encoder of square images with full attention, without further features.
    pub fn squares(image_px: u32, patch_px: u32, merge: u32, tower: Tower) -> Self {
        Self {
            image_px,
            patch_px,
            merge,
            native: None,
            tower,
            norm: NormKind::Layer,
            window: None,
            position_side: None,
            stacked_layers: Vec::new(),
            positions_per_second: None,
            drop_first: None,
            tiles: None,
        }
    }

    /// Side of a window in merged patches; `None` without windows.
    pub fn window_side(&self) -> Option<u32> {
        let merged_px = self.patch_px.saturating_mul(self.merge).max(1);
        self.window.as_ref().map(|window| (window.px / merged_px).max(1))
    }

    /// True if the first row of every image is dropped before the adapter.
    pub fn drops_first(&self) -> bool {
        self.drop_first.unwrap_or(self.tower.class_token())
    }

    /// Rows of one image in the layers: its patches, and the class token if there is one.
    pub fn rows_per_image(&self) -> u32 {
        self.patches().saturating_add(u32::from(self.tower.class_token()))
    }

    /// Tokens of one image in the decoder.
    pub fn tokens_per_image(&self) -> u32 {
        let rows = self.rows_per_image().saturating_sub(u32::from(self.drops_first()));
        rows / self.merge.max(1).saturating_pow(2)
    }

    fn validate_tiles(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        let Some(tiles) = &self.tiles else { return Ok(()) };
        if self.drops_first() != self.tower.class_token() {
            let limit = "absent where a class token is kept or a patch is dropped";
            let remedy = "leave drop_first out, so that the tokens of a tile are a square";
            return Err(FieldError::new(module.path("kind.vit.tiles"), "present", limit, remedy));
        }
        tiles.validate(module, self.image_px)
    }

    fn validate_native(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        let Some(PixelRange { min_pixels, max_pixels }) = self.native else { return Ok(()) };
        let path = |field: &str| module.path(&format!("kind.vit.native{field}"));
        if self.tower.learned_positions() || self.tiles.is_some() {
            let limit = "absent: this encoder has positions for one grid of patches";
            return Err(FieldError::new(path(""), "given", limit, "leave it out"));
        }
        let (token_px, image_px) =
            (u64::from(self.patch_px * self.merge), u64::from(self.image_px));
        let (least, most) = (token_px * token_px, 1 << 32);
        let remedy = "give at least the pixels of one token";
        FieldError::check_range(path(".min_pixels"), min_pixels, least..=most, remedy)?;
        let remedy = "raise it, or lower min_pixels";
        FieldError::check_range(path(".max_pixels"), max_pixels, min_pixels..=most, remedy)?;
        let remedy = "image_px is the side of a typical image: choose it between the two";
        let (path, pixels) = (module.path("the square of kind.vit.image_px"), image_px * image_px);
        FieldError::check_range(path, pixels, min_pixels..=max_pixels, remedy)
    }

    fn validate_features(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        if let Some(side) = self.position_side {
            module.check("kind.vit.position_side", side, 1 << 12)?;
        }
        if let Some(steps) = self.positions_per_second {
            module.check("kind.vit.positions_per_second", steps, 1 << 16)?;
        }
        let inside =
            |field: &str, layers: &[u32]| match layers.iter().find(|&&l| l >= module.layers) {
                None => Ok(()),
                Some(layer) => {
                    let limit = format!("layers of the {}, counted from 0", module.layers);
                    let remedy = "name layers of this module";
                    Err(FieldError::new(module.path(field), layer, limit, remedy))
                }
            };
        if let Some(window) = &self.window {
            let least = u64::from(self.patch_px) * u64::from(self.merge);
            if u64::from(window.px) < least || window.px > 1 << 16 {
                let limit = format!("patch_px * merge = {least} to 65536");
                let path = module.path("kind.vit.window.px");
                return Err(FieldError::new(path, window.px, limit, "try 4 merged patches"));
            }
            inside("kind.vit.window.full_layers", &window.full_layers)?;
        }
        inside("kind.vit.stacked_layers", &self.stacked_layers)?;
        if !self.stacked_layers.is_sorted_by(|a, b| a < b) {
            let path = module.path("kind.vit.stacked_layers");
            let found = format!("{:?}", self.stacked_layers);
            return Err(FieldError::new(
                path,
                found,
                "ascending",
                "sort them and remove repetitions",
            ));
        }
        Ok(())
    }

    /// The size of an image of which only the number is known.
    pub fn image_size(&self) -> ImageSize {
        ImageSize { patches: self.patches(), tokens: self.tokens_per_image(), views: 1 }
    }

    /// True if images have different sizes.
    pub fn varies(&self) -> bool {
        self.native.is_some() || self.tiles.is_some()
    }

    /// An upper bound of the size of an image.
    pub fn largest_size(&self) -> ImageSize {
        if let Some(tiles) = &self.tiles {
            let own = self.image_size();
            return tiles.largest_size(own, self.image_px);
        }
        let Some(range) = self.native else { return self.image_size() };
        let token_px = u64::from(self.patch_px * self.merge).max(1);
        let tokens = u32::try_from(range.max_pixels / (token_px * token_px)).unwrap_or(u32::MAX);
        ImageSize { patches: tokens.saturating_mul(self.merge.pow(2)), tokens, views: 1 }
    }

    /// Rows of an image in the layers: its patches, and a class token for each view if the tower has one.
    pub fn rows(&self, size: ImageSize) -> u64 {
        let class_tokens = u64::from(self.tower.class_token()) * u64::from(size.views);
        u64::from(size.patches) + class_tokens
    }

    fn patches(&self) -> u32 {
        (self.image_px / self.patch_px.max(1)).saturating_pow(2)
    }
}

impl Modality for VitSpec {
    fn name(&self) -> &str {
        "vit"
    }

    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        let &Self { image_px, patch_px, merge, .. } = self;
        module.check("kind.vit.image_px", image_px, 1 << 16)?;
        module.check("kind.vit.patch_px", patch_px, image_px)?;
        let side = image_px / patch_px;
        module.check("kind.vit.merge", merge, side)?;
        self.validate_features(module)?;
        if !side.is_multiple_of(merge) {
            let limit = format!("a side whose {side} patches are a multiple of merge = {merge}");
            let remedy = "change the image side so that whole merged patches cover it";
            return Err(FieldError::new(module.path("kind.vit.image_px"), image_px, limit, remedy));
        }
        if self.drops_first() != self.tower.class_token() && merge > 1 {
            let limit = "1 where a class token is kept or a patch is dropped";
            let remedy = "leave drop_first out";
            return Err(FieldError::new(module.path("kind.vit.merge"), merge, limit, remedy));
        }
        self.validate_native(module)?;
        self.validate_tiles(module)
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        (InstanceSpace::Images, microbatch.images.len())
    }

    /// An image counts by its rows. Images of which only the number is known count alike.
    fn instance_loads(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> Option<InstanceLoads> {
        let each: Vec<u64> =
            microbatch.images.sizes().iter().map(|&size| self.rows(size)).collect();
        (!each.is_empty()).then(|| InstanceLoads { own: self.rows(self.image_size()), each })
    }

    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let mut work = slice.empty_workload();
        let window = self.window_side().map(|side| square(u64::from(side * self.merge)));
        for (size, n) in slice.microbatch.images.runs(slice.instances.clone(), self.image_size()) {
            let (rows, views) = (self.rows(size), u64::from(size.views.max(1)));
            // Attention stays inside a view, and all views of an image have the same size.
            let pairs = square(rows) / views;
            add(&mut work.tokens, n.saturating_mul(rows));
            add(&mut work.attention_pairs, n.saturating_mul(pairs));
            if let Some(window) = window {
                // A patch sees the patches of its window, which the edges of the image may cut.
                let pairs = rows.saturating_mul(window.min(rows / views));
                add(&mut work.windowed_pairs, n.saturating_mul(pairs));
            }
            add(&mut work.output_tokens, n.saturating_mul(u64::from(size.tokens)));
            add(&mut work.views, n.saturating_mul(views));
        }
        work.computed_pairs = work.attention_pairs;
        work
    }

    fn sequence_tokens(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> u64 {
        let images = &microbatch.images;
        let tokens = |(size, n): (ImageSize, u64)| n.saturating_mul(u64::from(size.tokens));
        images.runs(0..images.len(), self.image_size()).map(tokens).fold(0, u64::saturating_add)
    }

    fn end_parameters(&self, module: &ModuleSpec, output_width: u64) -> u64 {
        let newline = if self.tiles.is_some() { output_width } else { 0 };
        let adapter = match self.tower.linear_adapter() {
            true => module.merged_width().saturating_mul(output_width),
            false => module.adapter_width().saturating_mul(module.merged_width() + output_width),
        };
        adapter.saturating_add(newline)
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        let values = 3 * u64::from(self.tower.frames()) * u64::from(self.patch_px).pow(2);
        let fixed = u64::from(self.tower.learned_positions()) * u64::from(self.rows_per_image());
        let table = fixed + self.position_side.map_or(0, |side| u64::from(side).pow(2));
        (values + table) * u64::from(module.hidden)
    }

    fn merged_rows(&self) -> u64 {
        u64::from(self.merge) * u64::from(self.merge)
    }

    fn is_windowed(&self, layer: u32) -> bool {
        self.window.as_ref().is_some_and(|window| !window.full_layers.contains(&layer))
    }

    fn stacked_layers(&self) -> &[u32] {
        &self.stacked_layers
    }

    fn fill(&self, at: &Filling<'_>, microbatch: &mut MicrobatchMeta) {
        microbatch.images = at.part(at.model.max_images.max(1)).into();
    }

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let images = tokens / u64::from(self.rows_per_image().max(1));
        let images = (images.clamp(1, 1 << 20) as u32).into();
        MicrobatchMeta { images, ..MicrobatchMeta::default() }
    }
}

impl ModuleSpec {
    /// Rows of one image in the layers of a vision encoder; 0 for other modalities.
    pub fn rows_per_image(&self) -> u32 {
        self.kind.get::<VitSpec>().map_or(0, VitSpec::rows_per_image)
    }

    /// Tokens of one image in the decoder, if this is a vision encoder; 0 for other modalities.
    pub fn tokens_per_image(&self) -> u32 {
        self.kind.get::<VitSpec>().map_or(0, VitSpec::tokens_per_image)
    }

    /// The tower of a vision encoder; the native one for other modalities.
    pub fn tower(&self) -> Tower {
        self.kind.get::<VitSpec>().map_or(Tower::Native, |vit| vit.tower)
    }
}
