//! Diffusion transformers.

use serde::{Deserialize, Serialize};

use super::{
    AttentionBias, ClipMeta, Filling, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice,
    ModuleSpec, Workload, add, square,
};
use crate::spec::error::FieldError;

/// Width of the sinusoidal embedding of a diffusion step.
pub const STEP_EMBEDDING: u64 = 256;
/// A typical clip: its length, and the tokens of its caption.
const TYPICAL_CLIP: ClipMeta =
    ClipMeta { seconds: 4.0, caption_tokens: 100, tokens_per_frame: None };
/// Tokens of the caption of a clip that is measured.
const MEASURED_CAPTION: u64 = 64;

/// Diffusion transformer with cross attention to its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DitSpec {
    /// Latent frames per second of video.
    pub latent_frames_per_second: f64,
    /// Tokens of one latent frame after patchifying.
    pub tokens_per_frame: u32,
    /// Values of one token at its input and output.
    pub token_channels: u32,
    /// Set for the transformer of Wan; absent for the transformer of MovieGen's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan: Option<WanSpec>,
}

/// The transformer of Wan 2.1: a caption passes through two layers and is padded with zeros, only the diffusion step modulates the
/// layers, the norms around the modulation have no weights, and the output is the velocity from video to noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WanSpec {
    /// Latent frames, rows and columns of one token.
    pub patch: [u32; 3],
    /// Tokens of a caption with its padding. Clips attend to the padding as well, so that its number counts.
    pub caption_tokens: u32,
    /// Cosines and sines of the embedding of a diffusion step.
    pub step_waves: u32,
    /// Shift of the steps towards the noise: step `s`, from 0 (video) to 1 (noise), becomes `f s / (1 + (f - 1) s)`.
    pub flow_shift: f64,
}

/// Most values of a patch, and most tokens of a padded caption.
const MAX_PATCH: u32 = 1 << 10;
const MAX_CAPTION: u32 = 1 << 20;

impl WanSpec {
    /// Latent values of one channel in a token.
    pub fn patch_values(&self) -> u32 {
        self.patch.iter().fold(1, |product, &side| product.saturating_mul(side))
    }

    fn validate(&self, module: &ModuleSpec, token_channels: u32) -> Result<(), FieldError> {
        let path = |field: &str| format!("kind.dit.wan.{field}");
        self.patch.iter().try_for_each(|&side| module.check(&path("patch"), side, MAX_PATCH))?;
        if !token_channels.is_multiple_of(self.patch_values()) {
            let limit = format!("a multiple of the {} values of a patch", self.patch_values());
            let remedy = "give the latent channels times the values of a patch";
            let path = module.path("kind.dit.token_channels");
            return Err(FieldError::new(path, token_channels, limit, remedy));
        }
        module.check(&path("caption_tokens"), self.caption_tokens, MAX_CAPTION)?;
        module.check(&path("step_waves"), self.step_waves, 1 << 16)?;
        if !self.step_waves.is_multiple_of(2) {
            let (limit, remedy) = ("even: cosines and sines", "give the published number");
            return Err(FieldError::new(
                module.path(&path("step_waves")),
                self.step_waves,
                limit,
                remedy,
            ));
        }
        let path = module.path(&path("flow_shift"));
        FieldError::check_range(path, self.flow_shift, 1e-3..=1e3, "try 3")
    }
}

impl DitSpec {
    /// Tokens that a clip with a caption of `caption` tokens attends to. All padding is one token: its copies are equal.
    fn context_tokens(&self, caption: u64) -> u64 {
        caption.saturating_add(u64::from(self.wan.is_some()))
    }

    /// Latent frames of a clip, rounded up except for rounding errors.
    fn frames(&self, seconds: f64) -> u64 {
        (seconds * self.latent_frames_per_second - 1e-6).ceil().max(1.0) as u64
    }
}

impl Modality for DitSpec {
    fn name(&self) -> &str {
        "dit"
    }

    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        let rate = self.latent_frames_per_second;
        if !(rate > 0.0 && rate <= 1e4) {
            let path = module.path("kind.dit.latent_frames_per_second");
            let remedy = "give the frame rate after the autoencoder";
            return Err(FieldError::new(path, rate, "above 0, at most 10000", remedy));
        }
        module.check("kind.dit.tokens_per_frame", self.tokens_per_frame, 1 << 24)?;
        module.check("kind.dit.token_channels", self.token_channels, 1 << 16)?;
        self.wan.map_or(Ok(()), |wan| wan.validate(module, self.token_channels))
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        (InstanceSpace::Clips, microbatch.clips.len() as u32)
    }

    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let mut work = slice.empty_workload();
        let range = slice.instances.start as usize..slice.instances.end as usize;
        for clip in &slice.microbatch.clips[range] {
            let per_frame = clip.tokens_per_frame.unwrap_or(self.tokens_per_frame);
            let tokens = self.frames(clip.seconds).saturating_mul(per_frame.into());
            add(&mut work.tokens, tokens);
            add(&mut work.attention_pairs, square(tokens));
            let context = self.context_tokens(clip.caption_tokens);
            add(&mut work.context_tokens, context);
            add(&mut work.cross_pairs, tokens.saturating_mul(context));
        }
        work.output_tokens = work.tokens;
        work.computed_pairs = work.attention_pairs;
        work
    }

    fn sequence_tokens(&self, _: &ModuleSpec, _: &MicrobatchMeta) -> u64 {
        0
    }

    /// Patch embedding, context projection, two layers for the diffusion step, and one adaptive norm (scale, shift and gate,
    /// twice) that all layers share.
    fn start_parameters(&self, module: &ModuleSpec, input_width: u64) -> u64 {
        let hidden = u64::from(module.hidden);
        let (waves, context) = match self.wan {
            Some(wan) => (u64::from(wan.step_waves), input_width + hidden),
            None => (STEP_EMBEDDING, input_width),
        };
        let step = hidden * (waves + hidden);
        hidden * (u64::from(self.token_channels) + context + 6 * hidden) + step
    }

    fn end_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        u64::from(module.hidden) * u64::from(self.token_channels)
    }

    fn attention_blocks(&self) -> u64 {
        2
    }

    fn has_adapter(&self) -> bool {
        false
    }

    fn has_loss(&self) -> bool {
        true
    }

    fn attention_bias(&self) -> AttentionBias {
        AttentionBias::None
    }

    fn fill(&self, at: &Filling<'_>, microbatch: &mut MicrobatchMeta) {
        let clips = at.part(at.model.max_clips.max(1));
        microbatch.clips = vec![TYPICAL_CLIP; clips as usize];
    }

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let frames = tokens as f64 / f64::from(self.tokens_per_frame);
        let clip = ClipMeta {
            seconds: frames / self.latent_frames_per_second,
            caption_tokens: MEASURED_CAPTION,
            tokens_per_frame: None,
        };
        MicrobatchMeta { clips: vec![clip], ..MicrobatchMeta::default() }
    }
}
