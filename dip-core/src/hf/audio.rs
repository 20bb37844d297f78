//! Audio-language models: Qwen2-Audio.

use super::fields::Fields;
use super::text::{self, Family};
use super::vision::{Modules, expect_word, named_activation, tie};
use super::{AUDIO, LANGUAGE};
use crate::spec::{AttentionBias, AudioProjector, AudioSpec, LayerOptions, ModuleSpec, SpecError};

/// Encoder frames per second of sound: a mel frame every 10 ms, of which the second convolution merges two.
const FRAMES_PER_SECOND: u32 = 50;
/// Frames of one token.
const MERGE: u32 = 2;
/// Added to the variance in all norms of the encoder.
const NORM_EPSILON: f64 = 1e-5;

/// Qwen2-Audio: the encoder of Whisper, the mean of two frames, one linear layer, and a Qwen2 decoder.
pub(super) fn qwen2_audio(config: &Fields<'_>) -> Result<Modules, SpecError> {
    let text = config.required_child("text_config")?;
    expect_word(&text, "model_type", "qwen2", "qwen2")?;
    let mut decoder = text::inner_decoder(&text, Family::Qwen2)?;
    tie(&mut decoder, config)?;
    let audio = config.required_child("audio_config")?;
    let kind = AudioSpec {
        mel_bands: audio.size_or("num_mel_bins", 128)?,
        max_frames: audio.size_or("max_source_positions", 1500)?,
        projector: AudioProjector::Pooled,
        ..AudioSpec::new(FRAMES_PER_SECOND, MERGE)
    };
    let act = audio.text_or("activation_function", "gelu")?;
    let activation = named_activation(act).ok_or_else(|| {
        let limit = "gelu, quick_gelu or gelu_pytorch_tanh";
        let remedy = "choose a model with one of these";
        audio.error("activation_function", format!("{act:?}"), limit, remedy)
    })?;
    let encoder = ModuleSpec {
        name: AUDIO.into(),
        layers: audio.size_or("encoder_layers", 32)?,
        hidden: audio.size_or("d_model", 1280)?,
        ffn: audio.size_or("encoder_ffn_dim", 5120)?,
        heads: audio.size_or("encoder_attention_heads", 20)?,
        kv_heads: None,
        head_dim: None,
        gated_ffn: None,
        adapter_hidden: None,
        trainable: true,
        frozen: Vec::new(),
        lora: None,
        inputs: Vec::new(),
        options: LayerOptions {
            norm_epsilon: NORM_EPSILON,
            attention_bias: Some(AttentionBias::AllButKey),
            activation,
            ..LayerOptions::default()
        },
        kind: kind.into(),
    };
    decoder.module.inputs = vec![AUDIO.into()];
    debug_assert_eq!(decoder.module.name, LANGUAGE);
    Ok(Modules { modules: vec![encoder, decoder.module], positions: decoder.positions })
}
