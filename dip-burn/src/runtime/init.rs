//! The settings of a pipeline.

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleId, Partition, RankId};

use super::chunks::Chunks;
use super::connections::Connections;
use super::error::PipelineError;
use super::group::ProcessGrid;
use super::optimizer::OptimizerConfig;
use crate::model::{ChunkSpec, InitialWeights, Modalities, ModelError, Precision};
use crate::stage::ChunkStage;

/// The settings of a pipeline: model, partition and devices, and defaults for the rest.
pub struct PipelineInit<'a, B: Backend> {
    pub(super) model: &'a ModelSpec,
    pub(super) partition: &'a Partition,
    pub(super) devices: Vec<B::Device>,
    pub(super) threads_per_rank: usize,
    pub(super) precision: Precision,
    pub(super) weights: InitialWeights<'a>,
    pub(super) optimizer: OptimizerConfig,
    pub(super) modalities: Modalities<B>,
    pub(super) connections: Connections<B>,
}

impl<'a, B: Backend> PipelineInit<'a, B> {
    /// Takes one device for each rank of this process, replica by replica: in a run of one process with two devices per rank, there
    /// are two replicas. Ranks may share a device; on CPU each has its own compute threads.
    ///
    /// By default a rank has one compute thread, computes in f32, draws its weights from seed 0, and all ranks are threads of this
    /// process.
    pub fn new(model: &'a ModelSpec, partition: &'a Partition, devices: Vec<B::Device>) -> Self {
        Self {
            model,
            partition,
            devices,
            threads_per_rank: 1,
            precision: Precision::F32,
            weights: 0.into(),
            optimizer: OptimizerConfig::default(),
            modalities: Modalities::default(),
            connections: Connections::default(),
        }
    }

    /// Compute threads of each rank on CPU.
    #[must_use]
    pub fn with_threads_per_rank(mut self, threads: usize) -> Self {
        self.threads_per_rank = threads;
        self
    }

    /// The precision that layers compute in.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The initial weights.
    #[must_use]
    pub fn with_weights(mut self, weights: impl Into<InitialWeights<'a>>) -> Self {
        self.weights = weights.into();
        self
    }

    /// The optimiser.
    #[must_use]
    pub fn with_optimizer(mut self, optimizer: OptimizerConfig) -> Self {
        self.optimizer = optimizer;
        self
    }

    /// The modalities that can be trained, including modalities of other crates.
    #[must_use]
    pub fn with_modalities(mut self, modalities: Modalities<B>) -> Self {
        self.modalities = modalities;
        self
    }

    /// The connections between ranks, replicas and processes.
    #[must_use]
    pub fn with_connections(mut self, connections: Connections<B>) -> Self {
        self.connections = connections;
        self
    }

    /// The place of every rank among the processes.
    ///
    /// # Errors
    /// [`PipelineError::Devices`] if this process has too few or too many devices for its ranks.
    pub(super) fn grid(&self) -> Result<ProcessGrid, PipelineError> {
        let (ranks, devices) = (self.partition.ranks as usize, self.devices.len());
        let grid = match &self.connections.processes {
            Some(processes) => processes.grid,
            None => ProcessGrid::single(ranks, devices / ranks.max(1)),
        };
        let hosted = grid.hosted(self.connections.group.index()).len();
        if ranks == 0 || grid.ranks() != ranks || hosted == 0 || hosted != devices {
            return Err(PipelineError::Devices { ranks: self.partition.ranks, hosted, devices });
        }
        Ok(grid)
    }

    /// The chunks of a rank, on its device.
    pub(super) fn chunks_of(
        &self,
        rank: RankId,
        device: &B::Device,
    ) -> Result<Chunks<B>, ModelError> {
        self.precision.check_supported::<B>(device)?;
        let mut chunks = Chunks::new();
        for (m, module) in self.partition.modules.iter().enumerate() {
            for chunk in module.chunks.iter().filter(|chunk| chunk.rank == rank) {
                let (module, layers) = (ModuleId::from(m), chunk.layers.clone());
                let spec = ChunkSpec { model: self.model, module, layers };
                let stage = ChunkStage::new(&spec, &self.modalities, self.weights, device)?
                    .with_precision(self.precision);
                chunks.insert((self.model.modules[m].name.clone(), chunk.segment), stage);
            }
        }
        Ok(chunks)
    }
}
