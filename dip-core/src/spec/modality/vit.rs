//! Vision encoders.

use serde::{Deserialize, Serialize};

use super::{
    Filling, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice, ModuleSpec, Workload, square,
};
use crate::spec::error::FieldError;

/// Vision encoder with a spatial-merge adapter at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitSpec {
    /// Side of the square input image, in pixels.
    pub image_px: u32,
    /// Side of a patch, in pixels.
    pub patch_px: u32,
    /// Side of the square of patches that becomes one token of the decoder.
    pub merge: u32,
    /// How it begins and ends.
    #[serde(default, skip_serializing_if = "Tower::is_native")]
    pub tower: Tower,
}

/// How a vision encoder begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tower {
    /// Patch embedding with a bias, rotary positions of rows and columns, an adapter with a norm before it.
    #[default]
    Native,
    /// Like `Native`, without the bias. A patch spans two frames; a still image fills both.
    Qwen2Vl,
    /// A class token, learned positions, a norm before the layers. The adapter has no norm and drops the class token.
    Clip,
    /// Patch embedding with a bias, learned positions, an adapter without a norm.
    Siglip,
}

impl Tower {
    /// Frames of one patch.
    pub fn frames(self) -> u32 {
        if self == Self::Qwen2Vl { 2 } else { 1 }
    }

    /// True if the patch embedding has a bias.
    pub fn patch_bias(self) -> bool {
        matches!(self, Self::Native | Self::Siglip)
    }

    /// True if positions are a learned table instead of rotary.
    pub fn learned_positions(self) -> bool {
        matches!(self, Self::Clip | Self::Siglip)
    }

    /// True if a class token goes before the patches of an image, and a norm before the layers.
    pub fn class_token(self) -> bool {
        self == Self::Clip
    }

    /// Mean and standard deviation of each colour, from 0 to 1, for the normalisation of pixels; `None` if the encoder reads
    /// pixels from -1 to 1.
    pub fn pixel_statistics(self) -> Option<[(f32, f32); 3]> {
        match self {
            Self::Native | Self::Siglip => None,
            Self::Qwen2Vl | Self::Clip => Some([
                (0.481_454_66, 0.268_629_54),
                (0.457_827_5, 0.261_302_6),
                (0.408_210_7, 0.275_777_1),
            ]),
        }
    }

    /// True if it is the default.
    pub fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

impl VitSpec {
    /// Rows of one image in the layers: its patches, and the class token if there is one.
    pub fn rows_per_image(&self) -> u32 {
        self.patches().saturating_add(u32::from(self.tower.class_token()))
    }

    /// Tokens of one image in the decoder.
    pub fn tokens_per_image(&self) -> u32 {
        self.patches() / self.merge.max(1).saturating_pow(2)
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
        let Self { image_px, patch_px, merge, .. } = *self;
        module.check("kind.vit.image_px", image_px, 1 << 16)?;
        module.check("kind.vit.patch_px", patch_px, image_px)?;
        module.check("kind.vit.merge", merge, image_px / patch_px)?;
        if image_px.is_multiple_of(patch_px * merge) {
            return Ok(());
        }
        let limit = format!("a multiple of patch_px * merge = {}", patch_px * merge);
        let remedy = "change the image side so that whole merged patches cover it";
        Err(FieldError::new(module.path("kind.vit.image_px"), image_px, limit, remedy))
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        (InstanceSpace::Images, microbatch.images)
    }

    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let n = slice.instances.len() as u64;
        let rows = u64::from(self.rows_per_image());
        let pairs = n.saturating_mul(square(rows));
        Workload {
            tokens: n * rows,
            attention_pairs: pairs,
            computed_pairs: pairs,
            output_tokens: n * u64::from(self.tokens_per_image()),
            ..slice.empty_workload()
        }
    }

    fn sequence_tokens(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> u64 {
        u64::from(microbatch.images) * u64::from(self.tokens_per_image())
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        let values = 3 * u64::from(self.tower.frames()) * u64::from(self.patch_px).pow(2);
        let table = u64::from(self.tower.learned_positions()) * u64::from(self.rows_per_image());
        (values + table) * u64::from(module.hidden)
    }

    fn merged_rows(&self) -> u64 {
        u64::from(self.merge) * u64::from(self.merge)
    }

    fn fill(&self, at: &Filling<'_>, microbatch: &mut MicrobatchMeta) {
        microbatch.images = at.part(at.model.max_images.max(1));
    }

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let images = tokens / u64::from(self.rows_per_image().max(1));
        MicrobatchMeta { images: images.clamp(1, 1 << 20) as u32, ..MicrobatchMeta::default() }
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
