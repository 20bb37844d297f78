//! Your own cost model, in one trait: a table of measured seconds per token.
//!
//! `cargo run --release --no-default-features --example custom_cost`

use std::sync::Arc;

use dip::plan::{ChunkQuery, CostError, RankId, StageCost, StageQuery};
use dip::prelude::*;

/// Seconds of the forward of one layer for one token, by module.
struct Table(&'static [(&'static str, f64)]);

impl CostModel for Table {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let chunk = &query.chunk;
        let module = &chunk.model.modules[chunk.module.index()];
        let row = self.0.iter().find(|(name, _)| *name == module.name);
        let &(_, layer_s) = row.ok_or_else(|| CostError::Unknown {
            module: module.name.clone(),
            what: "any stage".into(),
            remedy: "add a row to the table".into(),
        })?;
        let forward = Seconds(layer_s * query.workload.tokens as f64 * chunk.layers.len() as f64);
        let bytes = query.workload.tokens * u64::from(module.hidden);
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward,
            backward: if chunk.runs_backward { forward * 2.0 } else { Seconds::ZERO },
            weight: None,
            activation_bytes: Bytes(34 * bytes * chunk.layers.len() as u64),
            output_bytes: Bytes(2 * bytes),
        })
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        if from == to { Seconds::ZERO } else { Seconds(bytes.0 as f64 / 25e9) }
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes(0)
    }
}

fn main() -> anyhow::Result<()> {
    let (model, mut cluster) =
        (presets::model("vlm-tiny").unwrap(), presets::cluster("cpu").unwrap());
    cluster.device.memory_bytes = Bytes(64 << 20);
    let cost = Table(&[("vision", 3e-6), ("language", 5e-6)]);
    let planning = Planning::on_ranks(&model, &cluster, Arc::new(cost), 2)?;
    let text = "{\"images\":2,\"text_tokens\":180}\n{\"text_tokens\":256}\n{\"images\":8,\"text_tokens\":90}\n";
    let batch = &BatchMeta::from_jsonl(text)?[0];
    let plan = planning.plan(batch, &Dip)?;
    println!(
        "{} in {}, {:.2} % over the bound",
        plan.graph.model,
        plan.predicted.makespan_s,
        100.0 * plan.gap()
    );
    Ok(())
}
