//! Wan 2.1 from text to video, in the folders of `diffusers`: a transformer and its UMT5 text encoder.

use serde_json::Value;

use super::fields::{Fields, parsed};
use super::{Architecture, HfModel, TEXT, VIDEO, ranks};
use crate::spec::{
    Activation, AttentionBias, DitSpec, LayerOptions, ModelSpec, ModuleSpec, Parallelism,
    QueryKeyNorm, SpecError, T5Spec, WanSpec,
};

/// The files that describe a model in the layout of `diffusers`, as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineFiles {
    /// `model_index.json`
    pub index: String,
    /// `transformer/config.json`
    pub transformer: String,
    /// `text_encoder/config.json`
    pub text_encoder: String,
    /// `scheduler/scheduler_config.json`, if there is one.
    pub scheduler: Option<String>,
}

/// The file that a folder in the layout of `diffusers` has.
pub const PIPELINE: &str = "model_index.json";
const TRANSFORMER: &str = "transformer/config.json";
const TEXT_ENCODER: &str = "text_encoder/config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Latent frames per second: Wan makes 16 frames per second, of which its autoencoder merges four.
const LATENT_FRAMES_PER_SECOND: f64 = 4.0;
/// Tokens of a latent frame of 832 x 480 pixels, whose tokens span 16 pixels along each side.
const TOKENS_PER_FRAME: u32 = 1560;
/// Tokens of a padded caption in training and sampling.
const CAPTION_TOKENS: u32 = 512;
/// Maximum number of clips in a proposed microbatch.
const MAX_CLIPS: u32 = 4;
/// The shift of a scheduler that does not give one.
const FLOW_SHIFT: f64 = 3.0;
const ANOTHER: &str = "choose Wan 2.1 from text to video";

