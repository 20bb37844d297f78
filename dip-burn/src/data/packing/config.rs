//! The shape of packed sequences.

use dip_core::{FieldError, ModelSpec, VitSpec};

use crate::batch::PositionRule;
use crate::data::document::Room;
use crate::data::tokenizer::SpecialTokens;

/// Longest sequence, in tokens.
const MAX_SEQUENCE_TOKENS: u32 = 1 << 24;
/// Most documents that wait for room.
const MAX_LOOKAHEAD: usize = 1 << 16;

/// The shape of packed sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackConfig {
    /// Tokens of one sequence.
    pub sequence_tokens: u32,
    /// Most images of one sequence.
    pub max_images: u32,
    /// Most patches of all images of one sequence.
    pub max_patches: u64,
    /// How tokens get their positions.
    pub positions: PositionRule,
    /// Number of waiting documents among which the rule chooses.
    pub lookahead: usize,
    /// The token that fills the rest of a sequence.
    pub pad: u32,
}

impl PackConfig {
    /// The shape for a model; it has images if the model has a vision encoder.
    ///
    /// # Errors
    /// [`FieldError`] if the sequence cannot hold an image.
    pub fn new(model: &ModelSpec, special: SpecialTokens) -> Result<Self, FieldError> {
        let vit = model.modules.iter().find_map(|m| m.kind.get::<VitSpec>());
        let config = Self {
            sequence_tokens: model.sequence_tokens,
            max_images: if vit.is_some() { model.max_images } else { 0 },
            max_patches: model.patch_limit(),
            positions: PositionRule::of(model),
            lookahead: 32,
            pad: special.pad,
        };
        config.validate()?;
        // Pictures in tiles that are too large for a sequence are left out; squares always fit.
        let largest = vit.map(|vit| match vit.tiles {
            Some(_) => vit.image_size(),
            None => vit.largest_size(),
        });
        let patches = largest.map_or(0, |size| u64::from(size.patches));
        if config.max_images > 0 && patches > config.max_patches {
            let limit = format!("at least the {patches} patches of the largest image");
            let remedy =
                "raise sequence.image_patches or sequence.images, or lower sequence.max_pixels";
            return Err(FieldError::new("max_patches", config.max_patches, limit, remedy));
        }
        let tokens = largest.map_or(1, |size| size.tokens);
        if config.max_images > 0 && !(1..=config.sequence_tokens - 2).contains(&tokens) {
            let limit = format!("1 to {} (sequence_tokens less 2)", config.sequence_tokens - 2);
            let remedy = "use smaller images, larger patches or a longer sequence";
            return Err(FieldError::new("tokens_per_image", tokens, limit, remedy));
        }
        Ok(config)
    }

    /// The room of an empty sequence.
    pub fn room(&self) -> Room {
        Room { tokens: self.sequence_tokens, images: self.max_images, patches: self.max_patches }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        let tokens = self.sequence_tokens;
        FieldError::check_range("sequence_tokens", tokens, 2..=MAX_SEQUENCE_TOKENS, "try 8192")?;
        FieldError::check_range("lookahead", self.lookahead, 1..=MAX_LOOKAHEAD, "try 32")
    }
}
