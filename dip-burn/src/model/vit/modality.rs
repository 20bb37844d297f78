//! How vision encoders are built and measured.

use std::ops::Range;

use burn::tensor::backend::Backend;
use dip_core::profile::Part;
use dip_core::{ModelSpec, ModuleSpec, VitSpec, WindowSpec};

use super::VitChunk;
use crate::batch::Microbatch;
use crate::model::probe::counts_up_to;
use crate::model::{
    AnyChunk, ChunkSpec, Init, KeptGrowth, ModelError, ProbeImages, ProbeSpec, TrainableModality,
};

/// Vision encoders in the table of modalities.
#[derive(Debug, Clone, Copy, Default)]
pub struct VitModality;

impl<B: Backend> TrainableModality<B> for VitModality {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        Ok(Box::new(VitChunk::init(chunk, chunk.settings()?, init)?))
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &Microbatch) -> u32 {
        microbatch.images.len() as u32
    }

    fn places(
        &self,
        _: &ModuleSpec,
        microbatch: &Microbatch,
        instances: &Range<u32>,
    ) -> Vec<Range<u32>> {
        let range = instances.start as usize..instances.end as usize;
        range.flat_map(|image| microbatch.image_runs(image)).collect()
    }

    fn measured_counts(&self, model: &ModelSpec) -> Vec<u32> {
        counts_up_to(model.max_images.max(2))
    }

    /// Layers with full attention, and layers with windows. Features from inside the encoder cost as much as its adapter.
    fn layer_kinds(&self, module: &ModuleSpec) -> Vec<(Part, ModuleSpec)> {
        let Some(vit) = module.kind.get::<VitSpec>() else { return Vec::new() };
        let plain = VitSpec { stacked_layers: Vec::new(), ..vit.clone() };
        let with = |vit: VitSpec| ModuleSpec { kind: vit.into(), ..module.clone() };
        let windowed = plain.window.clone().map(|window| {
            let window = Some(WindowSpec { full_layers: Vec::new(), ..window });
            (Part::Windowed, with(VitSpec { window, ..plain.clone() }))
        });
        let full = (Part::Layer, with(VitSpec { window: None, ..plain }));
        std::iter::once(full).chain(windowed).collect()
    }

    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        probe.packed_sequence(probe.instances as usize)
    }

    fn kept_growth(&self, model: &ModelSpec) -> KeptGrowth {
        match ProbeImages::typical(model) {
            ProbeImages::Own => KeptGrowth::Rows,
            _ => KeptGrowth::Images,
        }
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        probe.work_of_images().tokens as usize
    }
}
