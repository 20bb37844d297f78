//! Planning the batches of a run: a model, a cluster and costs in, a plan of every batch out.
//!
//! ```text
//! ModelSpec, ClusterSpec, CostModel -> Planning                              before training (paper section 1)
//! Planning, BatchMeta, Schedule     -> BatchSplit -> TaskGraph -> Plan       each batch (paper section 2)
//! Planning, PlannerConfig           -> BatchPlanner                          ahead of training (paper section 4)
//! ```

mod assign;
mod batch_planner;
mod loads;
mod memory_need;
mod planner;

pub use assign::{MicrobatchLoads, assign_microbatches};
pub use batch_planner::{BatchPlanner, Learning, MakeJudge};
pub(crate) use loads::seconds_of_chunk;
pub use planner::{Planned, Planner, PlannerConfig, PlannerStats};

use std::sync::Arc;

use dip_core::{
    BatchMeta, BatchSplit, BuildError, ClusterSpec, CostModel, Environment, GraphInput, ModelSpec,
    Partition, Plan, PlanError, Schedule, Seconds, TaskGraph, build_graph,
};

use crate::learning::LearnedCosts;
use crate::partition::{PartitionError, Partitioner, split_batch};

/// Everything that the plans of a run depend on, except its batches: model, cluster, costs and partition.
///
/// ```
/// # use std::sync::Arc;
/// # use dip_core::{BatchMeta, CostModel, check_plan, presets};
/// # use dip_sched::{Dip, Planning};
/// # fn example(cost: Arc<dyn CostModel>, batch: BatchMeta) -> Result<(), Box<dyn std::error::Error>> {
/// let model = presets::model("vlm-s").ok_or("no such model")?;
/// let cluster = presets::cluster("h800").ok_or("no such cluster")?;
/// let planning = Planning::new(&model, &cluster, cost)?.for_schedule(&Dip)?;
/// let plan = planning.plan(&batch, &Dip)?;
/// assert!(check_plan(&plan).is_empty());
/// println!("{}", plan.predicted.makespan_s);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Planning {
    model: Arc<ModelSpec>,
    cluster: Arc<ClusterSpec>,
    cost: Arc<dyn CostModel>,
    partition: Partition,
    weight_split: bool,
    corrections: Option<Arc<LearnedCosts>>,
}

impl Planning {
    /// Partitions the model over its own number of pipeline ranks by the paper's rule. The memory of a cluster device is the limit of
    /// every rank.
    ///
    /// # Errors
    /// [`PartitionError`] if the model is not valid or the cost model lacks a figure.
    pub fn new(
        model: &ModelSpec,
        cluster: &ClusterSpec,
        cost: Arc<dyn CostModel>,
    ) -> Result<Self, PartitionError> {
        Self::on_ranks(model, cluster, cost, model.parallel.pipeline)
    }

    /// The same on another number of pipeline ranks.
    ///
    /// # Errors
    /// Same as [`Planning::new`], and [`PartitionError::NoRanks`] if there are no ranks.
    pub fn on_ranks(
        model: &ModelSpec,
        cluster: &ClusterSpec,
        cost: Arc<dyn CostModel>,
        ranks: u32,
    ) -> Result<Self, PartitionError> {
        let partition = Partitioner::new(model, ranks, &*cost).partition()?;
        let (model, cluster) = (Arc::new(model.clone()), Arc::new(cluster.clone()));
        Ok(Self { model, cluster, cost, partition, weight_split: false, corrections: None })
    }

    /// Takes the placement, the number of segments and the weight split that a schedule is made for.
    ///
    /// # Errors
    /// Same as [`Partitioner::place`].
    pub fn for_schedule(self, schedule: &dyn Schedule) -> Result<Self, PartitionError> {
        let partitioner = self.partitioner().with_segment_factor(schedule.segment_factor());
        let partition = partitioner.place(schedule.placement())?;
        Ok(self.with_partition(partition).with_weight_split(schedule.splits_weights()))
    }

    /// Replaces the partition.
    #[must_use]
    pub fn with_partition(mut self, partition: Partition) -> Self {
        self.partition = partition;
        self
    }

    /// Replaces the cost model.
    #[must_use]
    pub fn with_cost(mut self, cost: Arc<dyn CostModel>) -> Self {
        self.cost = cost;
        self
    }

    /// Makes weight gradients tasks of their own, or part of the backward.
    #[must_use]
    pub fn with_weight_split(mut self, weight_split: bool) -> Self {
        self.weight_split = weight_split;
        self
    }

    /// Corrects the stage times of task graphs by what was learned in an earlier run.
    #[must_use]
    pub fn with_corrections(mut self, corrections: Option<Arc<LearnedCosts>>) -> Self {
        self.corrections = corrections;
        self
    }

    /// The model.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterSpec {
        &self.cluster
    }

    /// The cost model.
    pub fn cost(&self) -> &Arc<dyn CostModel> {
        &self.cost
    }

    /// Which layers are on which rank.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The number of pipeline ranks.
    pub fn ranks(&self) -> u32 {
        self.partition.ranks
    }

    /// True if weight gradients are tasks of their own.
    pub fn weight_split(&self) -> bool {
        self.weight_split
    }

    /// A partitioner for the same model, ranks and costs.
    pub fn partitioner(&self) -> Partitioner<'_> {
        Partitioner::new(&self.model, self.ranks(), &*self.cost)
    }

    /// The instances of every sub-microbatch of a batch.
    pub fn split(&self, batch: &BatchMeta) -> BatchSplit {
        split_batch(&self.model, &self.partition, batch)
    }

    /// The task graph of a batch.
    ///
    /// # Errors
    /// [`BuildError`] if a stage has no cost.
    pub fn graph(&self, batch: &BatchMeta) -> Result<TaskGraph, BuildError> {
        let mut graph = build_graph(&GraphInput {
            model: &self.model,
            cluster: &self.cluster,
            partition: &self.partition,
            batch,
            split: &self.split(batch),
            cost: &*self.cost,
            weight_split: self.weight_split,
        })?;
        if let Some(corrections) = &self.corrections {
            corrections.correct(&mut graph);
        }
        Ok(graph)
    }

    /// Plans a batch in the default environment: one thread, 200 iterations of a search.
    ///
    /// # Errors
    /// [`PlanError`] if a stage has no cost or the batch has no plan.
    pub fn plan(&self, batch: &BatchMeta, schedule: &dyn Schedule) -> Result<Plan, PlanError> {
        self.plan_in(batch, schedule, &Environment::default())
    }

    /// Plans a batch with the seed, budget and threads of an environment.
    ///
    /// # Errors
    /// Same as [`Planning::plan`].
    pub fn plan_in(
        &self,
        batch: &BatchMeta,
        schedule: &dyn Schedule,
        env: &Environment<'_>,
    ) -> Result<Plan, PlanError> {
        Ok(schedule.plan(&self.graph(batch)?, env)?)
    }

    /// The time of the optimiser step on the rank with most to update.
    pub fn busiest_update(&self) -> Seconds {
        let mut updates = vec![Seconds::ZERO; self.ranks() as usize];
        for (rank, chunk) in self.partition.queries(&self.model) {
            updates[rank.index()] += self.cost.update(&chunk);
        }
        updates.into_iter().fold(Seconds::ZERO, Seconds::max)
    }
}
