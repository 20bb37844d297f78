//! A sample of the batches of a run, from their metadata, before anything is decoded.

use std::collections::BTreeMap;

use dip_burn::ClipSize;
use dip_burn::train::{RunData, TrainError, clip_size};
use dip_core::{BatchMeta, ClipMeta, Images, MicrobatchMeta, ModelSpec};

/// Number of batches that are read.
const BATCHES: usize = 8;
/// Number of batches on which placements are compared.
const TRIAL_BATCHES: usize = 4;

/// The first batches of a run, and their mean.
pub(super) struct BatchSample {
    pub batches: Vec<BatchMeta>,
    /// The mean microbatch.
    pub mean: MicrobatchMeta,
    /// Documents in it.
    pub documents: usize,
    /// The size of its clips.
    pub clip: ClipSize,
    /// Tokens of a mean batch, without padding.
    pub tokens_per_batch: f64,
    /// Documents of a mean batch.
    pub documents_per_batch: f64,
}

impl BatchSample {
    /// Reads the metadata of the first batches, and then restores the position of the data.
    pub fn draw(model: &ModelSpec, data: &mut RunData) -> Result<Self, TrainError> {
        let start = data.loader.position();
        let (mut batches, mut documents, mut tokens) = (Vec::new(), 0, 0);
        for _ in 0..BATCHES {
            let batch = data.loader.next_batch(&mut |_| Vec::new())?;
            (documents, tokens) = (documents + batch.documents, tokens + batch.tokens);
            batches.push(batch.meta);
        }
        data.loader.restore(&start)?;
        let microbatches: Vec<_> = batches.iter().flat_map(|batch| &batch.microbatches).collect();
        let mean = mean_microbatch(&microbatches);
        let clip = mean.clips.first().cloned().unwrap_or_else(|| mean_clip(&[]));
        let of_batch = |sum: u64| sum as f64 / batches.len() as f64;
        Ok(Self {
            mean,
            documents: documents.div_ceil(microbatches.len().max(1) as u64) as usize,
            clip: clip_size(model, &clip),
            tokens_per_batch: of_batch(tokens),
            documents_per_batch: of_batch(documents),
            batches,
        })
    }

    /// All of the batches.
    pub fn batches(&self) -> &[BatchMeta] {
        &self.batches
    }

    /// Each batch reduced to the share of one of `replicas`.
    pub fn trials(&self, replicas: usize) -> Vec<BatchMeta> {
        let share = |batch: &BatchMeta| BatchMeta {
            iteration: batch.iteration,
            microbatches: batch.microbatches.iter().step_by(replicas).cloned().collect(),
        };
        self.batches[..TRIAL_BATCHES].iter().map(share).collect()
    }
}

/// A microbatch with the mean numbers of images, sounds, text tokens, clips and other instances, rounded up.
fn mean_microbatch(microbatches: &[&MicrobatchMeta]) -> MicrobatchMeta {
    let mean = |sum: u64| sum.div_ceil(microbatches.len().max(1) as u64);
    let images = microbatches.iter().map(|m| u64::from(m.images.len())).sum();
    let images = u32::try_from(mean(images)).unwrap_or(u32::MAX);
    let size = Images::mean_size(microbatches.iter().map(|m| &m.images));
    let text_tokens = microbatches.iter().map(|m| m.text_tokens).sum();
    let clips: Vec<&ClipMeta> = microbatches.iter().flat_map(|m| &m.clips).collect();
    MicrobatchMeta {
        images: Images::equal(images, size),
        text_tokens: mean(text_tokens),
        clips: vec![mean_clip(&clips); mean(clips.len() as u64) as usize],
        audio_seconds: mean_sounds(microbatches),
        other: mean_others(microbatches),
        ..MicrobatchMeta::default()
    }
}

/// The mean number of sounds, each of mean length.
fn mean_sounds(microbatches: &[&MicrobatchMeta]) -> Vec<f64> {
    let all: Vec<f64> = microbatches.iter().flat_map(|m| &m.audio_seconds).copied().collect();
    let seconds = all.iter().sum::<f64>() / all.len().max(1) as f64;
    vec![seconds; all.len().div_ceil(microbatches.len().max(1))]
}

/// The mean number of instances of every other modality, each of mean size.
fn mean_others(microbatches: &[&MicrobatchMeta]) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (name, sizes) in microbatches.iter().flat_map(|m| &m.other) {
        all.entry(name.clone()).or_default().extend(sizes);
    }
    let mean = |sizes: Vec<u64>| {
        let size = sizes.iter().sum::<u64>().div_ceil(sizes.len().max(1) as u64);
        vec![size; sizes.len().div_ceil(microbatches.len())]
    };
    all.into_iter().map(|(name, sizes)| (name, mean(sizes))).collect()
}

/// A clip of mean length, size and caption.
fn mean_clip(clips: &[&ClipMeta]) -> ClipMeta {
    let count = clips.len().max(1) as u64;
    let sizes: Vec<u64> = clips.iter().filter_map(|c| c.tokens_per_frame).map(u64::from).collect();
    let size = sizes.iter().sum::<u64>().checked_div(sizes.len() as u64);
    ClipMeta {
        seconds: clips.iter().map(|c| c.seconds).sum::<f64>() / count as f64,
        caption_tokens: clips.iter().map(|c| c.caption_tokens).sum::<u64>().div_ceil(count),
        tokens_per_frame: size.and_then(|size| u32::try_from(size).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_microbatch_has_instances_of_every_modality() {
        let one = |images: u32, clouds: &[u64]| MicrobatchMeta {
            images: images.into(),
            text_tokens: 10,
            audio_seconds: vec![1.0; images as usize],
            other: [("clouds".to_owned(), clouds.to_vec())].into(),
            ..MicrobatchMeta::default()
        };
        let (a, b) = (one(3, &[4, 8]), one(4, &[9]));
        let mean = mean_microbatch(&[&a, &b]);
        assert_eq!((mean.images.len(), mean.text_tokens, mean.clips.len()), (4, 10, 0));
        assert_eq!(mean.other["clouds"], [7, 7]);
        assert_eq!(mean.audio_seconds, [1.0; 4]);
    }
}
