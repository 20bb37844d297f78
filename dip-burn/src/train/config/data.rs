//! `[data]`: the training data of a run.

use std::path::PathBuf;
use std::sync::Arc;

use dip_core::hf::VideoProcessorConfig;
use dip_core::{FieldError, ModelSpec, Seconds};
use serde::{Deserialize, Serialize};

use crate::data::{BestFit, FirstFit, FlowTimes, PackingRule, ShardCache, TooLong};

/// Most microbatches of one iteration.
const MAX_MICROBATCHES: u32 = 4096;
/// Most batches that are packed together.
const MAX_LOOKAHEAD: u32 = 64;
/// Most tokens of one iteration.
const MAX_TOKENS_PER_ITERATION: u64 = 1 << 40;
/// Default seconds of video for each clip of a microbatch: 16 for 8 clips, as in MovieGen.
const SECONDS_PER_CLIP: f64 = 2.0;

/// The training data of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Shards: files, folders of them, patterns or URLs; none for the built-in drawn scenes, or moving shapes for video.
    pub shards: Vec<PathBuf>,
    /// The folder of the pictures that JSON files name; absent for the folder of each file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// The folder in which shards given by URL are kept; absent to fetch them whenever they are opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Most bytes of shards in `cache`; those that were not used for the longest time are removed. Absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// The folder in which indexes of shards are kept that have none beside them; absent for the folder `indexes` in the output of
    /// the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexes: Option<PathBuf>,
    /// Several sets of shards in shares, in place of `shards`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<MixtureConfig>,
    /// Samples to draw the next one from; 1 keeps the order of the shards.
    pub shuffle_buffer: usize,
    /// What happens to documents that are longer than a sequence.
    pub too_long: TooLong,
    /// Shards held out for evaluation. Without them, a run on built-in data is evaluated on built-in held-out data, and a run on
    /// shards is not evaluated.
    pub held_out: Vec<PathBuf>,
    /// A Hugging Face `tokenizer.json`, or `bytes` for the built-in byte-level one. Absent for the tokenizer of the published model,
    /// and for bytes without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// A folder with the `preprocessor_config.json` or `processor_config.json` that pictures are prepared by. Absent for that of the
    /// published model, and for the squares of the vision encoder without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_processor: Option<PathBuf>,
    /// Frames of videos in documents, in place of what the published model says: `fps`, `min_frames`, `max_frames`, `min_pixels` and
    /// `max_pixels` of a frame, and `max_video_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoProcessorConfig>,
    /// Microbatches of one iteration; absent for the number in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microbatches: Option<u32>,
    /// Replaces `microbatches`: a batch gets microbatches until it has this many tokens, not counting padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_iteration: Option<u64>,
    /// Which documents share a sequence.
    pub packing: Packing,
    /// Batches that are packed together: their documents change places until the patches of all sequences are about equal. 0 leaves
    /// documents where `packing` has put them.
    pub lookahead: u32,
    /// Seconds of video in one microbatch, and so in one clip: longer clips are cut. Absent for two seconds for each of the model's
    /// `max_clips`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<f64>,
    /// Share of clips that are trained without their caption, which guidance needs.
    pub caption_dropout: f64,
    /// The times at which clips are trained. Absent for the times that suit the model: logit-normal ones, or those of Wan's sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowTimes>,
    /// The `config.json` of the autoencoder, whose `latents_mean` and `latents_std` normalise the stored latents. Absent if the
    /// latents are normalised already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
}

impl DataConfig {
    /// Where shards given by URL are kept; `None` to fetch them whenever they are opened.
    pub fn shard_cache(&self) -> Option<ShardCache> {
        let max_bytes = self.cache_bytes.unwrap_or(u64::MAX);
        self.cache.clone().map(|folder| ShardCache { folder, max_bytes })
    }

    /// The longest video of one microbatch of `model`.
    pub fn video_of_microbatch(&self, model: &ModelSpec) -> Seconds {
        let by_clips = SECONDS_PER_CLIP * f64::from(model.max_clips.max(1));
        Seconds(self.max_seconds.unwrap_or(by_clips))
    }

    /// The times at which clips of `model` are trained.
    pub fn flow_times(&self, model: &ModelSpec) -> FlowTimes {
        let wan = model.video().and_then(|video| video.wan);
        let usual = wan.map_or_else(FlowTimes::default, |wan| FlowTimes::uniform(wan.flow_shift));
        self.flow.unwrap_or(usual)
    }

