//! The shape of packed sequences.

use dip_core::{FieldError, ModelSpec, VitSpec};

use crate::batch::PositionRule;
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
            positions: PositionRule::of(model),
            lookahead: 32,
            pad: special.pad,
        };
        config.validate()?;
        let tokens = vit.map_or(1, VitSpec::tokens_per_image);
        if config.max_images > 0 && !(1..=config.sequence_tokens - 2).contains(&tokens) {
            let limit = format!("1 to {} (sequence_tokens less 2)", config.sequence_tokens - 2);
            let remedy = "use smaller images, larger patches or a longer sequence";
            return Err(FieldError::new("tokens_per_image", tokens, limit, remedy));
        }
        Ok(config)
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