impl PipelineFiles {
    /// Reads the files of a folder; `read` returns the text of the file at a path in it, or `None` if there is no such file.
    ///
    /// # Errors
    /// The first error of `read`.
    pub fn read<E>(
        mut read: impl FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<Option<Self>, E> {
        let Some(index) = read(PIPELINE)? else { return Ok(None) };
        Ok(Some(Self {
            index,
            transformer: read(TRANSFORMER)?.unwrap_or_default(),
            text_encoder: read(TEXT_ENCODER)?.unwrap_or_default(),
            scheduler: read(SCHEDULER)?,
        }))
    }
}

/// Reads a model in the layout of `diffusers`. The model gets the name `name`.
///
/// # Errors
/// [`SpecError`] names the file, the field, its value, the limit and the remedy.
pub fn from_pipeline(name: &str, files: &PipelineFiles) -> Result<HfModel, SpecError> {
    check_index(&Fields::of_file(&json(&files.index, PIPELINE)?, PIPELINE)?)?;
    let shift = match &files.scheduler {
        Some(text) => flow_shift(&Fields::of_file(&json(text, SCHEDULER)?, SCHEDULER)?)?,
        None => FLOW_SHIFT,
    };
    let text = json(&files.text_encoder, TEXT_ENCODER)?;
    let text = text_encoder(&Fields::of_file(&text, TEXT_ENCODER)?)?;
    let video = json(&files.transformer, TRANSFORMER)?;
    let video = transformer(&Fields::of_file(&video, TRANSFORMER)?, &text, shift)?;
    let mut spec = ModelSpec {
        name: name.into(),
        sequence_tokens: MAX_CLIPS * CAPTION_TOKENS,
        max_images: 0,
        max_patches: None,
        max_clips: MAX_CLIPS,
        microbatches: 8,
        parallel: Parallelism::default(),
        modules: vec![text, video],
    };
    spec.validate()?;
    spec.parallel.pipeline = ranks(&spec);
    Ok(HfModel { architecture: Architecture::Wan, spec })
}

/// The error of a file that describes one part of a model.
pub(super) fn part_of_a_pipeline(config: &Fields<'_>) -> SpecError {
    let limit = "absent: this file describes a part of a model of diffusers";
    let remedy = "give the folder with the model_index.json";
    config.error("_class_name", config.shown("_class_name"), limit, remedy)
}

fn json(text: &str, file: &str) -> Result<Value, SpecError> {
    if text.is_empty() {
        let what = format!("{file} is missing; get the whole folder of the model");
        return Err(SpecError::Syntax(what));
    }
    parsed(text, &format!("{file}: "))
}

fn check_index(index: &Fields<'_>) -> Result<(), SpecError> {
    expect(index, "_class_name", "WanPipeline")?;
    // Wan 2.2 has two transformers, for early and for late steps.
    if index.has_component("transformer_2") {
        let value = "a second transformer".to_owned();
        return Err(index.error("transformer_2", value, "absent: it is not implemented", ANOTHER));
    }
    for field in ["boundary_ratio", "image_encoder", "image_processor"] {
        refuse(index, field)?;
    }
    index.refuse("expand_timesteps", ANOTHER)
}

/// Refuses a field that is set.
fn refuse(config: &Fields<'_>, field: &str) -> Result<(), SpecError> {
    match config.has_component(field) {
        true => {
            let value = config.shown(field);
            Err(config.error(field, value, "absent: it is not implemented", ANOTHER))
        }
        false => Ok(()),
    }
}

/// Refuses every word but one.
fn expect(config: &Fields<'_>, field: &str, word: &str) -> Result<(), SpecError> {
    match config.text_or(field, "absent")? {
        found if found == word => Ok(()),
        other => Err(config.error(field, format!("{other:?}"), &format!("{word:?}"), ANOTHER)),
    }
}

fn flow_shift(scheduler: &Fields<'_>) -> Result<f64, SpecError> {
    let shift = scheduler.optional_number("flow_shift")?;
    Ok(shift.or(scheduler.optional_number("shift")?).unwrap_or(FLOW_SHIFT))
}

/// The encoder is frozen, as Wan is trained; a run may train it.
fn text_encoder(config: &Fields<'_>) -> Result<ModuleSpec, SpecError> {
    let found = config.strings("architectures")?;
    if !found.iter().any(|name| name == "UMT5EncoderModel") {
        let limit = "[\"UMT5EncoderModel\"]";
        return Err(config.error("architectures", format!("{found:?}"), limit, ANOTHER));
    }
    match config.text_or("feed_forward_proj", "gated-gelu")? {
        "gated-gelu" => {}
        other => {
            let value = format!("{other:?}");
            return Err(config.error("feed_forward_proj", value, "\"gated-gelu\"", ANOTHER));
        }
    }
    let kind = T5Spec {
        vocab: config.size("vocab_size")?,
        buckets: config.size_or("relative_attention_num_buckets", 32)?,
        max_distance: config.size_or("relative_attention_max_distance", 128)?,
    };
    let options = LayerOptions {
        norm_epsilon: config.number_or("layer_norm_epsilon", 1e-6)?,
        gate_activation: Some(Activation::GeluTanh),
        ..LayerOptions::default()
    };
    Ok(ModuleSpec {
        name: TEXT.into(),
        layers: config.size("num_layers")?,
        hidden: config.size("d_model")?,
        ffn: config.size("d_ff")?,
        heads: config.size("num_heads")?,
        kv_heads: None,
        head_dim: Some(config.size("d_kv")?),
        gated_ffn: None,
        adapter_hidden: None,
        trainable: false,
        frozen: Vec::new(),
        lora: None,
        inputs: Vec::new(),
        options,
        kind: kind.into(),
    })
}

fn transformer(
    config: &Fields<'_>,
    text: &ModuleSpec,
    flow_shift: f64,
) -> Result<ModuleSpec, SpecError> {
    expect(config, "_class_name", "WanTransformer3DModel")?;
    // From images to video.
    for field in ["image_dim", "added_kv_proj_dim", "pos_embed_seq_len"] {
        refuse(config, field)?;
    }
    expect(config, "qk_norm", "rms_norm_across_heads")?;
    if !config.flag_or("cross_attn_norm", true)? {
        return Err(config.error("cross_attn_norm", "false".into(), "true", ANOTHER));
    }
    let channels = config.size("in_channels")?;
    let output = config.size("out_channels")?;
    if output != channels {
        let limit = format!("in_channels = {channels}");
        return Err(config.error("out_channels", output.to_string(), &limit, ANOTHER));
    }
    let text_dim = config.size("text_dim")?;
    if text_dim != text.hidden {
        let limit = format!("d_model of the text encoder = {}", text.hidden);
        let remedy = "get the transformer and the text encoder of one model";
        return Err(config.error("text_dim", text_dim.to_string(), &limit, remedy));
    }
    let (heads, head_dim) =
        (config.size("num_attention_heads")?, config.size("attention_head_dim")?);
    let wan = WanSpec {
        patch: patch(config)?,
        caption_tokens: CAPTION_TOKENS,
        step_waves: config.size("freq_dim")?,
        flow_shift,
    };
    let kind = DitSpec {
        latent_frames_per_second: LATENT_FRAMES_PER_SECOND / f64::from(wan.patch[0]),
        tokens_per_frame: TOKENS_PER_FRAME,
        token_channels: channels.saturating_mul(wan.patch_values()),
        wan: Some(wan),
    };
    let options = LayerOptions {
        norm_epsilon: config.number_or("eps", 1e-6)?,
        attention_bias: Some(AttentionBias::All),
        activation: Activation::GeluTanh,
        query_key_norm: Some(QueryKeyNorm::AcrossHeads),
        ..LayerOptions::default()
    };
    Ok(ModuleSpec {
        name: VIDEO.into(),
        layers: config.size("num_layers")?,
        hidden: heads.saturating_mul(head_dim),
        ffn: config.size("ffn_dim")?,
        heads,
        kv_heads: None,
        head_dim: Some(head_dim),
        gated_ffn: None,
        adapter_hidden: None,
        trainable: true,
        frozen: Vec::new(),
        lora: None,
        inputs: vec![TEXT.into()],
        options,
        kind: kind.into(),
    })
}

fn patch(config: &Fields<'_>) -> Result<[u32; 3], SpecError> {
    let sizes = config.sizes("patch_size")?.unwrap_or_else(|| vec![1, 2, 2]);
    match sizes[..] {
        [frames, rows, columns] if frames > 0 && rows > 0 && columns > 0 => {
            Ok([frames, rows, columns])
        }
        _ => {
            let limit = "three sides of at least 1: frames, rows and columns";
            let remedy = "take the files that came with the weights";
            Err(config.error("patch_size", format!("{sizes:?}"), limit, remedy))
        }
    }
}

#[cfg(test)]
mod tests;
