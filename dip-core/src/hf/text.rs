//! Decoders of the Llama and Qwen2 families.

use super::fields::Fields;
use super::{Architecture, LANGUAGE};
use crate::spec::{
    AttentionBias, DecoderSpec, LayerOptions, ModuleSpec, Rope, RopeScaling, SpecError,
};

/// Which defaults and biases a decoder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen2Vl,
}

/// A decoder, and the longest sequence that it takes.
pub(super) struct Decoder {
    pub module: ModuleSpec,
    pub positions: u32,
}

impl Family {
    pub fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Llama | Architecture::Llava => Self::Llama,
            Architecture::Qwen2 => Self::Qwen2,
            Architecture::Qwen2Vl => Self::Qwen2Vl,
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

/// The decoder that `config` describes.
pub(super) fn decoder(config: &Fields<'_>, family: Family) -> Result<Decoder, SpecError> {
    let heads = config.size("num_attention_heads")?;
    sizes(
        config,
        family,
        [
            config.size("hidden_size")?,
            config.size("intermediate_size")?,
            config.size("num_hidden_layers")?,
            heads,
            config.size("vocab_size")?,
        ],
    )
}

/// A Llama decoder inside another model, whose file leaves out what `transformers` assumes.
pub(super) fn inner_decoder(config: &Fields<'_>, family: Family) -> Result<Decoder, SpecError> {
    if family != Family::Llama {
        return decoder(config, family);
    }
    sizes(
        config,
        family,
        [
            config.size_or("hidden_size", 4096)?,
            config.size_or("intermediate_size", 11_008)?,
            config.size_or("num_hidden_layers", 32)?,
            config.size_or("num_attention_heads", 32)?,
            config.size_or("vocab_size", 32_000)?,
        ],
    )
}

fn sizes(
    config: &Fields<'_>,
    family: Family,
    [hidden, ffn, layers, heads, vocab]: [u32; 5],
) -> Result<Decoder, SpecError> {
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
        kv_heads: config.maybe_size("num_key_value_heads")?,
        head_dim: config.maybe_size("head_dim")?,
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
    Ok(Decoder { module, positions: config.size_or("max_position_embeddings", 2048)? })
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

/// Rotary positions: `rope_parameters`, or, before `transformers` 5, `rope_theta` and `rope_scaling`.
fn rope(config: &Fields<'_>, family: Family) -> Result<Rope, SpecError> {
    let (name, table) = match config.child("rope_parameters")? {
        Some(table) => ("rope_parameters", Some(table)),
        None => ("rope_scaling", config.child("rope_scaling")?),
    };
    let outside = config.number_or("rope_theta", 10_000.0)?;
    let Some(table) = table else {
        return match family {
            Family::Qwen2Vl => Err(missing_sections(config, name)),
            _ => Ok(Rope { theta: outside, ..Rope::default() }),
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
        _ => None,
    };
    Ok(Rope { theta: table.number_or("rope_theta", outside)?, scaling, sections })
}

fn missing_sections(table: &Fields<'_>, name: &str) -> SpecError {
    let limit = "the angles that turn with time, row and column (mrope_section)";
    table.error(name, "absent".into(), limit, "take the config.json that came with the weights")
}
