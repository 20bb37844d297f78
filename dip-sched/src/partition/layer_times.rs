//! The seconds of the layers of a module: the first layer with the embedding, the last with the head or adapter, and the others.

use dip_core::{ChunkQuery, CostError, MicrobatchMeta, ModuleId, StageQuery, Strategy};

use super::Partitioner;

/// Seconds of the layers of a module, forward and backward together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct LayerTimes {
    pub(super) layers: u32,
    /// A middle layer.
    pub(super) layer_s: f64,
    /// What the first layer takes on top of a middle layer.
    pub(super) first_s: f64,
    /// What the last layer takes on top of a middle layer.
    pub(super) last_s: f64,
}

impl LayerTimes {
    /// Seconds of the layers `from..to`.
    pub(super) fn of(&self, from: u32, to: u32) -> f64 {
        let ends = if from == 0 { self.first_s } else { 0.0 };
        let ends = ends + if to == self.layers { self.last_s } else { 0.0 };
        f64::from(to - from) * self.layer_s + ends
    }

    /// Seconds of the whole module.
    pub(super) fn total(&self) -> f64 {
        self.of(0, self.layers)
    }

    /// The times of `passes` passes.
    pub(super) fn scaled(self, passes: f64) -> Self {
        Self {
            layer_s: self.layer_s * passes,
            first_s: self.first_s * passes,
            last_s: self.last_s * passes,
            ..self
        }
    }
}

/// The layer times of a module for the first `instances` of a microbatch; zero if there are none.
pub(super) fn layer_times(
    partitioner: &Partitioner<'_>,
    module: ModuleId,
    meta: &MicrobatchMeta,
    instances: u32,
) -> Result<LayerTimes, CostError> {
    let spec = &partitioner.model.modules[module.index()];
    let layers = spec.layers;
    if instances == 0 {
        return Ok(LayerTimes { layers, ..LayerTimes::default() });
    }
    let workload = partitioner.model.workload(module, meta, 0..instances);
    let keep = Strategy::keep();
    let seconds_of = |range: std::ops::Range<u32>| {
        let chunk = ChunkQuery::new(partitioner.model, module, range);
        let cost = partitioner.cost.stage(&StageQuery { chunk, workload, strategy: &keep })?;
        Ok::<f64, CostError>(cost.forward.0 + cost.backward.0)
    };
    if layers == 1 {
        // The only layer is the first and the last.
        let only = seconds_of(0..1)?;
        return Ok(LayerTimes { layers, layer_s: only, first_s: 0.0, last_s: 0.0 });
    }
    let (first, last) = (seconds_of(0..1)?, seconds_of(layers - 1..layers)?);
    let middle = if layers > 2 { seconds_of(1..2)? } else { first.min(last) };
    Ok(LayerTimes { layers, layer_s: middle, first_s: first - middle, last_s: last - middle })
}
