//! The cut of a run: which layers go on which rank, for all of its batches.
//!
//! ```text
//! placements by rule, weight gradients apart or not -> predicted for sample batches -> the fastest
//! the fastest -> its neighbours by their busiest rank -> predicted for sample batches -> the fastest, again and again
//! ```
//!
//! The rule of the paper gives the chunks of a module equally many layers (section 1). Where a rank has few layers, a whole one more
//! than another has leaves ranks idle that no order of stages can keep busy: here single layers, chunks and modules go to other
//! ranks for as long as plans of sample batches become shorter.

mod layout;
mod loads;

use std::collections::HashSet;
use std::sync::Arc;

use dip_core::{
    BatchMeta, Budget, ClusterSpec, CostModel, Environment, MicrobatchMeta, ModelSpec, Partition,
    PlanError, Schedule, Seconds,
};
use rayon::prelude::*;
use thiserror::Error;

use crate::batch_planner::PlanInputs;
use crate::need::memory_need;
use crate::partition::{PartitionError, Partitioner, Placement};
use crate::registry::{finer_segments, placement, splits_weights};
use layout::Layout;
use loads::ChunkLoads;

/// How much shorter plans with weight gradients apart have to be predicted: measured against predicted, they took 2 to 3 % longer
/// than others, whatever the model.
const SPLIT_MARGIN: f64 = 0.03;
/// Budget of a plan of a trial where that of the run is time.
const TRIAL_ITERATIONS: u64 = 50;
/// A neighbour has to be so much faster: profiles are not more exact than that, and fewer chunks are less to do.
const LEAST_GAIN: f64 = 0.003;
/// Neighbours whose busiest rank is looked at, of one cut.
const MOST_NEIGHBOURS: usize = 4096;
/// Those of them that are planned before the fastest is gone on with.
const PLANNED: usize = 32;
/// Stages that all plans of neighbours have together at most: about ten seconds on two cores.
const MOST_STAGES: usize = 1_000_000;

/// Chooses the cut of a run.
pub struct CutSearch<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The cluster; its device memory is the limit of every rank.
    pub cluster: &'a ClusterSpec,
    /// Pipeline ranks.
    pub ranks: u32,
    /// What stages cost with weight gradients apart (`true`) or not.
    pub cost: &'a (dyn Fn(bool) -> Arc<dyn CostModel> + Sync),
    /// Whether weight gradients are tasks of their own; `None` for what is predicted to be faster.
    pub weight_split: Option<bool>,
    /// Batches like those to come, at least one.
    pub batches: &'a [BatchMeta],
    /// Their mean microbatch.
    pub mean: &'a MicrobatchMeta,
    /// The longest video of a microbatch.
    pub longest_video: Seconds,
    /// The schedule of the run.
    pub schedule: &'a dyn Schedule,
    /// Its budget for a batch.
    pub budget: Budget,
}

/// A run that cannot be cut.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum CutError {
    /// The partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The plan of a sample batch.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The heaviest microbatch does not fit.
    #[error(
        "memory_limit_bytes is {limit}, but rank {rank} needs {need} bytes for its weights, gradients, optimiser state and the \
         activations of one full microbatch; raise the limit to at least that, or use more ranks"
    )]
    Memory {
        /// The limit.
        limit: u64,
        /// The rank that needs most.
        rank: usize,
        /// Bytes that it needs.
        need: u64,
    },
}

impl CutError {
    /// Bytes that the limit must be raised to; without end where no limit is at fault.
    fn memory_needed(&self) -> u64 {
        match self {
            Self::Memory { need, .. } => *need,
            _ => u64::MAX,
        }
    }
}

/// A cut with the seconds of an iteration that are predicted for it.
struct Judged {
    seconds: f64,
    inputs: PlanInputs,
}