    /// Checks every field.
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        let microbatches = self.microbatches.unwrap_or(1);
        let range = 1..=MAX_MICROBATCHES;
        FieldError::check_range("data.microbatches", microbatches, range, "a few for each rank")?;
        self.validate_tokens()?;
        let lookahead = 0..=MAX_LOOKAHEAD;
        FieldError::check_range("data.lookahead", self.lookahead, lookahead, "try 4")?;
        self.validate_mixture()?;
        if self.cache_bytes.is_some() && self.cache.is_none() {
            let limit = "absent where data.cache is absent";
            let remedy = "name the folder with data.cache";
            return Err(FieldError::new("data.cache_bytes", "set", limit, remedy));
        }
        let bytes = self.cache_bytes.unwrap_or(u64::MAX);
        FieldError::check_range("data.cache_bytes", bytes, 1..=u64::MAX, "try 100000000000")?;
        self.video.map_or(Ok(()), |video| video.validate("data.video"))?;
        let seconds = self.max_seconds.unwrap_or(1.0);
        FieldError::check_range("data.max_seconds", seconds, 1e-3..=1e6, "try 16")?;
        self.flow.map_or(Ok(()), |flow| flow.validate("data.flow"))?;
        let dropout = self.caption_dropout;
        FieldError::check_range("data.caption_dropout", dropout, 0.0..=1.0, "try 0.1")
    }

    /// Checks the parts of a mixture.
    fn validate_mixture(&self) -> Result<(), FieldError> {
        let buffer = 1..=1 << 20;
        let remedy = "try 1024, or 1 for no shuffling";
        FieldError::check_range("data.shuffle_buffer", self.shuffle_buffer, buffer, remedy)?;
        if !self.mixture.is_empty() && !self.shards.is_empty() {
            let (limit, remedy) = ("empty where data.mixture is set", "name all shards in parts");
            return Err(FieldError::new("data.shards", "set", limit, remedy));
        }
        self.mixture.iter().try_for_each(|part| {
            let (path, remedy) = ("data.mixture.weight", "leave out parts with a weight of 0");
            FieldError::check_range(path, part.weight, 1e-6..=1e6, remedy)
        })
    }

    /// True if the run is trained on data of its own, and not on drawn data.
    pub fn has_shards(&self) -> bool {
        !self.shards.is_empty() || !self.mixture.is_empty()
    }

    /// Checks that a batch is sized by microbatches or by tokens, not by both.
    fn validate_tokens(&self) -> Result<(), FieldError> {
        let Some(tokens) = self.tokens_per_iteration else { return Ok(()) };
        let path = "data.tokens_per_iteration";
        if self.microbatches.is_some() {
            let limit = "absent where data.microbatches is set";
            return Err(FieldError::new(path, tokens, limit, "keep one of the two"));
        }
        let range = 1..=MAX_TOKENS_PER_ITERATION;
        FieldError::check_range(path, tokens, range, "a few sequences for each rank")
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            images: None,
            cache: None,
            cache_bytes: None,
            indexes: None,
            mixture: Vec::new(),
            shuffle_buffer: 1024,
            too_long: TooLong::default(),
            held_out: Vec::new(),
            tokenizer: None,
            image_processor: None,
            video: None,
            microbatches: None,
            tokens_per_iteration: None,
            packing: Packing::default(),
            lookahead: 0,
            max_seconds: None,
            caption_dropout: 0.1,
            flow: None,
            vae: None,
        }
    }
}

/// One part of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MixtureConfig {
    /// Shards, as in `data.shards`.
    pub shards: Vec<PathBuf>,
    /// The folder of the pictures that JSON files name; absent for `data.images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Share of the documents, relative to the weights of the other parts.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// Which of the waiting documents comes next in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// The oldest document that fits.
    #[default]
    FirstFit,
    /// The document that fills most of the remaining room.
    BestFit,
}

impl Packing {
    /// The rule itself.
    pub fn rule(self) -> Arc<dyn PackingRule> {
        match self {
            Self::FirstFit => Arc::new(FirstFit),
            Self::BestFit => Arc::new(BestFit),
        }
    }
}
