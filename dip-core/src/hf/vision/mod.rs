//! Vision-language models: a vision encoder with an adapter, and a decoder. One family per file.

mod idefics;
mod llava;
mod qwen_vl;

use super::fields::Fields;
use super::text::DecoderConfig;
use super::{LANGUAGE, VISION};
use crate::spec::{Activation, LayerOptions, ModuleKind, ModuleSpec, SpecError, VitSpec};

pub(super) use idefics::idefics3;
pub(super) use llava::{llava, llava_next, llava_onevision};
pub(super) use qwen_vl::{qwen2_5_vl, qwen2_vl, qwen3_vl};

/// The modules of a model.
pub(super) struct Modules {
    pub(super) modules: Vec<ModuleSpec>,
    /// Longest sequence of the decoder, in tokens.
    pub(super) positions: u32,
}

/// The fields in which vision encoders differ.
struct EncoderConfig {
    hidden: u32,
    ffn: u32,
    layers: u32,
    heads: u32,
    gated_ffn: Option<bool>,
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
        gated_ffn,
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
        gated_ffn,
        adapter_hidden,
        trainable: true,
        frozen: Vec::new(),
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
pub(super) fn tie(decoder: &mut DecoderConfig, config: &Fields<'_>) -> Result<(), SpecError> {
    let outer = config.flag_or("tie_word_embeddings", false)?;
    if let ModuleKind::Decoder(decoder) = &mut decoder.module.kind {
        decoder.tied |= outer;
    }
    Ok(())
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

pub(super) fn named_activation(name: &str) -> Option<Activation> {
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

pub(super) fn expect_word(
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

#[cfg(test)]
mod tests;
