//! The minimum memory with which every batch of a run can be trained.

use dip_core::{
    BatchMeta, BuildError, Bytes, ClipMeta, ImageSize, Images, MicrobatchMeta, ModelSpec, Seconds,
    TaskGraph, VitSpec,
};

use super::Planning;

/// Every number of images up to this one is tried.
const MAX_IMAGE_COUNTS: u32 = 256;

impl Planning {
    /// The bytes that each rank needs for the heaviest microbatch alone under the smallest strategies: weights, gradients, optimiser
    /// state, and the activations of all its stages together. With less memory, some batch may have no plan. `longest_video` is the
    /// longest video of a microbatch.
    ///
    /// # Errors
    /// [`BuildError`] if a stage has no cost.
    pub fn memory_need(&self, longest_video: Seconds) -> Result<Vec<Bytes>, BuildError> {
        let whole_backward = self.clone().with_weight_split(false);
        let mut need = vec![Bytes::ZERO; self.ranks() as usize];
        for microbatch in heaviest(self.model(), longest_video) {
            let batch = BatchMeta { iteration: 0, microbatches: vec![microbatch] };
            let graph = whole_backward.graph(&batch)?;
            for (need, bytes) in need.iter_mut().zip(all_at_once(&graph)) {
                *need = (*need).max(bytes);
            }
        }
        Ok(need)
    }
}

/// Candidates for the heaviest microbatch.
fn heaviest(model: &ModelSpec, longest_video: Seconds) -> Vec<MicrobatchMeta> {
    let frames_per_second = model.video().map(|video| video.latent_frames_per_second);
    match frames_per_second {
        Some(per_second) => vec![full_of_clips(model, longest_video.0 * per_second, per_second)],
        None => full_sequences(model),
    }
}

/// Full sequences of one document: without images, with one image, and so on. More images mean more work for the encoder and fewer
/// tokens with a loss. Images are of the model's own size, and of the largest size, which have most attention pairs.
fn full_sequences(model: &ModelSpec) -> Vec<MicrobatchMeta> {
    let length = u64::from(model.sequence_tokens);
    let vit = model.modules.iter().find_map(|module| module.kind.get::<VitSpec>());
    let largest = vit.filter(|vit| vit.varies()).map(VitSpec::largest_size);
    let filled = |images: Images| {
        let mut meta = MicrobatchMeta { images, ..MicrobatchMeta::default() };
        meta.text_tokens = length.checked_sub(model.sequence_length(&meta))?;
        Some(meta)
    };
    let of_size = |size: Option<ImageSize>| {
        let patches = size.or(vit.map(VitSpec::image_size)).map_or(1, |size| size.patches);
        let fit = model.patch_limit() / u64::from(patches.max(1));
        let most = u32::try_from(fit).unwrap_or(u32::MAX).min(model.max_images);
        // Of the larger numbers, only the largest is tried.
        let last = Some(most).filter(|&images| images > MAX_IMAGE_COUNTS);
        let counts = (0..=most.min(MAX_IMAGE_COUNTS)).chain(last);
        counts.map(move |count| Images::equal(count, size)).collect::<Vec<_>>()
    };
    let own = of_size(None);
    let largest = largest.map(|size| of_size(Some(size))).unwrap_or_default();
    own.into_iter().chain(largest).filter_map(filled).collect()
}

/// The maximum number of clips, with the longest captions and the most frames. One clip is as long as possible; each of the others
/// has one frame.
fn full_of_clips(model: &ModelSpec, frames: f64, frames_per_second: f64) -> MicrobatchMeta {
    let clips = model.max_clips.max(1);
    let caption_tokens = u64::from(model.sequence_tokens / clips);
    let clip = |frames: f64| ClipMeta {
        seconds: frames / frames_per_second,
        caption_tokens,
        tokens_per_frame: None,
    };
    let others = f64::from(clips - 1);
    let mut all = vec![clip(1.0); clips as usize];
    all[0] = clip((frames - others).max(1.0));
    MicrobatchMeta { clips: all, ..MicrobatchMeta::default() }
}

/// The bytes that every rank holds when all forwards of a graph and none of its backwards have run.
fn all_at_once(graph: &TaskGraph) -> Vec<Bytes> {
    let mut bytes = graph.static_bytes.clone();
    for pair in graph.pairs() {
        let forward = graph.task(pair.forward);
        let candidates = forward.candidates.iter().map(|c| c.activation_bytes);
        let least = candidates.min().unwrap_or(forward.activation_bytes);
        bytes[forward.rank.index()] += least;
    }
    bytes
}
