//! The modality-aware partition: the chunks of every module along its route, with layers spread so that ranks are balanced.
//!
//! ```text
//! equal chunks -> spread: remaining layers go to the ranks with the lowest load -> even out: single layers leave the busiest rank
//! ```
//!
//! Chunks with equally many layers are not equal in load: the first has the embedding of the module, the last its head, loss or
//! adapter. The rank of a heavy end gets fewer layers, of that module or of others.

use dip_core::{ModuleId, Partition};

use super::draft::{ModuleDraft, Ranks};
use super::layer_times::{LayerTimes, layer_times};
use super::load::RankLoads;
use super::split::first_slice;
use super::{PartitionError, Partitioner};

/// The work of one module may differ from the representative microbatch by these factors.
const MIXES: [f64; 2] = [0.5, 2.0];
/// Gains below this share of a layer count as rounding errors.
const ROUNDING: f64 = 1e-9;

/// Places all modules with these `B_i` and `K_i`.
pub(super) fn place(
    partitioner: &Partitioner<'_>,
    sizes: &[u32],
    segments: &[u32],
) -> Result<Partition, PartitionError> {
    let times = module_times(partitioner, sizes)?;
    let ranks = partitioner.ranks as usize;
    let draft = |(i, (&times, &segments)): (usize, (&LayerTimes, &u32))| {
        let route = partitioner.routes.get(&ModuleId::from(i)).copied().unwrap_or_default();
        ModuleDraft::new(times, segments, Ranks { count: ranks, route })
    };
    let mut drafts: Vec<ModuleDraft> = times.iter().zip(segments).enumerate().map(draft).collect();
    let mut load = RankLoads::new(ranks, |rank| seconds_on(&drafts, rank));
    // Heavy layers first; light layers then even out the rest.
    let mut order: Vec<&mut ModuleDraft> = drafts.iter_mut().collect();
    order.sort_by(|a, b| b.times.layer_s.total_cmp(&a.times.layer_s));
    for draft in order {
        draft.spread(&mut load);
    }
    even_out(&mut drafts, &mut load);
    let modules = drafts.iter().zip(sizes).map(|(d, &size)| d.finish(size)).collect();
    Ok(Partition { ranks: partitioner.ranks, modules })
}

/// The layer times of every module for all its sub-microbatches of the representative microbatch.
fn module_times(
    partitioner: &Partitioner<'_>,
    sizes: &[u32],
) -> Result<Vec<LayerTimes>, PartitionError> {
    let meta = partitioner.representative();
    sizes
        .iter()
        .enumerate()
        .map(|(i, &size)| {
            let module = ModuleId::from(i);
            let (_, instances) = partitioner.model.instances(module, &meta);
            let slice = first_slice(partitioner.model, module, size, &meta);
            let passes = f64::from(instances) / f64::from(slice.max(1));
            Ok(layer_times(partitioner, module, &meta, slice)?.scaled(passes))
        })
        .collect()
}

/// Seconds of all modules on a rank.
fn seconds_on(drafts: &[ModuleDraft], rank: usize) -> f64 {
    drafts.iter().map(|d| d.seconds_on(rank)).sum()
}

/// Moves single layers from the busiest rank to the rank with the lowest load, as long as that [`pays`].
fn even_out(drafts: &mut [ModuleDraft], load: &mut RankLoads) {
    // Every move narrows a gap, so moves end. There is at most one move per layer.
    let max_moves: u64 = drafts.iter().map(|d| u64::from(d.times.layers)).sum();
    for _ in 0..max_moves {
        let (from, to) = (load.busiest(), load.lightest());
        let Some(module) = module_to_move(drafts, from, to) else { return };
        drafts[module].move_layer(from, to);
        for rank in [from, to] {
            load.set(rank, seconds_on(drafts, rank));
        }
    }
}

/// The module whose layer leaves the smallest gap between two ranks when it moves.
fn module_to_move(drafts: &[ModuleDraft], from: usize, to: usize) -> Option<usize> {
    let gaps: Vec<f64> = drafts.iter().map(|d| d.seconds_on(from) - d.seconds_on(to)).collect();
    let gap: f64 = gaps.iter().sum();
    let left = |i: usize| (gap - 2.0 * drafts[i].times.layer_s).abs();
    (0..drafts.len())
        .filter(|&i| drafts[i].can_give(from) && pays(&gaps, i, drafts[i].times.layer_s))
        .min_by(|&a, &b| left(a).total_cmp(&left(b)))
}

/// True if moving a layer of a module pays. `gaps` are the differences between the two ranks, by module.
///
/// A layer can make up for layers of another module, but only in the mix of modules of the representative microbatch, and batches
/// differ. So the move must gain more in that microbatch than it loses with half or twice the work of any one module.
fn pays(gaps: &[f64], module: usize, layer_s: f64) -> bool {
    let gap: f64 = gaps.iter().sum();
    let gain_with = |m: usize, mix: f64| {
        let layer_s = if m == module { mix * layer_s } else { layer_s };
        gain(gap + (mix - 1.0) * gaps[m], layer_s)
    };
    let others = (0..gaps.len()).flat_map(|m| MIXES.map(|mix| gain_with(m, mix)));
    gain(gap, layer_s) + others.fold(0.0, f64::min) > ROUNDING * layer_s
}

/// The gain of the busier of two ranks if the rank that is `gap` slower gives a layer to the other.
fn gain(gap: f64, layer_s: f64) -> f64 {
    gap.max(0.0) - layer_s.max(gap - layer_s)
}
