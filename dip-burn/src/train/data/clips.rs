//! Text-to-video models: captioned clips to train on, held-out clips to measure, held-out captions to sample for.

use std::collections::HashSet;
use std::sync::Arc;

use dip_core::{FieldError, ModelSpec};

use super::sources::{held_out_shards, train_shards};
use super::{
    BatchContent, BatchLoader, DataRequest, LoadedBatch, PREFETCH, RunData, SelectMicrobatches,
    open_tokenizer,
};
use crate::batch::{ClipGrid, Microbatch};
use crate::data::toy::{
    ClipCaption, DataSplit, MovingConfig, MovingShapes, SampleMatch, match_clip,
};
use crate::data::video::{ReadyClip, at_time, packed};
use crate::data::{
    CaptionedVideo, ClipBatch, ClipLoader, ClipLoaderConfig, DataError, DataReport, DataSource,
    LatentShape, LatentStatistics, Latents, SAMPLE_SHIFT, SourcePosition, Tokenizer, WebDataset,
    caption_tokens,
};
use crate::inference::Inference;
use crate::inference::{ClipPrompt, Sampler};
use crate::train::evaluator::{EvaluationError, Evaluator};
use crate::train::report::{Evaluation, SampledClip};
use crate::train::{DataConfig, EvaluationConfig};

/// Videos searched for each held-out clip.
const VIDEOS_PER_CLIP: usize = 64;
/// These seeds make the noise of held-out clips and of samples differ from the noise of training.
const EVALUATION_SEED: u64 = 0x5eed_e7a1;
const SAMPLE_SEED: u64 = 0x5eed_5a3b;
/// Clips of one forward in an evaluation.
const CLIPS_AT_ONCE: usize = 8;

/// Measures the loss on held-out clips, and samples clips for their captions.
pub struct ClipEvaluator {
    held_out: Vec<HeldOutClip>,
    sampler: ClipSampler,
    seed: u64,
}

/// Samples clips for captions.
pub(in crate::train) struct ClipSampler {
    tokenizer: Arc<Tokenizer>,
    /// The settings of the training data, which other clips share.
    config: ClipLoaderConfig,
    /// Shift of the steps.
    shift: f64,
}

impl ClipSampler {
    /// The sampler of a model of clips, whose data names the file of the tokenizer.
    ///
    /// # Errors
    /// [`DataError`] names the file or setting, or says that the model makes no clips.
    pub fn open(
        model: &ModelSpec,
        data: &DataConfig,
        evaluation: &EvaluationConfig,
    ) -> Result<Self, DataError> {
        let Some(shape) = LatentShape::of(model) else {
            let limit = "a model with a diffusion transformer";
            let remedy = "choose a text-to-video model";
            return Err(FieldError::new("the model", "without one", limit, remedy).into());
        };
        let tokenizer = open_tokenizer(model, data)?;
        let request =
            DataRequest { model, data, evaluation, seed: 0, tokenizer: tokenizer.clone() };
        let config = clip_config(&request, shape)?;
        Ok(Self::new(model, evaluation, tokenizer, config))
    }

    fn new(
        model: &ModelSpec,
        evaluation: &EvaluationConfig,
        tokenizer: Arc<Tokenizer>,
        config: ClipLoaderConfig,
    ) -> Self {
        let usual = model.video().and_then(|video| video.wan).map(|wan| wan.flow_shift);
        let shift = evaluation.sample_shift.unwrap_or_else(|| usual.unwrap_or(SAMPLE_SHIFT));
        Self { tokenizer, config, shift }
    }

    /// The size of a sampled clip: frames as square as they fit the model.
    pub fn usual_grid(&self, evaluation: &EvaluationConfig) -> ClipGrid {
        let shape = &self.config.shape;
        let rows = shape.tokens_per_frame.isqrt().max(1);
        let frames = shape.frames(evaluation.sample_seconds);
        ClipGrid { frames, rows, columns: (shape.tokens_per_frame / rows).max(1) }
    }

