//! A cost model: every token of a layer takes a microsecond forward, and two backward.

use dip::plan::{Bytes, ChunkQuery, CostError, CostModel, RankId, Seconds, StageCost, StageQuery};

use crate::uses::Uses;

const SECONDS_PER_TOKEN: f64 = 1e-6;

pub struct Table(pub Uses);

impl CostModel for Table {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        self.0.add("cost model");
        let layers = query.chunk.layers.len() as u64;
        let tokens = query.workload.tokens;
        let forward = Seconds(SECONDS_PER_TOKEN * (tokens * layers) as f64);
        let backward = if query.chunk.runs_backward { forward * 2.0 } else { Seconds::ZERO };
        let hidden = u64::from(query.chunk.model.modules[query.chunk.module.index()].hidden);
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward,
            backward,
            weight: None,
            activation_bytes: Bytes(64 * tokens * hidden * layers),
            output_bytes: Bytes(4 * tokens * hidden),
        })
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        if from == to { Seconds::ZERO } else { Seconds(bytes.0 as f64 / 10e9) }
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes(0)
    }
}
