//! The rule-based, modality-aware partitioner (paper section 1).
//!
//! ```text
//! ModelSpec, P, CostModel -> B_i, K_i (sizes) -> chunks on ranks (interleave or contiguous) -> Partition
//! Partition, BatchMeta    -> M_i = ceil(N_i / B_i) slices (split)                            -> BatchSplit
//! ```

mod contiguous;
mod draft;
mod interleave;
mod layer_times;
mod load;
mod separate;
mod sizes;
mod split;
mod validate;

pub(crate) use split::slices;
pub use split::split_batch;
pub use validate::validate_partition;

use std::collections::BTreeMap;

use dip_core::{
    CostError, CostModel, MicrobatchMeta, ModelSpec, ModuleId, Partition, Placement, Route,
    SpecError,
};
use thiserror::Error;

/// A model that cannot be partitioned, or a partition that is not valid.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PartitionError {
    /// The cost model lacks a figure.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// The model is not valid.
    #[error(transparent)]
    Model(#[from] SpecError),
    /// There are no ranks.
    #[error(
        "the partition has 0 ranks, but must have at least 1; give the number of pipeline ranks"
    )]
    NoRanks,
    /// The model has fewer layers than runs.
    #[error(
        "the model has {layers} layers, but {runs} contiguous runs need one each; use fewer ranks or chunks per rank"
    )]
    TooFewLayers {
        /// Layers of all modules.
        layers: u32,
        /// Contiguous runs over all ranks.
        runs: u32,
    },
    /// A module of the partition is not valid.
    #[error("module {module:?} of the partition {what}; partition the model again")]
    Invalid {
        /// The module.
        module: String,
        /// What is wrong.
        what: String,
    },
}

/// Decides by rule, before training, which layers go on which rank.
///
/// ```
/// # use dip_core::*;
/// # use dip_sched::Partitioner;
/// # fn example(model: &ModelSpec, cost: &dyn CostModel) -> Result<(), dip_sched::PartitionError> {
/// let ours = Partitioner::new(model, 4, cost).partition()?;
/// let baseline = Partitioner::new(model, 4, cost).contiguous(1)?;
/// let vpp = Partitioner::new(model, 4, cost).contiguous(2)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Partitioner<'a> {
    pub(crate) model: &'a ModelSpec,
    pub(crate) ranks: u32,
    pub(crate) cost: &'a dyn CostModel,
    representative: Option<MicrobatchMeta>,
    segment_factor: u32,
    routes: BTreeMap<ModuleId, Route>,
    segments: BTreeMap<ModuleId, u32>,
    sub_microbatch: BTreeMap<ModuleId, u32>,
}

impl<'a> Partitioner<'a> {
    /// A partitioner of `model` over `ranks` pipeline ranks.
    pub fn new(model: &'a ModelSpec, ranks: u32, cost: &'a dyn CostModel) -> Self {
        Self {
            model,
            ranks,
            cost,
            representative: None,
            segment_factor: 1,
            routes: BTreeMap::new(),
            segments: BTreeMap::new(),
            sub_microbatch: BTreeMap::new(),
        }
    }

    /// Balances loads for this microbatch instead of a half-full microbatch.
    #[must_use]
    pub fn with_representative(mut self, microbatch: MicrobatchMeta) -> Self {
        self.representative = Some(microbatch);
        self
    }

    /// Multiplies the segments of the paper's rule by `factor`, as far as the layers of a module allow. The pipeline then fills and
    /// drains faster, but has more stages and more transfers.
    #[must_use]
    pub fn with_segment_factor(mut self, factor: u32) -> Self {
        self.segment_factor = factor.max(1);
        self
    }

    /// Sets `K_i`, the number of segments of a module. A module with too few layers gets fewer.
    #[must_use]
    pub fn with_segments(mut self, module: ModuleId, segments: u32) -> Self {
        self.segments.insert(module, segments.max(1));
        self
    }

    /// Sets the route of a module; the default is [`Route::Loop`].
    #[must_use]
    pub fn with_route(mut self, module: ModuleId, route: Route) -> Self {
        self.routes.insert(module, route);
        self
    }

    /// Sets `B_i`, the instances of one sub-microbatch of a module.
    #[must_use]
    pub fn with_sub_microbatch(mut self, module: ModuleId, instances: u32) -> Self {
        self.sub_microbatch.insert(module, instances.max(1));
        self
    }

    /// The partition for a placement.
    ///
    /// # Errors
    /// Same as [`Partitioner::partition`] or [`Partitioner::contiguous`].
    pub fn place(&self, placement: Placement) -> Result<Partition, PartitionError> {
        match placement {
            Placement::ModalityAware => self.partition(),
            Placement::Contiguous { runs_per_rank, route } => self.runs(route, runs_per_rank),
        }
    }

    /// The modality-aware partition: separate chunks for every module, along its route. Chunks have about equally many
    /// layers. Ranks that would be busiest for the representative microbatch, such as the rank of a head, get fewer.
    ///
    /// # Errors
    /// [`PartitionError`] if the model is not valid or the cost model lacks a figure.
    pub fn partition(&self) -> Result<Partition, PartitionError> {
        self.check()?;
        let sizes = sizes::sub_microbatches(self)?;
        let segments = sizes::segments(self, &sizes)?;
        let partition = interleave::place(self, &sizes, &segments)?;
        validate_partition(self.model, &partition)?;
        Ok(partition)
    }

    /// The partition of the baselines: the layers of all modules, in topological order, cut into `runs_per_rank * P` contiguous runs of
    /// about equal latency, run `i` on rank `i mod P`. Microbatches are not sliced.
    ///
    /// # Errors
    /// [`PartitionError::TooFewLayers`], and the errors of [`Partitioner::partition`].
    pub fn contiguous(&self, runs_per_rank: u32) -> Result<Partition, PartitionError> {
        self.runs(Route::Loop, runs_per_rank)
    }

    /// Contiguous runs along a route.
    fn runs(&self, route: Route, runs_per_rank: u32) -> Result<Partition, PartitionError> {
        self.check()?;
        let partition = contiguous::place(self, route, runs_per_rank.max(1))?;
        validate_partition(self.model, &partition)?;
        Ok(partition)
    }

    /// The partition with encoders on ranks of their own: the layers of `backbone` in `runs_per_rank` runs on each of the last ranks, those
    /// of all other modules in one run on each of the first `encoder_ranks`. Microbatches are not sliced.
    ///
    /// # Errors
    /// Same as [`Partitioner::contiguous`].
    pub fn separated(
        &self,
        backbone: ModuleId,
        encoder_ranks: u32,
        runs_per_rank: u32,
    ) -> Result<Partition, PartitionError> {
        self.check()?;
        let partition = separate::place(self, backbone, encoder_ranks, runs_per_rank.max(1))?;
        validate_partition(self.model, &partition)?;
        Ok(partition)
    }

    fn check(&self) -> Result<(), PartitionError> {
        self.model.validate()?;
        if self.ranks == 0 { Err(PartitionError::NoRanks) } else { Ok(()) }
    }

    /// The microbatch that loads are balanced for.
    fn representative(&self) -> MicrobatchMeta {
        let given = self.representative.clone();
        given.unwrap_or_else(|| self.model.filled(0.5))
    }
}
