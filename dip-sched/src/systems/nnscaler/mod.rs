//! nnScaler: stages balanced and fitted to memory by dynamic programming, for a representative microbatch.

mod stages;

use std::collections::BTreeMap;
use std::sync::Arc;

use dip_core::{
    Chunk, ClipMeta, Images, MicrobatchMeta, ModulePartition, Partition, RankId, SegmentId,
};

use super::deployment::{Deployment, MemoryPolicy, SystemError};
use super::trial::fastest_of;
use super::{Recompute, System, SystemInputs};
use crate::schedules::OneFOneB;
use stages::{LayerStage, Layers};

/// 1F1B over contiguous stages whose longest is as short as possible. Each stage takes the fastest recomputation that fits beside the
/// microbatches in flight. Times are of the mean microbatch of the history. Memory is of a heavier microbatch: the quantile that does
/// best over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct NnScaler;

/// The quantiles of the history that are tried for the memory.
const QUANTILES: [f64; 4] = [0.5, 0.75, 0.9, 1.0];

impl System for NnScaler {
    fn name(&self) -> &str {
        "nnscaler"
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let mean = mean(inputs);
        let mut deployments = Vec::new();
        for quantile in QUANTILES {
            let layers = Layers::new(inputs, &mean, &quantile_of(inputs, quantile))?;
            if let Some(stages) = layers.stages(inputs.planning.ranks()) {
                deployments.push(deployment(inputs, &layers, &stages));
            }
        }
        fastest_of(self.name(), inputs, deployments)
    }
}

fn deployment(inputs: &SystemInputs<'_>, layers: &Layers, stages: &[LayerStage]) -> Deployment {
    let whole = || ModulePartition { sub_microbatch: u32::MAX, chunks: Vec::new() };
    let mut modules: Vec<_> = inputs.model().modules.iter().map(|_| whole()).collect();
    let mut strategies = BTreeMap::new();
    for (rank, stage) in stages.iter().enumerate() {
        for (module, range) in layers.parts(stage.layers.clone()) {
            let strategy = stage.recompute.strategy(0, range.len() as u32);
            strategies.insert((module, range.start), strategy);
            let (rank, segment) = (RankId::from(rank), SegmentId(0));
            modules[module.index()].chunks.push(Chunk { rank, segment, layers: range });
        }
    }
    let partition = Partition { ranks: inputs.planning.ranks(), modules };
    let count = inputs.model().modules.len();
    let mut memory = vec![MemoryPolicy::Fixed(strategies)];
    memory.push(Recompute::memory(&partition, &vec![Recompute::Full(8); count]));
    let of = |s: &LayerStage| format!("{} layers, {}", s.layers.len(), s.recompute);
    Deployment {
        choice: stages.iter().map(of).collect::<Vec<_>>().join("; "),
        planning: inputs.planning.clone().with_partition(partition).with_weight_split(false),
        memory,
        schedule: Arc::new(OneFOneB),
        evens_out: false,
    }
}

/// The mean microbatch of the history: images, tokens, sounds and seconds of video.
pub(super) fn mean(inputs: &SystemInputs<'_>) -> MicrobatchMeta {
    let count = inputs.microbatches().count().max(1) as f64;
    let per = |total: f64| (total / count).round();
    let sum = |of: &dyn Fn(&MicrobatchMeta) -> f64| -> f64 { inputs.microbatches().map(of).sum() };
    let clips: Vec<&ClipMeta> = inputs.microbatches().flat_map(|m| &m.clips).collect();
    let sounds: Vec<f64> =
        inputs.microbatches().flat_map(|m| m.audio_seconds.iter().copied()).collect();
    let mean_of = |total: f64, n: usize| total / n.max(1) as f64;
    let clip = ClipMeta {
        seconds: mean_of(clips.iter().map(|c| c.seconds).sum(), clips.len()),
        caption_tokens: mean_of(clips.iter().map(|c| c.caption_tokens as f64).sum(), clips.len())
            .round() as u64,
        ..Default::default()
    };
    let sound = mean_of(sounds.iter().sum(), sounds.len());
    let mut other: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (module, sizes) in inputs.microbatches().flat_map(|m| &m.other) {
        other.entry(module.clone()).or_default().extend(sizes);
    }
    for sizes in other.values_mut() {
        let mean = mean_of(sizes.iter().map(|&size| size as f64).sum(), sizes.len()).round();
        *sizes = vec![mean as u64; per(sizes.len() as f64) as usize];
    }
    let size = Images::mean_size(inputs.microbatches().map(|m| &m.images));
    MicrobatchMeta {
        images: Images::equal(per(sum(&|m| f64::from(m.images.len()))) as u32, size),
        text_tokens: per(sum(&|m| m.text_tokens as f64)) as u64,
        audio_seconds: vec![sound; per(sounds.len() as f64) as usize],
        clips: vec![clip; per(clips.len() as f64) as usize],
        documents: Vec::new(),
        other,
    }
}

/// A quantile of the microbatches of the history, ordered by images, sound and video.
fn quantile_of(inputs: &SystemInputs<'_>, quantile: f64) -> MicrobatchMeta {
    let mut all: Vec<&MicrobatchMeta> = inputs.microbatches().collect();
    let images = |images: &Images| match images {
        Images::Count(count) => f64::from(*count),
        Images::Sizes(sizes) => sizes.iter().map(|size| f64::from(size.patches)).sum(),
    };
    let weight = |m: &MicrobatchMeta| {
        images(&m.images)
            + m.audio_seconds.iter().sum::<f64>()
            + m.clips.iter().map(|c| c.seconds).sum::<f64>()
    };
    all.sort_by(|a, b| weight(a).total_cmp(&weight(b)));
    let at = ((all.len().saturating_sub(1)) as f64 * quantile).round() as usize;
    all.get(at).map_or_else(MicrobatchMeta::default, |m| (*m).clone())
}
