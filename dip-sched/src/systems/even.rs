//! Makes the microbatches of a batch equal.

use dip_core::{BatchMeta, ClipMeta, ImageSize, Images, MicrobatchMeta, ModelSpec};

/// The same images, sounds, clips and documents in as many microbatches of about equal work, each within the limits of the model.
pub(super) fn even_out(model: &ModelSpec, batch: &BatchMeta) -> BatchMeta {
    let count = batch.microbatches.len();
    let all = |of: fn(&MicrobatchMeta) -> u64| batch.microbatches.iter().map(of).sum::<u64>();
    let own = |m: &MicrobatchMeta| m.has_sequence();
    // Microbatches without a sequence, such as groups of clips, stay apart from sequences.
    if count == 0 || batch.microbatches.iter().any(|m| own(m) != own(&batch.microbatches[0])) {
        return batch.clone();
    }
    let mut even = vec![MicrobatchMeta::default(); count];
    let images = all(|m| m.images.len().into());
    let sizes: Vec<ImageSize> = batch.microbatches.iter().flat_map(sizes_of).collect();
    if sizes.len() as u64 == images {
        let dealt = deal(&sizes, count, |size| f64::from(size.patches));
        for (meta, sizes) in even.iter_mut().zip(dealt).filter(|(_, sizes)| !sizes.is_empty()) {
            meta.images = Images::Sizes(sizes);
        }
    } else {
        for (i, meta) in even.iter_mut().enumerate() {
            meta.images = Images::Count(share(images, count, i) as u32);
        }
    }
    let sounds: Vec<f64> =
        batch.microbatches.iter().flat_map(|m| m.audio_seconds.iter().copied()).collect();
    let clips: Vec<ClipMeta> = batch.microbatches.iter().flat_map(|m| m.clips.clone()).collect();
    let sounds = deal(&sounds, count, |&seconds| seconds);
    let clips = deal(&clips, count, |clip| clip.seconds);
    let text = all(|m| m.text_tokens);
    // Sequences stay equally long: a microbatch with more image tokens gets less text.
    let tokens: u64 = batch.microbatches.iter().map(|m| model.sequence_length(m)).sum();
    for (i, ((meta, sounds), clips)) in even.iter_mut().zip(sounds).zip(clips).enumerate() {
        (meta.audio_seconds, meta.clips) = (sounds, clips);
        if text > 0 {
            let without_text = model.sequence_length(meta);
            meta.text_tokens = share(tokens, count, i).saturating_sub(without_text);
        }
    }
    let documents: Vec<u64> =
        batch.microbatches.iter().flat_map(|m| m.documents.iter().copied()).collect();
    let documents = deal(&documents, count, |&length| length as f64);
    even.iter_mut().zip(documents).for_each(|(meta, documents)| meta.documents = documents);
    let dealt: u64 = even.iter().map(|m| m.text_tokens).sum();
    let fits = |m: &MicrobatchMeta| {
        m.images.len() <= model.max_images
            && m.clips.len() <= model.max_clips as usize
            && model.sequence_length(m) <= model.sequence_tokens.into()
    };
    let were = batch.microbatches.iter().all(&fits);
    if dealt != text || (were && !even.iter().all(fits)) {
        return batch.clone();
    }
    BatchMeta { iteration: batch.iteration, microbatches: even }
}

fn sizes_of(microbatch: &MicrobatchMeta) -> Vec<ImageSize> {
    match &microbatch.images {
        Images::Sizes(sizes) => sizes.clone(),
        Images::Count(_) => Vec::new(),
    }
}

/// Part `i` of `total` in `count` whole parts.
fn share(total: u64, count: usize, i: usize) -> u64 {
    let (count, i) = (count as u64, i as u64);
    total / count + u64::from(i < total % count)
}

/// Deals items to `count` hands of about equal weight, the heaviest first, each to the lightest hand.
fn deal<T: Clone>(items: &[T], count: usize, weight: impl Fn(&T) -> f64) -> Vec<Vec<T>> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    let mut hands: Vec<(f64, Vec<T>)> = vec![(0.0, Vec::new()); count];
    for item in sorted {
        let lightest =
            hands.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.len().cmp(&b.1.len())));
        if let Some((total, hand)) = lightest {
            *total += weight(item);
            hand.push(item.clone());
        }
    }
    hands.into_iter().map(|(_, hand)| hand).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;

    #[test]
    fn microbatches_become_equal_and_nothing_is_lost() {
        let model = presets::model("vlm-s").unwrap();
        let meta = |images: u32| MicrobatchMeta {
            images: images.into(),
            text_tokens: 8192 - 169 * u64::from(images),
            documents: vec![4000, 4192],
            ..MicrobatchMeta::default()
        };
        let batch = BatchMeta { iteration: 3, microbatches: [48, 0, 10, 4].map(meta).to_vec() };
        let even = even_out(&model, &batch);
        let images: Vec<u32> = even.microbatches.iter().map(|m| m.images.len()).collect();
        assert_eq!((images, even.iteration), (vec![16, 16, 15, 15], 3));
        let lengths = |b: &BatchMeta| -> Vec<u64> {
            b.microbatches.iter().map(|m| model.sequence_length(m)).collect()
        };
        assert_eq!(lengths(&even), lengths(&batch));
        let documents: u64 = even.microbatches.iter().flat_map(|m| &m.documents).sum();
        assert_eq!(documents, 4 * 8192);
        assert_eq!(even_out(&model, &even), even);
    }

    #[test]
    fn clips_are_dealt_by_their_length() {
        let model = presets::model("t2v-s").unwrap();
        let clip = |seconds: f64| ClipMeta { seconds, caption_tokens: 9, tokens_per_frame: None };
        let meta = |seconds: &[f64]| MicrobatchMeta {
            clips: seconds.iter().map(|&s| clip(s)).collect(),
            ..MicrobatchMeta::default()
        };
        let batch = BatchMeta {
            iteration: 0,
            microbatches: vec![meta(&[8.0, 4.0, 4.0]), meta(&[2.0, 2.0])],
        };
        let even = even_out(&model, &batch);
        let seconds = |m: &MicrobatchMeta| m.clips.iter().map(|c| c.seconds).sum::<f64>();
        assert_eq!(even.microbatches.iter().map(seconds).collect::<Vec<_>>(), [10.0, 10.0]);
    }
}
