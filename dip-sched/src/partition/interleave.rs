//! Chunks of every module on ranks: chunk `j` on rank `j mod P`, layers where they balance the load of the ranks.
//!
//! ```text
//! equal chunks -> spread: what does not divide, to the least loaded ranks -> even out: single layers off the busiest rank
//! ```
//!
//! Chunks of equal layers are not equal in load: the first has the embedding of the module, the last its head, loss or adapter.
//! The rank of a heavy end has fewer layers, of that module or of others.

use dip_core::{ModuleId, Partition};

use super::draft::ModuleDraft;
use super::load::RankLoads;
use super::prices::{Prices, prices};
use super::{PartitionError, Partitioner};

/// What the work of any one module may be in a batch, as a multiple of that in the representative microbatch.
const MIXES: [f64; 2] = [0.5, 2.0];
/// Gains below this share of a layer are rounding errors.
const ROUNDING: f64 = 1e-9;

/// Places all modules for given `B_i` and `K_i`.
pub(super) fn place(
    of: &Partitioner<'_>,
    sizes: &[u32],
    segments: &[u32],
) -> Result<Partition, PartitionError> {
    let prices = loads(of, sizes)?;
    let ranks = of.ranks as usize;
    let draft = |(&p, &k)| ModuleDraft::new(p, k, ranks);
    let mut drafts: Vec<ModuleDraft> = prices.iter().zip(segments).map(draft).collect();
    let mut load = RankLoads::new(ranks, |rank| seconds_on(&drafts, rank));
    // Heavy layers first: light ones even out what is left.
    let mut order: Vec<&mut ModuleDraft> = drafts.iter_mut().collect();
    order.sort_by(|a, b| b.prices.layer_s.total_cmp(&a.prices.layer_s));
    for draft in order {
        draft.spread(&mut load);
    }
    even_out(&mut drafts, &mut load);
    let modules = drafts.iter().zip(sizes).map(|(d, &size)| d.finish(size)).collect();
    Ok(Partition { ranks: of.ranks, modules })
}

/// Prices of every module for all its sub-microbatches of the representative microbatch.
fn loads(of: &Partitioner<'_>, sizes: &[u32]) -> Result<Vec<Prices>, PartitionError> {
    let meta = of.representative();
    sizes
        .iter()
        .enumerate()
        .map(|(i, &size)| {
            let module = ModuleId::from(i);
            let (_, instances) = of.model.instances(module, &meta);
            let slice = size.min(instances);
            let times = f64::from(instances) / f64::from(slice.max(1));
            Ok(prices(of, module, &meta, slice)?.scaled(times))
        })
        .collect()
}

/// What all modules take on a rank.
fn seconds_on(drafts: &[ModuleDraft], rank: usize) -> f64 {
    drafts.iter().map(|d| d.seconds_on(rank)).sum()
}

/// Moves single layers from the busiest rank to the least loaded one, as long as that makes the longer of both shorter and
/// [`pays`].
fn even_out(drafts: &mut [ModuleDraft], load: &mut RankLoads) {
    // Every move narrows a gap, so that moves end. One for each layer bounds their time.
    let most: u64 = drafts.iter().map(|d| u64::from(d.prices.layers)).sum();
    for _ in 0..most {
        let (from, to) = (load.busiest(), load.lightest());
        let Some(module) = module_to_move(drafts, from, to) else { return };
        drafts[module].move_layer(from, to);
        for rank in [from, to] {
            load.set(rank, seconds_on(drafts, rank));
        }
    }
}

/// The module of which a layer that moves leaves the least gap between two ranks.
fn module_to_move(drafts: &[ModuleDraft], from: usize, to: usize) -> Option<usize> {
    let gaps: Vec<f64> = drafts.iter().map(|d| d.seconds_on(from) - d.seconds_on(to)).collect();
    let gap: f64 = gaps.iter().sum();
    let left = |i: usize| (gap - 2.0 * drafts[i].prices.layer_s).abs();
    (0..drafts.len())
        .filter(|&i| drafts[i].can_give(from) && pays(&gaps, i, drafts[i].prices.layer_s))
        .min_by(|&a, &b| left(a).total_cmp(&left(b)))
}

/// Whether a layer of a module pays to move between two ranks that are `gaps` apart in every module.
///
/// A layer that makes up for those of another module does so only in the representative microbatch's mix of both, and batches
/// differ. So it must gain more there than it loses where any one module has half the work, or twice.
fn pays(gaps: &[f64], module: usize, layer_s: f64) -> bool {
    let gap: f64 = gaps.iter().sum();
    let gain_with = |m: usize, mix: f64| {
        let layer_s = if m == module { mix * layer_s } else { layer_s };
        gain(gap + (mix - 1.0) * gaps[m], layer_s)
    };
    let others = (0..gaps.len()).flat_map(|m| MIXES.map(|mix| gain_with(m, mix)));
    gain(gap, layer_s) + others.fold(0.0, f64::min) > ROUNDING * layer_s
}

/// How much shorter the longer of two ranks gets where the one that takes `gap` longer gives a layer to the other.
fn gain(gap: f64, layer_s: f64) -> f64 {
    gap.max(0.0) - layer_s.max(gap - layer_s)
}
