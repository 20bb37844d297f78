//! Idefics3 and SmolVLM: a SigLIP encoder with a norm at its end, an adapter of one matrix, and a Llama decoder.
//!
//! The processor cuts large pictures into squares. Each square has tokens of its own, between tokens that say its row and column.

use super::{EncoderConfig, Modules, activation, expect, join};
use crate::hf::fields::Fields;
use crate::hf::text::{self, Family};
use crate::spec::{ModuleKind, SpecError, Tower, VitSpec};

/// Idefics3 and SmolVLM, whose files have the same fields.
pub(in crate::hf) fn idefics3(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let text = config.required_child("text_config")?;
    let mut decoder = text::inner_decoder(&text, Family::of_text_config(&text, "llama")?)?;
    // Only the field of the whole model counts.
    if let ModuleKind::Decoder(decoder) = &mut decoder.module.kind {
        decoder.tied = config.flag_or("tie_word_embeddings", false)?;
    }
    let vision = config.required_child("vision_config")?;
    expect(&vision, "num_channels", 3, 3)?;
    let (image_px, patch_px) =
        (vision.size_or("image_size", 224)?, vision.size_or("patch_size", 32)?);
    let merge = config.size_or("scale_factor", 2)?;
    let encoder = EncoderConfig {
        hidden: vision.size_or("hidden_size", 1152)?,
        ffn: vision.size_or("intermediate_size", 3072)?,
        layers: vision.size_or("num_hidden_layers", 12)?,
        heads: vision.size_or("num_attention_heads", 16)?,
        gated_ffn: None,
        adapter_hidden: None,
        activation: activation(&vision, "gelu_pytorch_tanh")?,
        norm_epsilon: vision.number_or("layer_norm_eps", 1e-6)?,
        kind: VitSpec::squares(image_px, patch_px, merge, Tower::Idefics),
    };
    Ok(join(encoder, decoder))
}
