//! LLaVA.

use super::{EncoderConfig, Modules, activation, expect, expect_word, join, tie};
use crate::hf::fields::Fields;
use crate::hf::text::{self, Family};
use crate::spec::{SpecError, Tower, VitSpec};

/// LLaVA: a CLIP or SigLIP encoder, an adapter of two layers, and a Llama or Qwen2 decoder.
pub(in crate::hf) fn llava(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let text = config.required_child("text_config")?;
    let mut decoder = text::inner_decoder(&text, Family::of_text_config(&text)?)?;
    tie(&mut decoder, config)?;
    let vision = config.required_child("vision_config")?;
    let tower = tower(&vision)?;
    expect_strategy(config, tower)?;
    expect_word(config, "projector_hidden_act", "gelu", "gelu")?;
    if !config.flag_or("multimodal_projector_bias", true)? {
        let remedy = "choose a model whose adapter has biases";
        return Err(config.error("multimodal_projector_bias", "false".into(), "true", remedy));
    }
    expect(&vision, "num_channels", 3, 3)?;
    let clip = tower == Tower::Clip;
    let (patch_px, default_act, default_epsilon) =
        if clip { (32, "quick_gelu", 1e-5) } else { (16, "gelu_pytorch_tanh", 1e-6) };
    let encoder = EncoderConfig {
        hidden: vision.size_or("hidden_size", 768)?,
        ffn: vision.size_or("intermediate_size", 3072)?,
        layers: feature_layers(config, vision.size_or("num_hidden_layers", 12)?)?,
        heads: vision.size_or("num_attention_heads", 12)?,
        gated_ffn: None,
        adapter_hidden: Some(decoder.module.hidden),
        activation: activation(&vision, default_act)?,
        norm_epsilon: vision.number_or("layer_norm_eps", default_epsilon)?,
        kind: VitSpec::squares(
            vision.size_or("image_size", 224)?,
            vision.size_or("patch_size", patch_px)?,
            1,
            tower,
        ),
    };
    Ok(join(encoder, decoder))
}

fn tower(vision: &Fields<'_>) -> Result<Tower, SpecError> {
    match vision.text_or("model_type", "clip_vision_model")? {
        "clip_vision_model" => Ok(Tower::Clip),
        "siglip_vision_model" => Ok(Tower::Siglip),
        other => {
            let limit = "clip_vision_model or siglip_vision_model";
            let remedy = "choose a model with such an encoder";
            Err(vision.error("model_type", format!("{other:?}"), limit, remedy))
        }
    }
}

/// CLIP drops the class token before the adapter; SigLIP has no class token.
fn expect_strategy(config: &Fields<'_>, tower: Tower) -> Result<(), SpecError> {
    let expected = if tower == Tower::Clip { "default" } else { "full" };
    expect_word(config, "vision_feature_select_strategy", expected, "default")
}

/// Number of encoder layers up to the layer whose output is the feature of the image.
fn feature_layers(config: &Fields<'_>, layers: u32) -> Result<u32, SpecError> {
    let chosen = config.integer_or("vision_feature_layer", -2)?;
    let depth = if chosen < 0 { i64::from(layers) + 1 + chosen } else { chosen };
    match u32::try_from(depth) {
        // The last layer is excluded: SigLIP applies a norm to its output and CLIP does not.
        Ok(depth) if depth >= 1 && depth < layers => Ok(depth),
        _ => {
            let limit = format!("an inner layer of the {layers}, such as -2");
            let remedy = "choose a model that takes its features before the last layer";
            Err(config.error("vision_feature_layer", chosen.to_string(), &limit, remedy))
        }
    }
}
