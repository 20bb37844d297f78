//! Batch metadata like that of the paper's data sets, so that `dip sample`, evaluations and tests need no data.
//!
//! Sequences are packed from documents: image-text pairs, interleaved documents, questions and speech. A stretch of a quarter
//! of a sequence takes documents from one source, like a shard of a data set. Sequences are always full. Clips are packed
//! in order; clips that do not fit start the next microbatch. The distributions are in `sources.rs`.

mod sources;

use dip_core::{
    AudioSpec, BatchMeta, ClipMeta, DitSpec, ImageSize, Images, MicrobatchMeta, Modality,
    ModelSpec, VitSpec,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use self::sources::{DocumentSizes, Source, clip, image_size};

/// Seconds of video per clip that a microbatch may have: 16 s for 8 clips, as in MovieGen.
const SECONDS_PER_CLIP: f64 = 2.0;
/// With this many tokens per image, texts are as long as in the data sets. Models with fewer tokens get shorter texts.
const IMAGE_TOKENS: f64 = 169.0;
/// A microbatch is full once this many clips wait for the next one.
const MAX_WAITING: usize = 2;
/// Number of stretches in a sequence.
const STRETCHES: u64 = 4;

/// Samples `iterations` batches for `model`. Each has `microbatches` microbatches, by default the number of the model.
///
/// Equal seeds give equal batches. A batch does not depend on the number of iterations.
pub fn sample(
    model: &ModelSpec,
    iterations: u64,
    seed: u64,
    microbatches: Option<u32>,
) -> Vec<BatchMeta> {
    let count = microbatches.unwrap_or(model.microbatches).max(1);
    let sampler = BatchSampler::new(model, None);
    (0..iterations).map(|i| sampler.batch(i, seed, count)).collect()
}

/// Samples batches as [`sample`] does, but the numbers of images, sounds and seconds of video rise from the minimum to the
/// maximum and fall again, as in the paper's experiment with dynamic workloads.
pub fn sweep(
    model: &ModelSpec,
    iterations: u64,
    seed: u64,
    microbatches: Option<u32>,
) -> Vec<BatchMeta> {
    let count = microbatches.unwrap_or(model.microbatches).max(1);
    let last = iterations.saturating_sub(1).max(1) as f64;
    let share = |i: u64| 1.0 - (2.0 * i as f64 / last - 1.0).abs();
    (0..iterations)
        .map(|i| BatchSampler::new(model, Some(share(i))).batch(i, seed, count))
        .collect()
}

/// Draws microbatches for one model.
struct BatchSampler<'a> {
    model: &'a ModelSpec,
    sources: Vec<Source>,
    image_tokens: u64,
    /// The encoder, if its images have different sizes.
    sized: Option<&'a VitSpec>,
    has_video: bool,
    /// The share of documents with images or sounds, and of the maximum seconds of video. `None` for the mixture of the data
    /// sets.
    share: Option<f64>,
}

impl<'a> BatchSampler<'a> {
    fn new(model: &'a ModelSpec, share: Option<f64>) -> Self {
        let vision = has::<VitSpec>(model) && model.max_images > 0;
        let audio = has::<AudioSpec>(model);
        let mut vits = model.modules.iter().filter_map(|module| module.kind.get::<VitSpec>());
        let image_tokens = model.modules.iter().map(|m| u64::from(m.tokens_per_image())).sum();
        Self {
            model,
            sources: Source::of(vision, audio),
            image_tokens,
            sized: vits.find(|vit| vit.varies()),
            has_video: has::<DitSpec>(model) && model.max_clips > 0,
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
            // In models with sequences, half of the microbatches have clips.
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

    /// Draws clips up to the limits. Clips that do not fit wait for the next microbatch.
    fn clips(&self, waiting: &mut Vec<ClipMeta>, rng: &mut ChaCha8Rng) -> Vec<ClipMeta> {
        let max_clips = self.model.max_clips as usize;
        // The minimum is a quarter of the maximum.
        let limit = SECONDS_PER_CLIP * max_clips as f64 * (0.25 + 0.75 * self.share.unwrap_or(1.0));
        let room = u64::from(self.model.sequence_tokens) / max_clips as u64;
        let mut early = std::mem::take(waiting).into_iter();
        let mut clips: Vec<ClipMeta> = Vec::new();
        let mut seconds = 0.0;
        while clips.len() < max_clips && waiting.len() < MAX_WAITING {
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
                let document = source.document(rng, scale);
                let sizes = self.sized.map(|vit| image_sizes(vit, document.images, rng));
                self.add(meta, &document, sizes, length - used);
            }
        }
    }

    /// True if one more image of `size` is within the patches of a microbatch.
    fn fits(&self, images: &Images, size: ImageSize) -> bool {
        let patches: u64 = images.sizes().iter().map(|size| u64::from(size.patches)).sum();
        patches + u64::from(size.patches) <= self.model.patch_limit()
    }

    /// Adds the part of a document that fits into `room` tokens: images, then sound, then text.
    /// Images have these sizes, or the model's own.
    fn add(
        &self,
        meta: &mut MicrobatchMeta,
        document: &DocumentSizes,
        sizes: Option<Vec<ImageSize>>,
        room: u64,
    ) {
        let used = self.model.sequence_length(meta);
        let left =
            |meta: &MicrobatchMeta| (used + room).saturating_sub(self.model.sequence_length(meta));
        for i in 0..document.images as usize {
            let size = sizes.as_ref().map(|sizes| sizes[i]);
            let tokens = size.map_or(self.image_tokens, |size| u64::from(size.tokens));
            let images = meta.images.len();
            if images >= self.model.max_images || left(meta) < tokens {
                break;
            }
            meta.images = match size {
                None => (images + 1).into(),
                Some(size) if self.fits(&meta.images, size) => {
                    [meta.images.sizes(), &[size]].concat().into()
                }
                Some(_) => break,
            };
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

/// Sizes of pictures that keep their proportions, or are cut into tiles.
fn image_sizes(vit: &VitSpec, count: u32, rng: &mut ChaCha8Rng) -> Vec<ImageSize> {
    (0..count).map(|_| image_size(vit, rng)).collect()
}

/// True if a module of the model is of modality `M`.
fn has<M: Modality>(model: &ModelSpec) -> bool {
    model.modules.iter().any(|module| module.kind.get::<M>().is_some())
}

#[cfg(test)]
mod tests;
