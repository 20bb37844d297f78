//! Reads a `config.json` of Hugging Face, or the files of a folder in the layout of `diffusers`, as a [`ModelSpec`].
//!
//! Fields that define the architecture are read strictly; the other fields of such files are ignored. Files of `transformers`
//! 4 and 5 are supported, which place some fields differently.

mod audio;
mod fields;
mod generation;
mod processor;
mod text;
mod vision;
mod wan;

use serde::{Deserialize, Serialize};

use crate::spec::{ModelSpec, ModuleSpec, Parallelism, SpecError, VitSpec};
use fields::Fields;
pub use generation::GenerationConfig;
pub use processor::{
    ColorStatistics, ImageProcessorConfig, ImageRule, NativeRule, PixelScale, PixelSize,
    ProcessorFiles, ResizeFilter, SplitRule, SquareResize, SquareRule, TilesRule,
    VideoProcessorConfig,
};
use vision::Modules;
pub use wan::{PIPELINE, PipelineFiles, from_pipeline};

/// Name of the vision encoder in a model from a `config.json`.
pub const VISION: &str = "vision";
/// Name of the audio encoder in a model from a `config.json`.
pub const AUDIO: &str = "audio";
/// Name of the language model in a model from a `config.json`.
pub const LANGUAGE: &str = "language";
/// Name of the text encoder in a model from a folder of `diffusers`.
pub const TEXT: &str = "text";
/// Name of the diffusion transformer in a model from a folder of `diffusers`.
pub const VIDEO: &str = "video";

/// Maximum length of the proposed packed sequence, in tokens.
const SEQUENCE_TOKENS: u32 = 8192;
/// Text beside the largest picture of a proposed sequence, in tokens.
const TEXT_TOKENS: u32 = 512;
/// Maximum number of images in a proposed microbatch.
const MAX_IMAGES: u32 = 48;
/// Bytes of weight, gradient and optimiser state per parameter in mixed precision.
const BYTES_PER_WEIGHT: u64 = 16;
/// Bytes of a weight that is not trained.
const BYTES_PER_FROZEN_WEIGHT: u64 = 4;
/// Maximum bytes of weights, gradients and optimiser state on one rank: half of a large device.
const BYTES_PER_RANK: u64 = 40 << 30;

/// The supported architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// `LlamaForCausalLM`
    Llama,
    /// `MistralForCausalLM`
    Mistral,
    /// `Qwen2ForCausalLM`
    Qwen2,
    /// `Qwen3ForCausalLM`
    Qwen3,
    /// `Qwen2VLForConditionalGeneration`
    Qwen2Vl,
    /// `Qwen2_5_VLForConditionalGeneration`
    Qwen25Vl,
    /// `Qwen3VLForConditionalGeneration`
    Qwen3Vl,
    /// `LlavaForConditionalGeneration`
    Llava,
    /// `LlavaNextForConditionalGeneration`
    LlavaNext,
    /// `LlavaOnevisionForConditionalGeneration`
    LlavaOnevision,
    /// `Idefics3ForConditionalGeneration`
    Idefics3,
    /// `SmolVLMForConditionalGeneration`
    SmolVlm,
    /// `Qwen2AudioForConditionalGeneration`
    Qwen2Audio,
    /// `WanPipeline` with `WanTransformer3DModel` and `UMT5EncoderModel`
    Wan,
}

/// A model and its architecture, which decides the names of its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct HfModel {
    /// The architecture.
    pub architecture: Architecture,
    /// The model. Sequence length, images and ranks are proposals, because a `config.json` does not give them.
    pub spec: ModelSpec,
}

impl Architecture {
    const NAMES: &[(&str, Self)] = &[
        ("LlamaForCausalLM", Self::Llama),
        ("MistralForCausalLM", Self::Mistral),
        ("Qwen2ForCausalLM", Self::Qwen2),
        ("Qwen3ForCausalLM", Self::Qwen3),
        ("Qwen2VLForConditionalGeneration", Self::Qwen2Vl),
        ("Qwen2_5_VLForConditionalGeneration", Self::Qwen25Vl),
        ("Qwen3VLForConditionalGeneration", Self::Qwen3Vl),
        ("LlavaForConditionalGeneration", Self::Llava),
        ("LlavaNextForConditionalGeneration", Self::LlavaNext),
        ("LlavaOnevisionForConditionalGeneration", Self::LlavaOnevision),
        ("Idefics3ForConditionalGeneration", Self::Idefics3),
        ("SmolVLMForConditionalGeneration", Self::SmolVlm),
        ("Qwen2AudioForConditionalGeneration", Self::Qwen2Audio),
    ];