    /// A clip of the given size for each caption.
    ///
    /// # Errors
    /// [`EvaluationError`] if a caption cannot be tokenised, or the model fails.
    pub fn samples(
        &self,
        model: &mut dyn Inference,
        wanted: &[(String, ClipGrid)],
        evaluation: &EvaluationConfig,
        seed: u64,
    ) -> Result<Vec<SampledClip>, EvaluationError> {
        let sampler = Sampler {
            steps: evaluation.sample_steps,
            guidance: evaluation.guidance,
            shift: self.shift,
            values: self.config.shape.values as usize,
            empty: self.tokens("")?,
        };
        let prompt = |(caption, grid): &(String, ClipGrid)| {
            Ok(ClipPrompt { caption: self.tokens(caption)?, grid: *grid })
        };
        let prompts = wanted.iter().map(prompt).collect::<Result<Vec<_>, DataError>>()?;
        let sampled = model.sample(&sampler, &prompts, seed)?;
        let sample = |(latents, (caption, _)): (Latents, &(String, ClipGrid))| SampledClip {
            seen: self.seen(&latents, caption),
            caption: caption.clone(),
            latents,
            shape: self.config.shape,
        };
        Ok(sampled.into_iter().zip(wanted).map(sample).collect())
    }

    /// Which parts of a caption of the drawn data can be seen in the pixels.
    fn seen(&self, latents: &Latents, caption: &str) -> Option<SampleMatch> {
        let (patch_px, caption) = (self.config.shape.patch_px()?, ClipCaption::parse(caption)?);
        Some(match_clip(&latents.frames(patch_px), caption))
    }

    fn tokens(&self, caption: &str) -> Result<Vec<u32>, DataError> {
        let text = self.config.caption_text(caption);
        Ok(caption_tokens(&self.tokenizer, &text, self.config.caption_tokens as usize)?)
    }
}

/// A held-out clip and its caption.
struct HeldOutClip {
    latents: Latents,
    caption: String,
}

/// Opens the data of a text-to-video model.
pub(super) fn open(request: &DataRequest<'_>, shape: LatentShape) -> Result<RunData, DataError> {
    let DataRequest { model, data, evaluation, seed, tokenizer } = request;
    let config = clip_config(request, shape)?;
    let count = evaluation.clips.max(evaluation.samples);
    let held_out = match held_out_source(data, *seed)? {
        Some(mut source) => held_out(&mut *source, &config, count)?,
        None => Vec::new(),
    };
    let loader = ClipLoader::new(train_source(data, *seed)?, tokenizer.clone(), config.clone())?;
    let sampler = ClipSampler::new(model, evaluation, tokenizer.clone(), config);
    let has_data = !held_out.is_empty();
    let evaluator = ClipEvaluator { held_out, sampler, seed: *seed };
    Ok(RunData {
        loader: Box::new(loader),
        evaluator: has_data.then(|| Box::new(evaluator) as Box<dyn Evaluator>),
    })
}

/// How clips of the run are read.
pub(super) fn clip_config(
    request: &DataRequest<'_>,
    shape: LatentShape,
) -> Result<ClipLoaderConfig, DataError> {
    let DataRequest { model, data, seed, .. } = request;
    let max_clips = model.max_clips.max(1);
    let wan = model.video().and_then(|video| video.wan);
    let of_clip = model.sequence_tokens / max_clips;
    Ok(ClipLoaderConfig {
        shape,
        statistics: statistics(data, &shape)?,
        times: data.flow_times(model),
        joins_spaces: wan.is_some(),
        max_clips,
        max_frames: shape.frames(data.video_of_microbatch(model).0),
        caption_tokens: wan.map_or(of_clip, |wan| wan.caption_tokens.min(of_clip)),
        microbatches: data.microbatches.unwrap_or(model.microbatches),
        tokens_per_batch: data.tokens_per_iteration,
        caption_dropout: data.caption_dropout,
        seed: *seed,
        prefetch: PREFETCH,
    })
}

impl BatchLoader for ClipLoader {
    /// Decodes all clips, whatever is selected: the length of a clip is known only then.
    fn next_batch(
        &mut self,
        select: &mut SelectMicrobatches<'_>,
    ) -> Result<LoadedBatch, DataError> {
        let ClipBatch { meta, microbatches, position, .. } = ClipLoader::next_batch(self)?;
        let tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
        let documents = microbatches.iter().map(|m| m.clips.len() as u64).sum();
        let mut all: Vec<_> = microbatches.into_iter().map(Some).collect();
        let microbatches: Vec<_> =
            select(&meta).iter().filter_map(|w| all.get_mut(w.microbatch)?.take()).collect();
        let trained_tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
        let content =
            Box::new(move || Ok(BatchContent { microbatches, trained_tokens, muted: Vec::new() }));
        let position = SourcePosition::new(&position);
        Ok(LoadedBatch { meta, position, tokens, documents, content })
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(ClipLoader::position(self))
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        ClipLoader::restore(self, &position.get()?)
    }

    fn report(&self) -> DataReport {
        DataReport { skipped: ClipLoader::skipped(self).clone(), ..DataReport::default() }
    }
}

