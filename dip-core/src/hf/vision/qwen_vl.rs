//! The Qwen2-VL family.

use super::{EncoderConfig, Modules, activation, expect, join, tie};
use crate::hf::fields::Fields;
use crate::hf::text::{self, Family};
use crate::spec::{SpecError, Tower, VitSpec};

/// Merged patches per image side. Qwen2-VL accepts images of any size; with its patches of 14 pixels, merged 2 x 2, this is 448 pixels.
const QWEN2_VL_SIDE: u32 = 16;

/// Qwen2-VL. Rotary positions encode row and column in the encoder, and time, row and column in the decoder.
pub(in crate::hf) fn qwen2_vl(config: &Fields<'_>) -> Result<Modules, SpecError> {
    // Before `transformers` 5 the fields of the decoder were at the top level of the file.
    let text = config.child("text_config")?.unwrap_or_else(|| config.clone());
    let mut decoder = text::decoder(&text, Family::Qwen2Vl)?;
    tie(&mut decoder, config)?;
    let vision = config.required_child("vision_config")?;
    let hidden = vision.size_or("embed_dim", 1280)?;
    expect(&vision, "hidden_size", decoder.module.hidden, 3584)?;
    expect(&vision, "in_channels", 3, 3)?;
    expect(&vision, "temporal_patch_size", Tower::Qwen2Vl.frames(), 2)?;
    let merge = vision.size_or("spatial_merge_size", 2)?;
    let patch_px = vision.size_or("patch_size", 14)?;
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
        adapter_hidden: None,
        activation: activation(&vision, "quick_gelu")?,
        norm_epsilon: 1e-6,
        kind: VitSpec {
            image_px: QWEN2_VL_SIDE.saturating_mul(patch_px).saturating_mul(merge),
            patch_px,
            merge,
            tower: Tower::Qwen2Vl,
        },
    };
    Ok(join(encoder, decoder))
}
