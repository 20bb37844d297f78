//! Costs for partitions by parameters instead of seconds.

use dip_core::{Bytes, ChunkQuery, CostError, CostModel, RankId, Seconds, StageCost, StageQuery};

/// A cost model in which a stage takes one second per parameter.
pub(super) struct ParameterCost;

impl CostModel for ParameterCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward: Seconds(query.chunk.parameters() as f64),
            backward: Seconds::ZERO,
            weight: None,
            activation_bytes: Bytes::ZERO,
            output_bytes: Bytes::ZERO,
        })
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes::ZERO
    }
}
