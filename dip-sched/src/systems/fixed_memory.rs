//! Costs under memory strategies that are fixed before training.

use std::collections::BTreeMap;
use std::sync::Arc;

use dip_core::{
    Bytes, ChunkQuery, CostError, CostModel, ModuleId, RankId, Seconds, StageCost, StageQuery,
    Strategy, Workload,
};

/// One strategy per chunk, by its module and first layer.
pub(super) type ChunkStrategies = BTreeMap<(ModuleId, u32), Strategy>;

/// A cost model that offers each chunk its fixed strategy only.
pub(super) struct FixedMemory {
    pub(super) inner: Arc<dyn CostModel>,
    pub(super) strategies: ChunkStrategies,
}

impl CostModel for FixedMemory {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        self.inner.stage(query)
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        self.inner.transfer(from, to, bytes)
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        self.inner.static_bytes(chunk)
    }

    fn working_bytes(&self, chunk: &ChunkQuery<'_>, workload: Workload) -> Bytes {
        self.inner.working_bytes(chunk, workload)
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        self.inner.update(chunk)
    }

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let keep = Strategy::keep();
        let strategy = self.strategies.get(&(chunk.module, chunk.layers.start)).unwrap_or(&keep);
        Ok(vec![self.inner.stage(&StageQuery { chunk: chunk.clone(), workload, strategy })?])
    }
}