impl Evaluator for ClipEvaluator {
    fn evaluate(
        &self,
        model: &mut dyn Inference,
        config: &EvaluationConfig,
        generates: bool,
    ) -> Result<Evaluation, EvaluationError> {
        let loss = model.loss(&self.evaluation_batch(config.clips)?)?;
        let mut evaluation = Evaluation::new("flow-matching loss", loss);
        if generates {
            evaluation.samples = self.samples(model, config)?;
        }
        Ok(evaluation)
    }
}

impl ClipEvaluator {
    /// The first `most` held-out clips, each with its own noise; times are spread evenly from noise to video.
    fn evaluation_batch(&self, most: usize) -> Result<Vec<Microbatch>, DataError> {
        let count = self.held_out.len().min(most);
        let mut clips = Vec::with_capacity(count);
        for (number, held_out) in (0..).zip(self.held_out.iter().take(count)) {
            let (latents, caption) =
                (held_out.latents.clone(), self.sampler.tokens(&held_out.caption)?);
            clips.push(ReadyClip { latents, caption, number });
        }
        let noisy_clip = |clip: &ReadyClip| {
            let time = (clip.number as f32 + 0.5) / count as f32;
            at_time(&clip.latents, self.seed ^ EVALUATION_SEED, clip.number, time)
        };
        let groups = clips.chunks(CLIPS_AT_ONCE);
        Ok(groups.map(|clips| packed::microbatch(clips, noisy_clip)).collect())
    }

    /// Samples for held-out captions: each caption once before any repeats, all of one length, in the frame sizes of the held-out
    /// clips.
    fn samples(
        &self,
        model: &mut dyn Inference,
        config: &EvaluationConfig,
    ) -> Result<Vec<SampledClip>, EvaluationError> {
        let frames = self.sampler.config.shape.frames(config.sample_seconds);
        let mut seen = HashSet::new();
        let (first, repeated): (Vec<&HeldOutClip>, Vec<_>) =
            self.held_out.iter().partition(|clip| seen.insert(clip.caption.as_str()));
        let chosen: Vec<_> = first.into_iter().chain(repeated).take(config.samples).collect();
        let wanted = chosen.iter().map(|clip| {
            let grid = ClipGrid { frames, ..clip.latents.grid };
            (clip.caption.clone(), grid)
        });
        self.sampler.samples(model, &wanted.collect::<Vec<_>>(), config, self.seed ^ SAMPLE_SEED)
    }
}

/// The statistics that normalise stored latents, if the run names an autoencoder.
fn statistics(
    data: &DataConfig,
    shape: &LatentShape,
) -> Result<Option<LatentStatistics>, DataError> {
    let Some(path) = &data.vae else { return Ok(None) };
    let Some(channels) = shape.channels() else {
        let limit = "absent: the tokens of this model are no patches of an autoencoder's channels";
        let path = path.display();
        return Err(FieldError::new("data.vae", path, limit, "remove the field").into());
    };
    LatentStatistics::from_file(path, channels).map(Some)
}

type VideoSource = Box<dyn DataSource<CaptionedVideo>>;

pub(super) fn train_source(data: &DataConfig, seed: u64) -> Result<VideoSource, DataError> {
    let shards = train_shards(data, seed, WebDataset::open_videos)?;
    let drawn = || Box::new(MovingShapes::new(MovingConfig { seed, split: DataSplit::Train }));
    Ok(shards.unwrap_or_else(|| drawn()))
}

fn held_out_source(data: &DataConfig, seed: u64) -> Result<Option<VideoSource>, DataError> {
    let shards = held_out_shards(data, seed, WebDataset::open_videos)?;
    if shards.is_some() || data.has_shards() {
        return Ok(shards);
    }
    Ok(Some(Box::new(MovingShapes::new(MovingConfig { seed, split: DataSplit::HeldOut }))))
}

/// The first usable clips, until there are `count`.
fn held_out(
    source: &mut dyn DataSource<CaptionedVideo>,
    config: &ClipLoaderConfig,
    count: usize,
) -> Result<Vec<HeldOutClip>, DataError> {
    let mut found = Vec::new();
    for _ in 0..count.saturating_mul(VIDEOS_PER_CLIP) {
        if found.len() == count {
            break;
        }
        let CaptionedVideo { video, caption } = source.next_document()?;
        let statistics = config.statistics.as_ref();
        if let Ok(latents) = video.normalised(&config.shape, config.max_frames, statistics) {
            found.push(HeldOutClip { latents, caption });
        }
    }
    Ok(found)
}
