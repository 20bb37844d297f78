//! LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision: a CLIP or SigLIP encoder, an adapter of two layers, and a decoder.

use super::{EncoderConfig, Modules, activation, expect, expect_word, join, tie};
use crate::hf::fields::Fields;
use crate::hf::text::{self, Family};
use crate::spec::{SpecError, TileSpec, Tower, VitSpec};

/// Resolutions of LLaVA-NeXT whose file gives none, in tiles from top to bottom and from left to right.
const NEXT_RESOLUTIONS: [[u32; 2]; 5] = [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]];
/// Side of the encoder's image for the default resolutions of LLaVA-NeXT, in pixels.
const NEXT_PX: u32 = 336;
/// Side of the encoder's image for the default resolutions of LLaVA-OneVision, in pixels.
const ONEVISION_PX: u32 = 384;
/// Largest side of the default resolutions of LLaVA-OneVision, in tiles.
const ONEVISION_SIDE: u32 = 6;

/// Maximum number of resolutions.
const MAX_RESOLUTIONS: usize = 1024;

/// What a file may omit.
struct Defaults {
    feature_layer: i64,
    strategy: &'static str,
    tower: &'static str,
    decoder: &'static str,
}

/// The defaults of LLaVA 1.5 and LLaVA-NeXT.
const CLIP_AND_LLAMA: Defaults = Defaults {
    feature_layer: -2,
    strategy: "default",
    tower: "clip_vision_model",
    decoder: "llama",
};
/// The defaults of LLaVA-OneVision.
const SIGLIP_AND_QWEN: Defaults = Defaults {
    feature_layer: -1,
    strategy: "full",
    tower: "siglip_vision_model",
    decoder: "qwen2",
};

/// LLaVA 1.5. An image is one square.
pub(in crate::hf) fn llava(config: &Fields<'_>) -> Result<Modules, SpecError> {
    read(config, CLIP_AND_LLAMA, None)
}

/// LLaVA-NeXT: large pictures are cut into tiles.
pub(in crate::hf) fn llava_next(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let default = NEXT_RESOLUTIONS.map(|tiles| tiles.map(|n| n * NEXT_PX)).to_vec();
    let resolutions =
        config.size_pairs("image_grid_pinpoints", MAX_RESOLUTIONS)?.unwrap_or(default);
    let tiles = TileSpec { resolutions, max_tiles: None };
    read(config, CLIP_AND_LLAMA, Some(tiles))
}

/// LLaVA-OneVision: tiles, whose tokens are scaled down where they are too many.
pub(in crate::hf) fn llava_onevision(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let sides = || (1..=ONEVISION_SIDE).map(|n| n * ONEVISION_PX);
    let default = || sides().flat_map(|height| sides().map(move |width| [height, width])).collect();
    let resolutions =
        config.size_pairs("image_grid_pinpoints", MAX_RESOLUTIONS)?.unwrap_or_else(default);
    let tiles = TileSpec { resolutions, max_tiles: Some(max_tiles(config)?) };
    read(config, SIGLIP_AND_QWEN, Some(tiles))
}

fn read(
    config: &Fields<'_>,
    defaults: Defaults,
    tiles: Option<TileSpec>,
) -> Result<Modules, SpecError> {
    let text = config.required_child("text_config")?;
    let mut decoder = text::inner_decoder(&text, Family::of_text_config(&text, defaults.decoder)?)?;
    tie(&mut decoder, config)?;
    let vision = config.required_child("vision_config")?;
    let tower = tower(&vision, defaults.tower)?;
    expect_word(config, "projector_hidden_act", "gelu", "gelu")?;
    if !config.flag_or("multimodal_projector_bias", true)? {
        let remedy = "choose a model whose adapter has biases";
        return Err(config.error("multimodal_projector_bias", "false".into(), "true", remedy));
    }
    expect(&vision, "num_channels", 3, 3)?;
    let (patch_px, default_act, default_epsilon) = match tower {
        Tower::Clip => (32, "quick_gelu", 1e-5),
        _ => (16, "gelu_pytorch_tanh", 1e-6),
    };
    let (image_px, patch_px) =
        (vision.size_or("image_size", 224)?, vision.size_or("patch_size", patch_px)?);
    let layers = vision.size_or("num_hidden_layers", 12)?;
    let drops = drops_first(config, defaults.strategy)?;
    let encoder = EncoderConfig {
        hidden: vision.size_or("hidden_size", 768)?,
        ffn: vision.size_or("intermediate_size", 3072)?,
        layers: feature_layers(config, layers, defaults.feature_layer)?,
        heads: vision.size_or("num_attention_heads", 12)?,
        gated_ffn: None,
        adapter_hidden: Some(decoder.module.hidden),
        activation: activation(&vision, default_act)?,
        norm_epsilon: vision.number_or("layer_norm_eps", default_epsilon)?,
        kind: VitSpec {
            drop_first: (drops != tower.class_token()).then_some(drops),
            tiles,
            ..VitSpec::squares(image_px, patch_px, 1, tower)
        },
    };
    Ok(join(encoder, decoder))
}

fn tower(vision: &Fields<'_>, default: &'static str) -> Result<Tower, SpecError> {
    match vision.text_or("model_type", default)? {
        "clip_vision_model" => Ok(Tower::Clip),
        "siglip_vision_model" => Ok(Tower::Siglip),
        other => {
            let limit = "clip_vision_model or siglip_vision_model";
            let remedy = "choose a model with such an encoder";
            Err(vision.error("model_type", format!("{other:?}"), limit, remedy))
        }
    }
}

/// True if the adapter gets all rows of an image but the first, which is the class token in CLIP and a patch in SigLIP.
fn drops_first(config: &Fields<'_>, default: &str) -> Result<bool, SpecError> {
    let name = "vision_feature_select_strategy";
    match config.text_or(name, default)? {
        "default" => Ok(true),
        "full" => Ok(false),
        other => {
            let remedy = "take the config.json that came with the weights";
            Err(config.error(name, format!("{other:?}"), "\"default\" or \"full\"", remedy))
        }
    }
}

/// Number of encoder layers up to the layer whose output is the feature of the image.
fn feature_layers(config: &Fields<'_>, layers: u32, default: i64) -> Result<u32, SpecError> {
    let chosen = config.integer_or_only("vision_feature_layer", default)?;
    let depth = if chosen < 0 { i64::from(layers).saturating_add(chosen + 1) } else { chosen };
    match u32::try_from(depth) {
        Ok(depth) if depth >= 1 && depth <= layers => Ok(depth),
        _ => {
            let limit = format!("a layer of the {layers}, such as -2");
            let remedy = "choose a model that takes its features from one of its layers";
            Err(config.error("vision_feature_layer", chosen.to_string(), &limit, remedy))
        }
    }
}

/// The number at the end of `vision_aspect_ratio`, as in `anyres_max_9`.
fn max_tiles(config: &Fields<'_>) -> Result<u32, SpecError> {
    let name = "vision_aspect_ratio";
    let text = config.text_or(name, "anyres_max_9")?;
    let number = text.strip_prefix("anyres_max_").and_then(|digits| digits.parse().ok());
    number.filter(|&n| n > 0).ok_or_else(|| {
        let remedy = "take the config.json that came with the weights";
        config.error(name, format!("{text:?}"), "anyres_max_ and a number, as anyres_max_9", remedy)
    })
}
