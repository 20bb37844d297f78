//! Refinement: from a placement to its fastest neighbour, until no neighbour is faster.

use std::collections::HashSet;

use super::chunk_loads::ChunkLoads;
use super::layer_ranks::LayerRanks;
use super::neighbourhood::Neighbourhood;
use super::{PlacementSearch, PredictedPlacement, iteration_seconds};
use crate::planning::Planning;

/// A neighbour has to be faster by this share, because profiles are no more exact and fewer chunks mean less work.
const MIN_GAIN: f64 = 0.003;
/// Maximum number of neighbours of a placement that is refined. With more layers and ranks, the rule alone balances well.
const MAX_NEIGHBOURS: usize = 16_384;
/// Maximum number of second neighbours (neighbours of neighbours) whose busiest rank is computed.
const MAX_SECOND_NEIGHBOURS: usize = 4096;
/// Maximum number of neighbours that are planned in a round.
const MAX_PLANNED: usize = 32;
/// Maximum of stages times search iterations, summed over all plans of neighbours: about ten seconds on two cores.
const MAX_STAGES: u64 = 20_000_000;

/// A placement with a lower bound on the seconds of an iteration.
struct Bounded {
    seconds: f64,
    layers: LayerRanks,
}

impl PlacementSearch<'_> {
    /// Moves to the fastest neighbour until no neighbour is faster.
    pub(super) fn refine(&self, mut best: PredictedPlacement) -> Planning {
        let model = best.planning.model().clone();
        let cost = best.planning.cost().clone();
        let neighbourhood = Neighbourhood::new(&model, self.batches);
        let mut loads = ChunkLoads::new(&model, &*cost, self.batches);
        let mut known = HashSet::new();
        let mut stages_left = MAX_STAGES / self.trial_iterations().max(1);
        loop {
            let layers = LayerRanks::of(best.planning.partition());
            if neighbourhood.count(&layers) > MAX_NEIGHBOURS {
                break;
            }
            let mut promising = promising(&layers, &neighbourhood, &mut loads, &best);
            promising.retain(|layers| !known.contains(layers));
            promising.truncate(MAX_PLANNED.min((stages_left / best.stages.max(1)) as usize));
            if promising.is_empty() {
                break;
            }
            let predicted = self.predict_all(&promising, &best.planning);
            known.extend(promising);
            stages_left = stages_left.saturating_sub(predicted.iter().map(|p| p.stages).sum());
            let fastest = predicted.into_iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
            if let Some(next) = fastest.filter(|next| is_faster(next.seconds, best.seconds)) {
                best = next;
            }
        }
        best.planning
    }

    /// Plans all placements, on one thread per core because training has not begun. Leaves out placements without a plan.
    fn predict_all(
        &self,
        placements: &[LayerRanks],
        planning: &Planning,
    ) -> Vec<PredictedPlacement> {
        let predict = |layers: &LayerRanks| {
            self.predict(planning.clone().with_partition(layers.partition())).ok()
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            let predict = &predict;
            let shares = placements.chunks(placements.len().div_ceil(threads).max(1));
            let threads: Vec<_> = shares
                .map(|share| scope.spawn(move || share.iter().filter_map(predict).collect()))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .flat_map(|predicted: Result<Vec<PredictedPlacement>, _>| {
                    predicted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        })
    }
}

fn is_faster(seconds: f64, than: f64) -> bool {
    seconds < than * (1.0 - MIN_GAIN)
}

/// Neighbours, and neighbours of the best neighbours, that may be faster than the best placement; the lowest bound first.
fn promising(
    layers: &LayerRanks,
    neighbourhood: &Neighbourhood,
    loads: &mut ChunkLoads<'_>,
    best: &PredictedPlacement,
) -> Vec<LayerRanks> {
    let mut seen = HashSet::from([layers.clone()]);
    let mut bounded = |neighbours: Vec<LayerRanks>, limit: usize| -> Vec<Bounded> {
        let mut found = Vec::new();
        for layers in neighbours.into_iter().take(limit) {
            if seen.insert(layers.clone())
                && let Some(busiest) = loads.busiest(&layers)
            {
                let split = best.planning.weight_split();
                let seconds = iteration_seconds(busiest.stages_s, busiest.update_s, split);
                found.push(Bounded { seconds, layers });
            }
        }
        found
    };
    let by_bound = |a: &Bounded, b: &Bounded| a.seconds.total_cmp(&b.seconds);
    let mut found = bounded(neighbourhood.of(layers), MAX_NEIGHBOURS);
    found.sort_by(by_bound);
    let mut left = MAX_SECOND_NEIGHBOURS;
    let mut second = Vec::new();
    for neighbour in &found {
        let neighbours = neighbourhood.of(&neighbour.layers);
        let count = neighbours.len().min(left);
        second.extend(bounded(neighbours, count));
        left -= count;
        if left == 0 {
            break;
        }
    }
    found.extend(second);
    found.retain(|bounded| is_faster(bounded.seconds, best.seconds));
    found.sort_by(by_bound);
    found.into_iter().map(|bounded| bounded.layers).collect()
}
