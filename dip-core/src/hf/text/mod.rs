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
    Qwen3Vl,
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
            Architecture::Qwen2Vl | Architecture::Qwen25Vl => Self::Qwen2Vl,
            Architecture::Qwen3Vl => Self::Qwen3Vl,
            _ => Self::Llama,
        }
    }

    /// The family of a decoder inside another model, which is of type `default` if the file gives none.
    pub fn of_text_config(config: &Fields<'_>, default: &'static str) -> Result<Self, SpecError> {
        match config.text_or("model_type", default)? {
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

    /// What a file may omit: the defaults of `transformers`.
    fn defaults(self) -> Defaults {
        let qwen = Defaults {
            ffn: 22_016,
            kv_heads: Some(32),
            vocab: 151_936,
            positions: 32_768,
            head_dim: None,
            norm_epsilon: 1e-6,
            theta: 10_000.0,
            full_layers: 28,
            sections: None,
        };
        let llama =
            Defaults { ffn: 11_008, kv_heads: None, vocab: 32_000, positions: 2048, ..qwen };
        match self {
            Self::Llama => llama,
            Self::Mistral => {
                Defaults { ffn: 14_336, kv_heads: Some(8), positions: 131_072, ..llama }
            }
            Self::Qwen2 => qwen,
            Self::Qwen3 => Defaults { head_dim: Some(128), ..qwen },
            Self::Qwen2Vl => Defaults {
                kv_heads: Some(8),
                norm_epsilon: 1e-5,
                theta: 1e6,
                full_layers: 80,
                sections: Some([16, 24, 24]),
                ..qwen
            },
            Self::Qwen3Vl => Defaults {
                head_dim: Some(128),
                positions: 128_000,
                theta: 5e5,
                sections: Some([24, 20, 20]),
                ..qwen
            },
        }
    }
}

/// What the file of a decoder may omit. Decoders inside other models have 32 layers of 4,096 values and 32 heads by default.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    ffn: u32,
    /// `None` for as many as heads.
    kv_heads: Option<u32>,
    vocab: u32,
    positions: u32,
    /// `None` for the width of the model divided by the heads.
    head_dim: Option<u32>,
    norm_epsilon: f64,
    /// Base of the rotary angles.
    theta: f64,
    /// The first layers, which have no window, in models with windows.
    full_layers: u32,
    /// Rotary angles of time, row and column, in models that tell them apart.
    sections: Option<[u32; 3]>,
}

/// Reads the decoder that `config` describes.
pub(super) fn decoder(config: &Fields<'_>, family: Family) -> Result<DecoderConfig, SpecError> {
    let sizes = DecoderSizes {
        hidden: config.size("hidden_size")?,
        ffn: config.size("intermediate_size")?,
        layers: config.size("num_hidden_layers")?,
        heads: config.size("num_attention_heads")?,
        kv_heads: kv_heads(config, family)?,
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
    let sizes = DecoderSizes {
        hidden: config.size_or("hidden_size", 4096)?,
        ffn: config.size_or("intermediate_size", defaults.ffn)?,
        layers: config.size_or("num_hidden_layers", 32)?,
        heads: config.size_or("num_attention_heads", 32)?,
        kv_heads: kv_heads(config, family)?,
        vocab: config.size_or("vocab_size", defaults.vocab)?,
    };
    with_sizes(config, family, sizes)
}

/// The key-value heads of a file. A file that says `null` wants as many as heads; one that says nothing wants the default.
fn kv_heads(config: &Fields<'_>, family: Family) -> Result<Option<u32>, SpecError> {
    match config.has("num_key_value_heads") {
        true => config.optional_size("num_key_value_heads"),
        false => Ok(family.defaults().kv_heads),
    }
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
    let defaults = family.defaults();
    let positions = config.size_or("max_position_embeddings", defaults.positions)?;
    let options = LayerOptions {
        norm_epsilon: config.number_or("rms_norm_eps", defaults.norm_epsilon)?,
        attention_bias: Some(bias(config, family)?),
        feed_forward_bias: family == Family::Llama && config.flag_or("mlp_bias", false)?,
        query_key_norm: matches!(family, Family::Qwen3 | Family::Qwen3Vl)
            .then_some(QueryKeyNorm::Head),
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
        head_dim: config.optional_size("head_dim")?.or(defaults.head_dim),
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
        Family::Mistral => AttentionBias::None,
        _ if config.flag_or("attention_bias", false)? => AttentionBias::All,
        Family::Llama | Family::Qwen3 | Family::Qwen3Vl => AttentionBias::None,
    })
}