impl CutSearch<'_> {
    /// The cut by rule that is predicted to train the batches fastest. Apart, input and weight gradients take longer than together,
    /// but fill bubbles; slices balance ranks, but small ones are slow: what weighs more is a matter of the model and the device.
    ///
    /// # Errors
    /// [`CutError`] where no cut by rule fits. What is wrong with the first is wrong with the run, unless another needs less memory.
    pub fn by_rule(&self) -> Result<PlanInputs, CutError> {
        Ok(self.best_by_rule()?.inputs)
    }

    /// The same, and then whatever neighbouring cut is predicted to be faster. A schedule that does not search keeps its rule.
    ///
    /// # Errors
    /// As [`CutSearch::by_rule`].
    pub fn searched(&self) -> Result<PlanInputs, CutError> {
        let best = self.best_by_rule()?;
        if self.ways().len() > 1 { self.refined(best) } else { Ok(best.inputs) }
    }

    fn best_by_rule(&self) -> Result<Judged, CutError> {
        let weight_splits = match self.weight_split {
            Some(weight_split) => vec![weight_split],
            None if splits_weights(self.schedule.name()) => vec![false, true],
            None => vec![false],
        };
        let (mut best, mut refused) = (None::<Judged>, None::<CutError>);
        for way in self.ways() {
            for &weight_split in &weight_splits {
                match self.inputs(way, weight_split).and_then(|inputs| self.judged(inputs)) {
                    Ok(judged) => {
                        if best.as_ref().is_none_or(|best| judged.seconds < best.seconds) {
                            best = Some(judged);
                        }
                    }
                    Err(error) => {
                        let needs_less =
                            |than: &CutError| error.memory_needed() < than.memory_needed();
                        if refused.as_ref().is_none_or(needs_less) {
                            refused = Some(error);
                        }
                    }
                }
            }
        }
        best.ok_or_else(|| refused.expect("a way that is not judged is refused"))
    }

    /// Placements that are worth a trial, with how many times the segments of the paper's rule, the schedule's own first. A search
    /// makes plans of any of them: contiguous runs send less and cut no slices, which on some devices outweighs emptier bubbles.
    fn ways(&self) -> Vec<(Placement, u32)> {
        let name = self.schedule.name();
        let (own, finer) = (placement(name), finer_segments(name));
        let mut ways = vec![(own, 1)];
        if finer > 1 {
            ways.push((own, finer));
            ways.extend(["1f1b", "interleaved"].map(|name| (placement(name), 1)));
        }
        ways
    }

    fn inputs(
        &self,
        (placement, finer): (Placement, u32),
        weight_split: bool,
    ) -> Result<PlanInputs, CutError> {
        let cost = (self.cost)(weight_split);
        let partition = Partitioner::new(self.model, self.ranks, &*cost)
            .with_representative(self.mean.clone())
            .with_finer_segments(finer)
            .place(placement)?;
        let (model, cluster) = (self.model.clone(), self.cluster.clone());
        Ok(PlanInputs { model, cluster, partition, cost, weight_split })
    }

    /// The seconds of an iteration: the makespan, and the optimiser of the rank that has most to update, which starts when the
    /// gradients of all ranks are there.
    fn judged(&self, inputs: PlanInputs) -> Result<Judged, CutError> {
        self.fits(&inputs)?;
        let budget = match self.budget {
            Budget::Time(_) => Budget::Iterations(TRIAL_ITERATIONS),
            iterations => iterations,
        };
        let environment = Environment { budget, ..Environment::default() };
        let mut sum = 0.0;
        for batch in self.batches {
            sum += inputs.predicted(batch, self.schedule, &environment)?.0;
        }
        let mean = sum / self.batches.len() as f64;
        let margin = if inputs.weight_split { SPLIT_MARGIN } else { 0.0 };
        let seconds = mean * (1.0 + margin) + inputs.busiest_update().0;
        Ok(Judged { seconds, inputs })
    }

    /// A limit that the heaviest microbatch does not fit would end the run at the first batch that has one.
    fn fits(&self, inputs: &PlanInputs) -> Result<(), CutError> {
        let limit = self.cluster.device.memory_bytes.0;
        let need = memory_need(inputs, self.longest_video).map_err(PlanError::from)?;
        match need.iter().enumerate().max_by_key(|(_, bytes)| bytes.0) {
            Some((rank, bytes)) if bytes.0 > limit => {
                Err(CutError::Memory { limit, rank, need: bytes.0 })
            }
            _ => Ok(()),
        }
    }

    /// Goes to the fastest neighbour until there is none.
    fn refined(&self, mut best: Judged) -> Result<PlanInputs, CutError> {
        let stages = self.batches.iter().map(|batch| best.inputs.stages(batch));
        let stages = stages.sum::<Result<usize, _>>()?.max(1);
        let mut plans = MOST_STAGES / stages;
        let cost = best.inputs.cost.clone();
        let mut loads = ChunkLoads::new(self.model, &*cost, self.batches);
        let mut known = HashSet::new();
        while plans > 0 {
            let layout = Layout::of(&best.inputs.partition);
            let promising = promising(&layout, &mut loads, best.seconds, &known);
            if promising.is_empty() {
                break;
            }
            let planned = &promising[..promising.len().min(PLANNED).min(plans)];
            plans -= planned.len();
            known.extend(planned.iter().cloned());
            let judge = |layout: &Layout| {
                let partition: Partition = layout.partition();
                self.judged(PlanInputs { partition, ..best.inputs.clone() }).ok()
            };
            let judged: Vec<Judged> = planned.par_iter().filter_map(judge).collect();
            let fastest = judged.into_iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
            if let Some(next) = fastest.filter(|next| is_faster(next.seconds, best.seconds)) {
                best = next;
            }
        }
        Ok(best.inputs)
    }
}

fn is_faster(seconds: f64, than: f64) -> bool {
    seconds < than * (1.0 - LEAST_GAIN)
}

/// Neighbours that may be faster, those first whose busiest rank has least to do: one change to the layout, and a second one to
/// the best of these.
fn promising(
    layout: &Layout,
    loads: &mut ChunkLoads<'_>,
    seconds: f64,
    known: &HashSet<Layout>,
) -> Vec<Layout> {
    let mut seen = HashSet::from([layout.clone()]);
    let mut found: Vec<(f64, Layout)> = Vec::new();
    let mut look = |neighbours: Vec<Layout>, found: &mut Vec<(f64, Layout)>| {
        for neighbour in neighbours {
            if seen.len() < MOST_NEIGHBOURS
                && seen.insert(neighbour.clone())
                && let Some(bound) = loads.bound(&neighbour)
            {
                found.push((bound, neighbour));
            }
        }
        seen.len() < MOST_NEIGHBOURS
    };
    look(layout.neighbours(), &mut found);
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 0..found.len() {
        let further = found[i].1.neighbours();
        if !look(further, &mut found) {
            break;
        }
    }
    found.retain(|(bound, layout)| is_faster(*bound, seconds) && !known.contains(layout));
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().map(|(_, layout)| layout).collect()
}
