//! The cut of a run: which layers go on which rank, for all of its batches.
//!
//! ```text
//! placements by rule, weight gradients apart or not -> predicted for sample batches -> the fastest
//! the fastest -> its neighbours by their busiest rank -> predicted for sample batches -> the fastest, again and again
//! ```
//!
//! The paper's rule gives the chunks of a module equally many layers (section 1), and the partitioner evens out ranks layer by layer.
//! Where a rank has few layers, one more than another leaves ranks idle that no order of stages can keep busy, and what balances
//! layers may not balance weights: here layers, chunks and modules go to other ranks for as long as plans of sample batches become
//! shorter.

mod chunk_loads;
mod layout;

use std::collections::HashSet;
use std::sync::Arc;

use dip_core::{
    BatchMeta, Budget, Bytes, ClusterSpec, CostModel, Environment, MicrobatchMeta, ModelSpec,
    Placement, PlanError, Schedule, Seconds,
};
use thiserror::Error;

use crate::partition::{PartitionError, Partitioner};
use crate::planning::PlanInputs;
use crate::planning::memory_need;
use chunk_loads::ChunkLoads;
use layout::{Layout, Moves};

/// How much shorter plans with weight gradients apart have to be predicted: measured against predicted, they took 2 to 3 % longer
/// than others, whatever the model.
const SPLIT_MARGIN: f64 = 0.03;
/// Most iterations of the plan of a trial.
const TRIAL_ITERATIONS: u64 = 50;
/// A neighbour has to be so much faster: profiles are not more exact than that, and fewer chunks are less to do.
const LEAST_GAIN: f64 = 0.003;
/// Most neighbours of a cut. Models with more layers on more ranks are even by rule.
const MOST_NEIGHBOURS: usize = 16_384;
/// Neighbours of neighbours whose busiest rank is looked at.
const MOST_SECOND_NEIGHBOURS: usize = 4096;
/// Neighbours that are planned before the fastest is gone on with.
const PLANNED: usize = 32;
/// Stages that all plans of neighbours have together at most, times iterations: about ten seconds on two cores.
const MOST_STAGES: u64 = 20_000_000;

/// Chooses the cut of a run.
pub struct CutSearch<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The cluster; its device memory is the limit of every rank, `u64::MAX` for none.
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
    /// Stages of all sample batches.
    stages: u64,
    inputs: PlanInputs,
}

