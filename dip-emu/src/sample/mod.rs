//! Batch metadata like that of the paper's data sets: `dip sample`, evaluation and tests need no data.
//!
//! Sequences are packed from documents: image-text pairs, interleaved documents, questions and speech. Documents come in
//! stretches of one source, a quarter of a sequence long, as from the shards of a data set; a sequence is always full.
//! Clips are packed in the order they come; those that do not fit start the next microbatch. `sources.rs` has the
//! distributions.

mod sources;

use dip_core::{BatchMeta, ClipMeta, MicrobatchMeta, ModelSpec, ModuleKind};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use sources::{Document, Source, clip};

/// Seconds of video in a microbatch for each clip it may have: 16 s for 8 clips, as in MovieGen.
const SECONDS_A_CLIP: f64 = 2.0;
/// Tokens of an image for which text lengths are those of the data sets. Smaller models get shorter texts.
const IMAGE_TOKENS: f64 = 169.0;
/// Clips that may wait for the next microbatch before this one is closed.
const WAITING: usize = 2;
/// Stretches of one source in a sequence.
const STRETCHES: u64 = 4;

/// Batches of `iterations` iterations for `model`, with `microbatches` each, or as many as the model says.
///
/// Equal seeds give equal batches, and an iteration does not depend on how many are asked for.
pub fn sample(
    model: &ModelSpec,
    iterations: u64,
    seed: u64,
    microbatches: Option<u32>,
) -> Vec<BatchMeta> {
    let count = microbatches.unwrap_or(model.microbatches).max(1);
    (0..iterations).map(|i| Sampler::new(model, None).batch(i, seed, count)).collect()
}

/// Like [`sample`], but images, sounds and seconds of video rise from the least to the most and fall back over the
/// iterations, as in the paper's experiment with dynamic workloads: a plan for one batch cannot suit all.
pub fn sweep(
    model: &ModelSpec,
    iterations: u64,
    seed: u64,
    microbatches: Option<u32>,
) -> Vec<BatchMeta> {
    let count = microbatches.unwrap_or(model.microbatches).max(1);
    let last = iterations.saturating_sub(1).max(1) as f64;
    let share = |i: u64| 1.0 - (2.0 * i as f64 / last - 1.0).abs();
    (0..iterations).map(|i| Sampler::new(model, Some(share(i))).batch(i, seed, count)).collect()
}

/// What a model takes, in tokens of its packed sequence.
struct Sampler<'a> {
    model: &'a ModelSpec,
    sources: Vec<Source>,
    image_tokens: u64,
    has_video: bool,
    /// Share of documents with images or sounds, and of the most seconds of video; `None` is the mixture of the data sets.
    share: Option<f64>,
}

impl<'a> Sampler<'a> {
    fn new(model: &'a ModelSpec, share: Option<f64>) -> Self {
        let any = |wanted: fn(&ModuleKind) -> bool| model.modules.iter().any(|m| wanted(&m.kind));
        let vision = any(|k| matches!(k, ModuleKind::Vit { .. })) && model.max_images > 0;
        let audio = any(|k| matches!(k, ModuleKind::Audio { .. }));
        let image_tokens = model.modules.iter().map(|m| u64::from(m.tokens_per_image())).sum();
        Self {
            model,
            sources: Source::of(vision, audio),
            image_tokens,
            has_video: any(|k| matches!(k, ModuleKind::Dit { .. })) && model.max_clips > 0,
            share,
        }
    }

    fn batch(&self, iteration: u64, seed: u64, count: u32) -> BatchMeta {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(iteration);
        BatchMeta { iteration, microbatches: self.microbatches(count, &mut rng) }
    }

    fn microbatches(&self, count: u32, rng: &mut ChaCha8Rng) -> Vec<MicrobatchMeta> {
        let sequences = !self.sources.is_empty() || !self.has_video;
        let mut waiting = Vec::new();
        let microbatch = |_| {
            let mut meta = MicrobatchMeta::default();
            // With sequences beside them, clips come in every other microbatch: the rest is understanding only.
            if self.has_video && (!sequences || rng.random_bool(0.5)) {
                meta.clips = self.clips(&mut waiting, rng);
            }
            if sequences {
                self.fill(&mut meta, rng);
            }
            meta
        };
        (0..count).map(microbatch).collect()
    }

    /// Clips up to the limits. Those that do not fit wait for the next microbatch.
    fn clips(&self, waiting: &mut Vec<ClipMeta>, rng: &mut ChaCha8Rng) -> Vec<ClipMeta> {
        let most = self.model.max_clips as usize;
        // The least video is a quarter of the most.
        let limit = SECONDS_A_CLIP * most as f64 * (0.25 + 0.75 * self.share.unwrap_or(1.0));
        let room = u64::from(self.model.sequence_tokens) / most as u64;
        let mut early = std::mem::take(waiting).into_iter();
        let mut clips: Vec<ClipMeta> = Vec::new();
        let mut seconds = 0.0;
        while clips.len() < most && waiting.len() < WAITING {
            let mut next = early.next().unwrap_or_else(|| clip(rng, limit));
            next.caption_tokens = next.caption_tokens.clamp(1, room.max(1));
            if seconds + next.seconds > limit {
                waiting.push(next);
            } else {
                seconds += next.seconds;
                clips.push(next);
            }
        }
        waiting.extend(early);
        clips
    }

    /// Packs documents until the sequence is full.
    fn fill(&self, meta: &mut MicrobatchMeta, rng: &mut ChaCha8Rng) {
        let length = u64::from(self.model.sequence_tokens);
        let scale = match self.image_tokens {
            0 => 1.0,
            tokens => (tokens as f64 / IMAGE_TOKENS).min(1.0),
        };
        let stretch = (length / STRETCHES).max(1);
        loop {
            let source = match self.share {
                None => Source::draw(&self.sources, rng),
                Some(share) if rng.random_bool(share) => Source::densest(&self.sources, rng),
                Some(_) => Source::Text,
            };
            let end = self.model.sequence_length(meta) + stretch;
            loop {
                let used = self.model.sequence_length(meta);
                if used >= length {
                    return;
                }
                if used >= end {
                    break;
                }
                self.add(meta, &source.document(rng, scale), length - used);
            }
        }
    }

    /// Adds what fits of a document: its images and its sound first, its text up to the end.
    fn add(&self, meta: &mut MicrobatchMeta, document: &Document, room: u64) {
        let used = self.model.sequence_length(meta);
        let left =
            |meta: &MicrobatchMeta| (used + room).saturating_sub(self.model.sequence_length(meta));
        for _ in 0..document.images {
            if meta.images >= self.model.max_images || left(meta) < self.image_tokens {
                break;
            }
            meta.images += 1;
        }
        if let Some(seconds) = document.sound_seconds {
            meta.audio_seconds.push(seconds);
            if self.model.sequence_length(meta) > used + room {
                meta.audio_seconds.pop();
            }
        }
        meta.text_tokens += document.text_tokens.min(left(meta));
    }
}

#[cfg(test)]
mod tests;
