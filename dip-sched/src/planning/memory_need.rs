//! The least memory with which every batch of a run can be trained.

use dip_core::{
    BatchMeta, Bytes, ClipMeta, GraphInput, MicrobatchMeta, ModelSpec, Seconds, TaskGraph,
    build_graph,
};

use super::PlanInputs;
use crate::partition::split_batch;

/// Numbers of images that are looked at one by one.
const MOST_COUNTS: u32 = 256;

/// Bytes that each rank needs so that the heaviest microbatch fits by itself, in the strategy that keeps least: weights,
/// gradients, optimiser state, and the activations of all its stages together. With less a run may meet a batch that no
/// schedule can train. `video` is the longest video of a microbatch.
///
/// # Errors
/// [`dip_core::BuildError`] where a stage has no cost.
pub fn memory_need(
    inputs: &PlanInputs,
    video: Seconds,
) -> Result<Vec<Bytes>, dip_core::BuildError> {
    let mut need = vec![Bytes::ZERO; inputs.partition.ranks as usize];
    let frames_per_second = inputs.model.video().map(|video| video.latent_frames_per_second);
    let heaviest = match frames_per_second {
        Some(per_second) => vec![full_of_clips(&inputs.model, video.0 * per_second, per_second)],
        None => heaviest(&inputs.model),
    };
    for microbatch in heaviest {
        let batch = BatchMeta { iteration: 0, microbatches: vec![microbatch] };
        let split = split_batch(&inputs.model, &inputs.partition, &batch);
        let graph = build_graph(&GraphInput {
            model: &inputs.model,
            cluster: &inputs.cluster,
            partition: &inputs.partition,
            batch: &batch,
            split: &split,
            cost: &*inputs.cost,
            weight_split: false,
        })?;
        for (need, bytes) in need.iter_mut().zip(all_at_once(&graph)) {
            *need = (*need).max(bytes);
        }
    }
    Ok(need)
}

/// Full sequences of one document, with no image, one, and so on: more images are more work for the encoder and fewer tokens
/// with a loss.
fn heaviest(model: &ModelSpec) -> Vec<MicrobatchMeta> {
    let length = u64::from(model.sequence_tokens);
    let filled = |images| {
        let mut meta = MicrobatchMeta { images, ..MicrobatchMeta::default() };
        meta.text_tokens = length.checked_sub(model.sequence_length(&meta))?;
        Some(meta)
    };
    // Images that fill the sequence by themselves are as many as a microbatch can have.
    let beyond = Some(model.max_images).filter(|&most| most > MOST_COUNTS);
    let counts = (0..=model.max_images.min(MOST_COUNTS)).chain(beyond);
    counts.filter_map(filled).collect()
}

/// As many clips as there may be, with the longest captions and as many frames: one clip has all but one of each other.
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

/// What every rank holds when all forwards of a graph have run and no backward.
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
