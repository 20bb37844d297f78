//! Decoders of the Llama, Mistral, Qwen2 and Qwen3 families.

mod rope;
mod window;

use super::fields::Fields;
use super::{Architecture, LANGUAGE};
use crate::spec::{AttentionBias, DecoderSpec, LayerOptions, ModuleSpec, QueryKeyNorm, SpecError};

/// The family of a decoder. It decides the defaults and biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen2Vl,
    Qwen3,
}

/// A decoder.
pub(super) struct DecoderConfig {
    pub module: ModuleSpec,
    /// Its longest sequence, in tokens.
    pub positions: u32,
}

impl Family {
    pub fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Mistral => Self::Mistral,
            Architecture::Qwen2 | Architecture::Qwen2Audio => Self::Qwen2,
            Architecture::Qwen3 => Self::Qwen3,
            Architecture::Qwen2Vl | Architecture::Qwen25Vl | Architecture::Qwen3Vl => Self::Qwen2Vl,
            _ => Self::Llama,
        }
    }

    /// The family of a decoder inside another model.
    pub fn of_text_config(config: &Fields<'_>) -> Result<Self, SpecError> {
        match config.text_or("model_type", "llama")? {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            other => {
                let remedy = "choose a model with such a decoder";
                let limit = "llama, mistral, qwen2 or qwen3";
                Err(config.error("model_type", format!("{other:?}"), limit, remedy))
            }
        }
    }

    /// Sizes that the file of a decoder inside another model may omit: the defaults of `transformers`.
    fn defaults(self) -> DecoderSizes {
        let sizes = |ffn, kv_heads, vocab| DecoderSizes {
            hidden: 4096,
            ffn,
            layers: 32,
            heads: 32,
            kv_heads,
            vocab,
        };
        match self {
            Self::Llama => sizes(11_008, None, 32_000),
            Self::Mistral => sizes(14_336, Some(8), 32_000),
            Self::Qwen2 | Self::Qwen2Vl | Self::Qwen3 => sizes(22_016, Some(32), 151_936),
        }
    }

    /// Width of a head where the file gives none; `None` for the width of the model divided by the heads.
    fn default_head_dim(self) -> Option<u32> {
        (self == Self::Qwen3).then_some(128)
    }
}

/// Reads the decoder that `config` describes.
pub(super) fn decoder(config: &Fields<'_>, family: Family) -> Result<DecoderConfig, SpecError> {
    let sizes = DecoderSizes {
        hidden: config.size("hidden_size")?,
        ffn: config.size("intermediate_size")?,
        layers: config.size("num_hidden_layers")?,
        heads: config.size("num_attention_heads")?,
        kv_heads: config.optional_size("num_key_value_heads")?,
        vocab: config.size("vocab_size")?,
    };
    with_sizes(config, family, sizes)
}

/// Reads a decoder inside another model. The file may omit the defaults of `transformers`.
pub(super) fn inner_decoder(
    config: &Fields<'_>,
    family: Family,
) -> Result<DecoderConfig, SpecError> {
    let defaults = family.defaults();
    let kv_heads = match config.has("num_key_value_heads") {
        true => config.optional_size("num_key_value_heads")?,
        false => defaults.kv_heads,
    };
    let sizes = DecoderSizes {
        hidden: config.size_or("hidden_size", defaults.hidden)?,
        ffn: config.size_or("intermediate_size", defaults.ffn)?,
        layers: config.size_or("num_hidden_layers", defaults.layers)?,
        heads: config.size_or("num_attention_heads", defaults.heads)?,
        kv_heads,
        vocab: config.size_or("vocab_size", defaults.vocab)?,
    };
    with_sizes(config, family, sizes)
}

struct DecoderSizes {
    hidden: u32,
    ffn: u32,
    layers: u32,
    heads: u32,
    /// As many as heads if absent.
    kv_heads: Option<u32>,
    vocab: u32,
}

fn with_sizes(
    config: &Fields<'_>,
    family: Family,
    sizes: DecoderSizes,
) -> Result<DecoderConfig, SpecError> {
    let DecoderSizes { hidden, ffn, layers, heads, kv_heads, vocab } = sizes;
    expect_activation(config)?;
    let positions = config.size_or("max_position_embeddings", 2048)?;
    let options = LayerOptions {
        norm_epsilon: config.number_or("rms_norm_eps", 1e-6)?,
        attention_bias: Some(bias(config, family)?),
        feed_forward_bias: family == Family::Llama && config.flag_or("mlp_bias", false)?,
        query_key_norm: (family == Family::Qwen3).then_some(QueryKeyNorm::Head),
        window: window::read(config, family, layers)?,
        rope: rope::read(config, family, positions)?,
        ..LayerOptions::default()
    };
    let module = ModuleSpec {
        name: LANGUAGE.into(),
        layers,
        hidden,
        ffn,
        heads,
        kv_heads,
        head_dim: config.optional_size("head_dim")?.or(family.default_head_dim()),
        gated_ffn: None,
        adapter_hidden: None,
        trainable: true,
        frozen: Vec::new(),
        lora: None,
        inputs: Vec::new(),
        options,
        kind: DecoderSpec {
            vocab,
            head: true,
            tied: config.flag_or("tie_word_embeddings", false)?,
            z_loss: 0.0,
        }
        .into(),
    };
    Ok(DecoderConfig { module, positions })
}

fn expect_activation(config: &Fields<'_>) -> Result<(), SpecError> {
    match config.text_or("hidden_act", "silu")? {
        "silu" => Ok(()),
        other => {
            let remedy = "choose a model of the Llama, Mistral or Qwen type";
            Err(config.error("hidden_act", format!("{other:?}"), "\"silu\"", remedy))
        }
    }
}

fn bias(config: &Fields<'_>, family: Family) -> Result<AttentionBias, SpecError> {
    Ok(match family {
        Family::Qwen2 | Family::Qwen2Vl => AttentionBias::Qkv,
        Family::Llama | Family::Qwen3 if config.flag_or("attention_bias", false)? => {
            AttentionBias::All
        }
        Family::Llama | Family::Mistral | Family::Qwen3 => AttentionBias::None,
    })
}
