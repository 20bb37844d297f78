//! The step of a run around a plan: gradients summed over replicas, the optimiser, new weights gathered.
//!
//! ```text
//! pipeline  | F F B F B B W |                                   the plan
//! reduction |          [chunk 1][chunk 2]                       while the pipeline runs on, if it is overlapped ([`GradientOverlap`])
//! update    |                            [optimiser]            after the gradient norm of all ranks
//! gather    |                                       [weights]   ZeRO-1 only
//! ```
//!
//! Reductions of a rank run one after another, each from the end of the last backward or weight task of its chunk or layer. They do
//! not slow the stages or their transfers. Waiting for slower replicas is left out.

use std::collections::HashMap;

use dip_core::{
    BatchMeta, ChunkQuery, CostModel, ModelSpec, ModuleId, Parallelism, Partition, Plan, RankId,
    Seconds, SegmentId, StepFigures, TaskKind,
};

use crate::cost::{AnalyticCost, GradientOverlap};
use crate::flops::model_flops;

/// The figures of the step that runs `plan`, the plan of `batch` on `partition`.
pub fn step_figures(
    cost: &AnalyticCost,
    partition: &Partition,
    batch: &BatchMeta,
    plan: &Plan,
) -> StepFigures {
    let model = cost.model();
    let ranks = partition.ranks as usize;
    let (mut update, mut gather) = (vec![Seconds::ZERO; ranks], vec![Seconds::ZERO; ranks]);
    for (rank, chunk) in partition.queries(model) {
        update[rank.index()] += cost.update(&chunk);
        gather[rank.index()] += cost.gather(&chunk);
    }
    let slowest = |ranks: Vec<Seconds>| ranks.into_iter().fold(Seconds::ZERO, Seconds::max);
    StepFigures {
        parallel: Parallelism { pipeline: partition.ranks, ..model.parallel },
        tokens: trained_tokens(model, batch),
        flops: model_flops(model, batch),
        device_flops_per_s: cost.cluster().device.flops_per_s,
        reduction_s: reduction(cost, partition, plan),
        update_s: slowest(update),
        gather_s: slowest(gather),
    }
}

/// The tokens of the modules at the end of the model, images, sounds and captions included as far as they reach it.
pub fn trained_tokens(model: &ModelSpec, batch: &BatchMeta) -> u64 {
    let modules = (0..model.modules.len()).map(ModuleId::from);
    let ends: Vec<_> = modules.filter(|&m| model.consumers_of(m).is_empty()).collect();
    let tokens = |meta| {
        ends.iter().map(move |&module| {
            let (_, instances) = model.instances(module, meta);
            model.workload(module, meta, 0..instances).tokens
        })
    };
    batch.microbatches.iter().flat_map(tokens).fold(0, u64::saturating_add)
}

/// How long the reductions of the slowest rank last after the end of the pipeline.
fn reduction(cost: &AnalyticCost, partition: &Partition, plan: &Plan) -> Seconds {
    let model = cost.model();
    let end = plan.predicted.makespan_s;
    let last = last_gradients(plan);
    let mut reductions: Vec<Reduction> = Vec::new();
    for (m, module) in partition.modules.iter().enumerate() {
        for chunk in &module.chunks {
            let query = ChunkQuery::new(model, ModuleId::from(m), chunk.layers.clone());
            let key = (chunk.rank, model.modules[m].name.as_str(), chunk.segment);
            let (started, ended) = last.get(&key).copied().unwrap_or((end, end));
            let of_layer = 1.0 / chunk.layers.len().max(1) as f64;
            let (ready, ended, rest) = match cost.replicas().overlap {
                GradientOverlap::None => (end, end, 1.0),
                GradientOverlap::Chunks => (ended, ended, 1.0),
                GradientOverlap::Layers => {
                    (started + (ended - started) * of_layer, ended, of_layer)
                }
            };
            let seconds = cost.reduction(&query);
            reductions.push(Reduction { rank: chunk.rank, ready, ended, seconds, rest });
        }
    }
    reductions.sort_by(|a, b| a.rank.cmp(&b.rank).then(a.ready.total_cmp(&b.ready)));
    let mut free = vec![Seconds::ZERO; partition.ranks as usize];
    for Reduction { rank, ready, ended, seconds, rest } in reductions {
        let free = &mut free[rank.index()];
        *free = (free.max(ready) + seconds).max(ended + seconds * rest);
    }
    free.into_iter().fold(end, Seconds::max) - end
}

/// The sum over replicas of the gradients of one chunk.
struct Reduction {
    rank: RankId,
    /// When its first gradients are ready.
    ready: Seconds,
    /// When its last gradients are ready.
    ended: Seconds,
    /// How long it takes.
    seconds: Seconds,
    /// The share of it that waits for the last gradients.
    rest: f64,
}

/// Start and end of the last task with gradients of every chunk.
fn last_gradients(plan: &Plan) -> HashMap<(RankId, &str, SegmentId), (Seconds, Seconds)> {
    let mut last = HashMap::new();
    let times = plan.predicted.start_s.iter().zip(&plan.predicted.end_s);
    for (task, (&start, &end)) in plan.graph.tasks.iter().zip(times) {
        if task.kind != TaskKind::Forward {
            let found =
                last.entry((task.rank, &*task.module, task.segment)).or_insert((start, end));
            if end > found.1 {
                *found = (start, end);
            }
        }
    }
    last
}