    fn read(config: &Fields<'_>) -> Result<Self, SpecError> {
        if config.has_component("_class_name") {
            return Err(wan::part_of_a_pipeline(config));
        }
        let found = config.strings("architectures")?;
        let known = |name: &String| Self::NAMES.iter().find(|(known, _)| known == name);
        match found.iter().find_map(known) {
            Some((_, architecture)) => Ok(*architecture),
            None => {
                let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                let limit = format!("one of {}", names.join(", "));
                let remedy = "choose such a model, or describe yours in a model TOML";
                Err(config.error("architectures", format!("{found:?}"), &limit, remedy))
            }
        }
    }
}

/// Reads the text of a `config.json`. The model gets the name `name`.
///
/// # Errors
/// [`SpecError`] names the field, its value, the limit and the remedy.
pub fn from_config(name: &str, text: &str) -> Result<HfModel, SpecError> {
    let json = fields::parsed(text, "")?;
    let config = Fields::root(&json)?;
    let architecture = Architecture::read(&config)?;
    refuse_quantised(&config)?;
    let Modules { modules, positions } = match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
            let decoder = text::decoder(&config, text::Family::of(architecture))?;
            Modules { modules: vec![decoder.module], positions: decoder.positions }
        }
        Architecture::Qwen2Vl => vision::qwen2_vl(&config)?,
        Architecture::Qwen25Vl => vision::qwen2_5_vl(&config)?,
        Architecture::Qwen3Vl => vision::qwen3_vl(&config)?,
        Architecture::Llava => vision::llava(&config)?,
        Architecture::LlavaNext => vision::llava_next(&config)?,
        Architecture::LlavaOnevision => vision::llava_onevision(&config)?,
        Architecture::Idefics3 | Architecture::SmolVlm => vision::idefics3(&config)?,
        Architecture::Qwen2Audio => audio::qwen2_audio(&config)?,
        Architecture::Wan => return Err(wan::part_of_a_pipeline(&config)),
    };
    let mut spec = proposal(name, modules, positions);
    // Validation bounds all sizes before they are multiplied.
    spec.validate()?;
    spec.parallel.pipeline = ranks(&spec);
    Ok(HfModel { architecture, spec })
}

/// Refuses weights of few bits: they cannot be trained.
fn refuse_quantised(config: &Fields<'_>) -> Result<(), SpecError> {
    let Some(quantised) = config.child("quantization_config")? else { return Ok(()) };
    let method = quantised.text_or("quant_method", "given")?;
    let remedy = "choose the version of the model with weights of 16 bits";
    let limit = "absent: quantised weights cannot be trained";
    Err(config.error("quantization_config", format!("{method:?}"), limit, remedy))
}

/// Proposes sizes for a model of these modules. `positions` is the longest sequence of its decoder.
fn proposal(name: &str, modules: Vec<ModuleSpec>, positions: u32) -> ModelSpec {
    // A sequence holds the largest picture in tiles with some text.
    let vit = modules.iter().find_map(|module| module.kind.get::<VitSpec>());
    let tiled = vit.filter(|vit| vit.tiles.is_some()).map_or(0, |vit| vit.largest_size().tokens);
    let least = tiled.saturating_add(TEXT_TOKENS).checked_next_multiple_of(1024);
    let sequence_tokens = positions.min(SEQUENCE_TOKENS.max(least.unwrap_or(u32::MAX)));
    let per_image = modules.iter().map(ModuleSpec::tokens_per_image).sum::<u32>();
    ModelSpec {
        name: name.into(),
        sequence_tokens,
        max_patches: None,
        max_images: sequence_tokens.checked_div(per_image).unwrap_or(0).min(MAX_IMAGES),
        max_clips: 0,
        microbatches: 8,
        parallel: Parallelism::default(),
        modules,
    }
}

/// Proposes a number of ranks: the smallest power of two whose memory holds the weights and the optimiser state, with at
/// least one layer of every module per rank.
fn ranks(spec: &ModelSpec) -> u32 {
    let of_module = |(id, module): (usize, &ModuleSpec)| {
        let of_weight = if module.trainable { BYTES_PER_WEIGHT } else { BYTES_PER_FROZEN_WEIGHT };
        spec.parameters(id.into()).total().saturating_mul(of_weight)
    };
    let bytes = spec.modules.iter().enumerate().map(of_module).fold(0u64, u64::saturating_add);
    let max_ranks = spec.modules.iter().map(|m| m.layers).min().unwrap_or(1);
    let enough = |ranks: &u32| u64::from(*ranks).saturating_mul(BYTES_PER_RANK) >= bytes;
    let powers = || (1..16).map(|n| 1u32 << n).filter(|&ranks| ranks <= max_ranks);
    powers().find(enough).or_else(|| powers().next_back()).unwrap_or(1)
}

#[cfg(test)]
mod tests;
