//! Decoders of the Llama and Qwen2 families.

use super::fields::Fields;
use super::{Architecture, LANGUAGE};
use crate::spec::{
    AttentionBias, DecoderSpec, LayerOptions, ModuleSpec, Rope, RopeScaling, SpecError,
};

/// The family of a decoder. It decides the defaults and biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen2Vl,
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
            Architecture::Qwen2 | Architecture::Qwen2Audio => Self::Qwen2,
            Architecture::Qwen2Vl | Architecture::Qwen25Vl => Self::Qwen2Vl,
            _ => Self::Llama,
        }
    }

    /// The family of a decoder inside another model.
    pub fn of_text_config(config: &Fields<'_>) -> Result<Self, SpecError> {
        match config.text_or("model_type", "llama")? {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            other => {
                let remedy = "choose a model with such a decoder";
                Err(config.error("model_type", format!("{other:?}"), "llama or qwen2", remedy))
            }
        }
    }
}

/// Reads the decoder that `config` describes.
pub(super) fn decoder(config: &Fields<'_>, family: Family) -> Result<DecoderConfig, SpecError> {
    let sizes = DecoderSizes {
        hidden: config.size("hidden_size")?,
        ffn: config.size("intermediate_size")?,
        layers: config.size("num_hidden_layers")?,
        heads: config.size("num_attention_heads")?,
        vocab: config.size("vocab_size")?,
    };
    with_sizes(config, family, sizes)
}

/// Reads a decoder inside another model. Its file may omit the defaults of `transformers`.
pub(super) fn inner_decoder(
    config: &Fields<'_>,
    family: Family,
) -> Result<DecoderConfig, SpecError> {
    let (ffn, vocab) = match family {
        Family::Llama => (11_008, 32_000),
        Family::Qwen2 => (22_016, 151_936),
        Family::Qwen2Vl => return decoder(config, family),
    };
    let sizes = DecoderSizes {
        hidden: config.size_or("hidden_size", 4096)?,
        ffn: config.size_or("intermediate_size", ffn)?,
        layers: config.size_or("num_hidden_layers", 32)?,
        heads: config.size_or("num_attention_heads", 32)?,
        vocab: config.size_or("vocab_size", vocab)?,
    };
    with_sizes(config, family, sizes)
}

struct DecoderSizes {
    hidden: u32,
    ffn: u32,
    layers: u32,
    heads: u32,
    vocab: u32,
}

fn with_sizes(
    config: &Fields<'_>,
    family: Family,
    sizes: DecoderSizes,
) -> Result<DecoderConfig, SpecError> {
    let DecoderSizes { hidden, ffn, layers, heads, vocab } = sizes;
    expect_activation(config)?;
    config.refuse("use_sliding_window", "choose a model with full attention")?;
    config.refuse("mlp_bias", "choose a model without biases in its feed-forward networks")?;
    let options = LayerOptions {
        norm_epsilon: config.number_or("rms_norm_eps", 1e-6)?,
        attention_bias: Some(bias(config, family)?),
        rope: rope(config, family)?,
        ..LayerOptions::default()
    };
    let module = ModuleSpec {
        name: LANGUAGE.into(),
        layers,
        hidden,
        ffn,
        heads,
        kv_heads: config.optional_size("num_key_value_heads")?,
        head_dim: config.optional_size("head_dim")?,
        gated_ffn: None,
        adapter_hidden: None,
        trainable: true,
        lora: None,
        inputs: Vec::new(),
        options,
        kind: DecoderSpec {
            vocab,
            head: true,
            tied: config.flag_or("tie_word_embeddings", false)?,
        }
        .into(),
    };
    Ok(DecoderConfig { module, positions: config.size_or("max_position_embeddings", 2048)? })
}

fn expect_activation(config: &Fields<'_>) -> Result<(), SpecError> {
    match config.text_or("hidden_act", "silu")? {
        "silu" => Ok(()),
        other => {
            let remedy = "choose a model of the Llama or Qwen2 type";
            Err(config.error("hidden_act", format!("{other:?}"), "\"silu\"", remedy))
        }
    }
}

fn bias(config: &Fields<'_>, family: Family) -> Result<AttentionBias, SpecError> {
    Ok(match family {
        Family::Qwen2 | Family::Qwen2Vl => AttentionBias::Qkv,
        Family::Llama if config.flag_or("attention_bias", false)? => AttentionBias::All,
        Family::Llama => AttentionBias::None,
    })
}

/// Reads rotary positions from `rope_parameters`, or from `rope_theta` and `rope_scaling` before `transformers` 5.
fn rope(config: &Fields<'_>, family: Family) -> Result<Rope, SpecError> {
    let (name, table) = match config.child("rope_parameters")? {
        Some(table) => ("rope_parameters", Some(table)),
        None => ("rope_scaling", config.child("rope_scaling")?),
    };
    let outer_theta = config.number_or("rope_theta", 10_000.0)?;
    let Some(table) = table else {
        return match family {
            Family::Qwen2Vl => Err(missing_sections(config, name)),
            Family::Llama | Family::Qwen2 => Ok(Rope { theta: outer_theta, ..Rope::default() }),
        };
    };
    let kind = table.text_or("rope_type", table.text_or("type", "default")?)?;
    let scaling = match kind {
        "default" | "mrope" => None,
        "llama3" => Some(RopeScaling {
            factor: table.number("factor")?,
            low: table.number("low_freq_factor")?,
            high: table.number("high_freq_factor")?,
            original_positions: table.size("original_max_position_embeddings")?,
        }),
        other => {
            let remedy =
                "choose a model with one of these, or drop the scaling for short sequences";
            let limit = "default, mrope or llama3";
            return Err(table.error("rope_type", format!("{other:?}"), limit, remedy));
        }
    };
    let sections = match (family, table.sizes("mrope_section")?) {
        (Family::Qwen2Vl, None) => return Err(missing_sections(&table, "mrope_section")),
        (Family::Qwen2Vl, Some(list)) => {
            let shown = format!("{list:?}");
            let three: Result<[u32; 3], _> = list.try_into();
            Some(three.map_err(|_| {
                let remedy = "take the config.json that came with the weights";
                table.error("mrope_section", shown, "three sections: time, row and column", remedy)
            })?)
        }
        (Family::Llama | Family::Qwen2, _) => None,
    };
    let theta = table.number_or("rope_theta", outer_theta)?;
    Ok(Rope { theta, scaling, sections, interleaved: false })
}

fn missing_sections(table: &Fields<'_>, name: &str) -> SpecError {
    let limit = "the angles of time, row and column (mrope_section)";
    table.error(name, "absent".into(), limit, "take the config.json that came with the weights")
}
