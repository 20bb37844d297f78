//! Attention windows of decoders.

use super::Family;
use crate::hf::fields::Fields;
use crate::spec::{AttentionWindow, SpecError};

/// The window of `transformers` where a file gives none.
const DEFAULT_TOKENS: u32 = 4096;

/// Reads the window of a decoder of `layers` layers; `None` if every layer attends to whole documents.
pub(super) fn read(
    config: &Fields<'_>,
    family: Family,
    layers: u32,
) -> Result<Option<AttentionWindow>, SpecError> {
    let tokens = match family {
        Family::Llama | Family::Qwen3Vl => None,
        Family::Mistral => tokens(config)?,
        _ if config.flag_or("use_sliding_window", false)? => tokens(config)?,
        _ => None,
    };
    let full_layers = full_layers(config, family, layers)?;
    match tokens {
        Some(tokens) => {
            let windowed = (0..layers).any(|layer| !full_layers.contains(&layer));
            Ok(windowed.then_some(AttentionWindow { tokens, full_layers }))
        }
        None => Ok(None),
    }
}

/// The tokens of a window. A file that says `null` wants none; one that says nothing wants the default.
fn tokens(config: &Fields<'_>) -> Result<Option<u32>, SpecError> {
    match config.has("sliding_window") {
        true => config.optional_size("sliding_window"),
        false => Ok(Some(DEFAULT_TOKENS)),
    }
}

/// The layers that attend to whole documents although the model has windows.
fn full_layers(config: &Fields<'_>, family: Family, layers: u32) -> Result<Vec<u32>, SpecError> {
    // Mistral has windows in all layers.
    if matches!(family, Family::Llama | Family::Mistral) {
        return Ok(Vec::new());
    }
    let types = config.strings("layer_types")?;
    if types.is_empty() {
        return Ok((0..layers
            .min(config.whole_or("max_window_layers", family.defaults().full_layers)?))
            .collect());
    }
    let remedy = "take the config.json that came with the weights";
    if types.len() != layers as usize {
        let limit = format!("one type for each of the {layers} layers");
        return Err(config.error("layer_types", format!("{} types", types.len()), &limit, remedy));
    }
    let known = ["full_attention", "sliding_attention"];
    if let Some(other) = types.iter().find(|name| !known.contains(&name.as_str())) {
        let limit = "full_attention or sliding_attention";
        return Err(config.error("layer_types", format!("{other:?}"), limit, remedy));
    }
    let full = (0..).zip(&types).filter(|(_, name)| *name == known[0]);
    Ok(full.map(|(layer, _)| layer).collect())
}
