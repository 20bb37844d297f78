//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

use super::{EncoderConfig, Modules, activation, expect, expect_word, join, tie};
use crate::hf::fields::Fields;
use crate::hf::text::{self, DecoderConfig, Family};
use crate::spec::{Activation, NormKind, SpecError, Tower, VitSpec, WindowSpec};

/// Side of a square image in merged patches: 448 pixels for patches of 14 pixels, merged 2 x 2. Images may have any size.
const SIDE: u32 = 16;
/// Added to the variance in all norms of the encoders.
const NORM_EPSILON: f64 = 1e-6;

/// Qwen2-VL. Rotary positions encode row and column in the encoder, and time, row and column in the decoder.
pub(in crate::hf) fn qwen2_vl(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let decoder = decoder(config, Family::Qwen2Vl)?;
    let vision = config.required_child("vision_config")?;
    let hidden = vision.size_or("embed_dim", 1280)?;
    expect(&vision, "hidden_size", decoder.module.hidden, 3584)?;
    let ffn = f64::from(hidden) * vision.number_or("mlp_ratio", 4.0)?;
    if !(ffn >= 1.0 && ffn <= f64::from(1 << 20) && ffn.fract() == 0.0) {
        let remedy = "take the config.json that came with the weights";
        let limit = "such that embed_dim * mlp_ratio is whole, at most 1048576";
        return Err(vision.error(
            "mlp_ratio",
            (ffn / f64::from(hidden)).to_string(),
            limit,
            remedy,
        ));
    }
    let encoder = EncoderConfig {
        hidden,
        ffn: ffn as u32,
        layers: vision.size_or("depth", 32)?,
        heads: vision.size_or("num_heads", 16)?,
        gated_ffn: None,
        adapter_hidden: None,
        activation: activation(&vision, "quick_gelu")?,
        norm_epsilon: NORM_EPSILON,
        kind: patches(&vision, Tower::Qwen2Vl, 14)?,
    };
    with_theta(join(encoder, decoder), &vision)
}

/// Qwen2.5-VL: as Qwen2-VL, with windows in most layers of the encoder, root-mean-square norms and gated networks.
pub(in crate::hf) fn qwen2_5_vl(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let decoder = decoder(config, Family::Qwen2Vl)?;
    let vision = config.required_child("vision_config")?;
    expect(&vision, "out_hidden_size", decoder.module.hidden, 3584)?;
    expect_word(&vision, "hidden_act", "silu", "silu")?;
    let full_layers = vision.sizes("fullatt_block_indexes")?;
    let kind = VitSpec {
        norm: NormKind::Rms,
        window: Some(WindowSpec {
            px: vision.size_or("window_size", 112)?,
            full_layers: full_layers.unwrap_or_else(|| vec![7, 15, 23, 31]),
        }),
        positions_per_second: Some(vision.size_or("tokens_per_second", 4)?),
        ..patches(&vision, Tower::Qwen2Vl, 14)?
    };
    let encoder = EncoderConfig {
        hidden: vision.size_or("hidden_size", 3584)?,
        ffn: vision.size_or("intermediate_size", 3420)?,
        layers: vision.size_or("depth", 32)?,
        heads: vision.size_or("num_heads", 16)?,
        gated_ffn: Some(true),
        adapter_hidden: None,
        activation: Activation::Gelu,
        norm_epsilon: NORM_EPSILON,
        kind,
    };
    with_theta(join(encoder, decoder), &vision)
}

/// Qwen3-VL: learned positions beside rotary ones, and features from inside the encoder for the first layers of the decoder.
pub(in crate::hf) fn qwen3_vl(config: &Fields<'_>) -> Result<Modules, SpecError> {
    config.required_child("text_config")?;
    let decoder = decoder(config, Family::Qwen3Vl)?;
    let vision = config.required_child("vision_config")?;
    expect(&vision, "out_hidden_size", decoder.module.hidden, 3584)?;
    let kind = VitSpec {
        position_side: Some(position_side(&vision)?),
        stacked_layers: vision
            .sizes("deepstack_visual_indexes")?
            .unwrap_or_else(|| vec![8, 16, 24]),
        ..patches(&vision, Tower::Qwen3Vl, 16)?
    };
    let encoder = EncoderConfig {
        hidden: vision.size_or("hidden_size", 1152)?,
        ffn: vision.size_or("intermediate_size", 4304)?,
        layers: vision.size_or("depth", 27)?,
        heads: vision.size_or("num_heads", 16)?,
        gated_ffn: None,
        adapter_hidden: None,
        activation: activation(&vision, "gelu_pytorch_tanh")?,
        norm_epsilon: NORM_EPSILON,
        kind,
    };
    with_theta(join(encoder, decoder), &vision)
}

/// The side of the square table of positions.
fn position_side(vision: &Fields<'_>) -> Result<u32, SpecError> {
    let positions = vision.size_or("num_position_embeddings", 2304)?;
    let side = positions.isqrt();
    if side * side == positions {
        return Ok(side);
    }
    let remedy = "take the config.json that came with the weights";
    Err(vision.error("num_position_embeddings", positions.to_string(), "a square number", remedy))
}

/// The modules with the base of the rotary angles of the encoder, which files of `transformers` 5 give.
fn with_theta(mut modules: Modules, vision: &Fields<'_>) -> Result<Modules, SpecError> {
    if let Some(table) = vision.child("rope_parameters")? {
        let rope = &mut modules.modules[0].options.rope;
        rope.theta = table.number_or("rope_theta", rope.theta)?;
    }
    Ok(modules)
}

fn decoder(config: &Fields<'_>, family: Family) -> Result<DecoderConfig, SpecError> {
    // Before `transformers` 5 the fields of the decoder were at the top level of the file.
    let text = config.child("text_config")?.unwrap_or_else(|| config.clone());
    let mut decoder = text::decoder(&text, family)?;
    tie(&mut decoder, config)?;
    Ok(decoder)
}

/// The patches of an encoder, and how they are merged.
fn patches(vision: &Fields<'_>, tower: Tower, default_px: u32) -> Result<VitSpec, SpecError> {
    expect(vision, "in_channels", 3, 3)?;
    expect(vision, "temporal_patch_size", tower.frames(), 2)?;
    let merge = vision.size_or("spatial_merge_size", 2)?;
    let patch_px = vision.size_or("patch_size", default_px)?;
    let image_px = SIDE.saturating_mul(patch_px).saturating_mul(merge);
    Ok(VitSpec::squares(image_px, patch_px, merge, tower))
}