impl CutSearch<'_> {
    /// The cut by rule that is predicted to train the batches fastest. Apart, input and weight gradients take longer than together,
    /// but fill bubbles; slices balance ranks, but small ones are slow: what weighs more is a matter of the model and the device.
    ///
    /// # Errors
    /// [`CutError`] where no cut by rule fits. What is wrong with the first is wrong with the run, unless another needs less memory.
    pub fn by_rule(&self) -> Result<PlanInputs, CutError> {
        let mut candidates = self.candidates();
        if candidates.len() > 1 {
            return Ok(self.fastest(candidates)?.inputs);
        }
        let only = candidates.remove(0)?;
        self.fits(&only).map(|()| only)
    }

    /// The same, and then whatever neighbouring cut is predicted to be faster. A schedule that does not search keeps its rule.
    ///
    /// # Errors
    /// As [`CutSearch::by_rule`].
    pub fn searched(&self) -> Result<PlanInputs, CutError> {
        if !self.schedule.searches() {
            return self.by_rule();
        }
        Ok(self.refined(self.fastest(self.candidates())?))
    }

    /// All cuts by rule, at least one.
    fn candidates(&self) -> Vec<Result<PlanInputs, CutError>> {
        let weight_splits = match self.weight_split {
            Some(weight_split) => vec![weight_split],
            None if self.schedule.splits_weights() => vec![false, true],
            None => vec![false],
        };
        let ways = self.ways().into_iter();
        ways.flat_map(|way| weight_splits.iter().map(move |&split| self.inputs(way, split)))
            .collect()
    }

    /// Placements that are worth a trial, with how many times the segments of the paper's rule, the schedule's own first. A search
    /// makes plans of any of them: contiguous runs send less and cut no slices, which on some devices outweighs emptier bubbles.
    fn ways(&self) -> Vec<(Placement, u32)> {
        let own = self.schedule.placement();
        let mut ways = vec![(own, 1)];
        if self.schedule.searches() {
            ways.push((own, self.schedule.segment_factor()));
            ways.extend([1, 2].map(|runs_per_rank| (Placement::Contiguous { runs_per_rank }, 1)));
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

    fn fastest(&self, candidates: Vec<Result<PlanInputs, CutError>>) -> Result<Judged, CutError> {
        let (mut best, mut refused) = (None::<Judged>, None::<CutError>);
        for candidate in candidates {
            match candidate.and_then(|inputs| self.judged(inputs)) {
                Ok(judged) => {
                    if best.as_ref().is_none_or(|best| judged.seconds < best.seconds) {
                        best = Some(judged);
                    }
                }
                Err(error) => {
                    let needs_less = |than: &CutError| error.memory_needed() < than.memory_needed();
                    if refused.as_ref().is_none_or(needs_less) {
                        refused = Some(error);
                    }
                }
            }
        }
        best.ok_or_else(|| refused.expect("a way that is not judged is refused"))
    }

    fn judged(&self, inputs: PlanInputs) -> Result<Judged, CutError> {
        self.fits(&inputs)?;
        let budget = Budget::Iterations(self.trial_iterations());
        let environment = Environment { budget, ..Environment::default() };
        let (mut makespans, mut stages) = (0.0, 0);
        for batch in self.batches {
            let plan = inputs.plan(batch, self.schedule, &environment)?;
            makespans += plan.predicted.makespan_s.0;
            stages += plan.graph.tasks.len() as u64;
        }
        let mean = makespans / self.batches.len() as f64;
        let seconds = of_iteration(mean, inputs.busiest_update().0, inputs.weight_split);
        Ok(Judged { seconds, stages, inputs })
    }

    fn trial_iterations(&self) -> u64 {
        match self.budget {
            Budget::Iterations(n) => n.min(TRIAL_ITERATIONS),
            Budget::Time(_) => TRIAL_ITERATIONS,
        }
    }

    /// A limit that the heaviest microbatch does not fit would end the run at the first batch that has one.
    fn fits(&self, inputs: &PlanInputs) -> Result<(), CutError> {
        let limit = self.cluster.device.memory_bytes;
        if limit == Bytes(u64::MAX) {
            return Ok(());
        }
        let need = memory_need(inputs, self.longest_video).map_err(PlanError::from)?;
        match need.iter().enumerate().max_by_key(|(_, bytes)| bytes.0) {
            Some((rank, bytes)) if *bytes > limit => {
                Err(CutError::Memory { limit: limit.0, rank, need: bytes.0 })
            }
            _ => Ok(()),
        }
    }

    /// Goes to the fastest neighbour until there is none.
    fn refined(&self, mut best: Judged) -> PlanInputs {
        let moves = Moves::new(self.model, self.batches);
        let cost = best.inputs.cost.clone();
        let mut loads = ChunkLoads::new(self.model, &*cost, self.batches);
        let mut known = HashSet::new();
        let mut stages_left = MOST_STAGES / self.trial_iterations().max(1);
        loop {
            let layout = Layout::of(&best.inputs.partition);
            if moves.count(&layout) > MOST_NEIGHBOURS {
                break;
            }
            let mut promising = promising(&layout, &moves, &mut loads, &best);
            promising.retain(|layout| !known.contains(layout));
            promising.truncate(PLANNED.min((stages_left / best.stages.max(1)) as usize));
            if promising.is_empty() {
                break;
            }
            let judged = self.all_judged(&promising, &best.inputs);
            known.extend(promising);
            stages_left = stages_left.saturating_sub(judged.iter().map(|j| j.stages).sum());
            let fastest = judged.into_iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
            if let Some(next) = fastest.filter(|next| is_faster(next.seconds, best.seconds)) {
                best = next;
            }
        }
        best.inputs
    }

    /// Those of the layouts that have plans, in their order. A thread a core: training has not begun.
    fn all_judged(&self, layouts: &[Layout], like: &PlanInputs) -> Vec<Judged> {
        let judge = |layout: &Layout| {
            self.judged(PlanInputs { partition: layout.partition(), ..like.clone() }).ok()
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            let judge = &judge;
            let shares = layouts.chunks(layouts.len().div_ceil(threads).max(1));
            let threads: Vec<_> = shares
                .map(|share| scope.spawn(move || share.iter().filter_map(judge).collect()))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .flat_map(|judged: Result<Vec<Judged>, _>| {
                    judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        })
    }
}

/// The seconds of an iteration: the makespan, and the optimiser of the rank that has most to update, which starts when the gradients
/// of all ranks are there.
fn of_iteration(makespan: f64, update: f64, weight_split: bool) -> f64 {
    makespan * (1.0 + if weight_split { SPLIT_MARGIN } else { 0.0 }) + update
}

fn is_faster(seconds: f64, than: f64) -> bool {
    seconds < than * (1.0 - LEAST_GAIN)
}

/// Layouts that may be faster than the best, those first whose busiest rank has least to do: one move away, and a second one from
/// the best of these.
fn promising(
    layout: &Layout,
    moves: &Moves,
    loads: &mut ChunkLoads<'_>,
    best: &Judged,
) -> Vec<Layout> {
    let mut seen = HashSet::from([layout.clone()]);
    let mut bounded = |neighbours: Vec<Layout>, most: usize| -> Vec<(f64, Layout)> {
        let mut found = Vec::new();
        for neighbour in neighbours.into_iter().take(most) {
            if seen.insert(neighbour.clone())
                && let Some((makespan, update)) = loads.busiest(&neighbour)
            {
                found.push((of_iteration(makespan, update, best.inputs.weight_split), neighbour));
            }
        }
        found
    };
    let by_bound = |a: &(f64, Layout), b: &(f64, Layout)| a.0.total_cmp(&b.0);
    let mut found = bounded(moves.from(layout), MOST_NEIGHBOURS);
    found.sort_by(by_bound);
    let mut left = MOST_SECOND_NEIGHBOURS;
    let mut second = Vec::new();
    for (_, neighbour) in &found {
        let neighbours = moves.from(neighbour);
        let count = neighbours.len().min(left);
        second.extend(bounded(neighbours, count));
        left -= count;
        if left == 0 {
            break;
        }
    }
    found.extend(second);
    found.retain(|(bound, _)| is_faster(*bound, best.seconds));
    found.sort_by(by_bound);
    found.into_iter().map(|(_, layout)| layout).collect()
}
