//! Vision-language models: a vision encoder with an adapter, and a decoder.

use super::fields::Fields;
use super::text::{self, DecoderConfig, Family};
use super::{LANGUAGE, VISION};
use crate::spec::{Activation, LayerOptions, ModuleKind, ModuleSpec, SpecError, Tower, VitSpec};

/// Merged patches per image side. Qwen2-VL accepts images of any size; with its patches of 14 pixels, merged 2 x 2, this is 448 pixels.
const QWEN2_VL_SIDE: u32 = 16;

/// The modules of a model.
pub(super) struct Modules {
    pub(super) modules: Vec<ModuleSpec>,
    /// Longest sequence of the decoder, in tokens.
    pub(super) positions: u32,
}

/// Qwen2-VL. Rotary positions encode row and column in the encoder, and time, row and column in the decoder.
pub(super) fn qwen2_vl(config: &Fields<'_>) -> Result<Modules, SpecError> {
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

/// LLaVA: a CLIP or SigLIP encoder, an adapter of two layers, and a Llama or Qwen2 decoder.
pub(super) fn llava(config: &Fields<'_>) -> Result<Modules, SpecError> {
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
        adapter_hidden: Some(decoder.module.hidden),
        activation: activation(&vision, default_act)?,
        norm_epsilon: vision.number_or("layer_norm_eps", default_epsilon)?,
        kind: VitSpec {
            image_px: vision.size_or("image_size", 224)?,
            patch_px: vision.size_or("patch_size", patch_px)?,
            merge: 1,
            tower,
        },
    };
    Ok(join(encoder, decoder))
}

/// The fields in which vision encoders differ.
struct EncoderConfig {
    hidden: u32,
    ffn: u32,
    layers: u32,
    heads: u32,
    adapter_hidden: Option<u32>,
    activation: Activation,
    norm_epsilon: f64,
    kind: VitSpec,
}

fn join(encoder: EncoderConfig, mut decoder: DecoderConfig) -> Modules {
    let EncoderConfig {
        hidden,
        ffn,
        layers,
        heads,
        adapter_hidden,
        activation,
        norm_epsilon,
        kind,
    } = encoder;
    let options = LayerOptions { activation, norm_epsilon, ..LayerOptions::default() };
    let encoder = ModuleSpec {
        name: VISION.into(),
        layers,
        hidden,
        ffn,
        heads,
        kv_heads: None,
        head_dim: None,
        gated_ffn: None,
        adapter_hidden,
        trainable: true,
        lora: None,
        inputs: Vec::new(),
        options,
        kind: kind.into(),
    };
    decoder.module.inputs = vec![VISION.into()];
    debug_assert_eq!(decoder.module.name, LANGUAGE);
    Modules { modules: vec![encoder, decoder.module], positions: decoder.positions }
}

/// Ties the head to the token table if `tie_word_embeddings` of the whole model is set.
fn tie(decoder: &mut DecoderConfig, config: &Fields<'_>) -> Result<(), SpecError> {
    let outer = config.flag_or("tie_word_embeddings", false)?;
    if let ModuleKind::Decoder(decoder) = &mut decoder.module.kind {
        decoder.tied |= outer;
    }
    Ok(())
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

fn activation(vision: &Fields<'_>, default: &str) -> Result<Activation, SpecError> {
    match vision.text_or("hidden_act", "")? {
        "" => named_activation(default),
        name => named_activation(name),
    }
    .ok_or_else(|| {
        let name = vision.text_or("hidden_act", "").unwrap_or_default();
        let limit = "gelu, quick_gelu or gelu_pytorch_tanh";
        vision.error("hidden_act", format!("{name:?}"), limit, "choose a model with one of these")
    })
}

fn named_activation(name: &str) -> Option<Activation> {
    match name {
        "gelu" => Some(Activation::Gelu),
        "quick_gelu" => Some(Activation::QuickGelu),
        "gelu_pytorch_tanh" => Some(Activation::GeluTanh),
        _ => None,
    }
}

fn expect(fields: &Fields<'_>, name: &str, expected: u32, default: u32) -> Result<(), SpecError> {
    match fields.size_or(name, default)? {
        found if found == expected => Ok(()),
        found => {
            let remedy = "choose a model of this shape";
            Err(fields.error(name, found.to_string(), &expected.to_string(), remedy))
        }
    }
}

fn expect_word(
    fields: &Fields<'_>,
    name: &str,
    expected: &str,
    default: &str,
) -> Result<(), SpecError> {
    match fields.text_or(name, "")? {
        "" if expected == default => Ok(()),
        found if found == expected => Ok(()),
        found => {
            let value = if found.is_empty() { default } else { found };
            let limit = format!("{expected:?} for this model");
            Err(fields.error(name, format!("{value:?}"), &limit, "choose a model of this shape"))
        }
    }
}
