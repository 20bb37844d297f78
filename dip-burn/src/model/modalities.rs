//! The modalities that can be trained, and the registry for modalities of other crates.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::profile::Part;
use dip_core::{Modality, ModelSpec, ModuleId, ModuleSpec};

use super::audio::AudioModality;
use super::chunk::{AnyChunk, InputSlice};
use super::decoder::DecoderModality;
use super::dit::DitModality;
use super::probe::{KeptGrowth, ProbeInput, ProbeSpec};
use super::t5::T5Modality;
use super::vit::VitModality;
use super::{Init, ModelError};
use crate::batch::Microbatch;

/// A modality that can be trained: its chunks, and the microbatches to measure them on.
pub trait TrainableModality<B: Backend>: Send + Sync {
    /// Builds a chunk with weights from `init`.
    ///
    /// # Errors
    /// [`ModelError`] if a field of the module is not supported.
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError>;

    /// Instances of a module in a microbatch.
    fn instances(&self, module: &ModuleSpec, microbatch: &Microbatch) -> u32 {
        microbatch.features.get(&module.name).map_or(0, |all| all.len() as u32)
    }

    /// The tokens in the packed sequence that hold the output of each of some instances, in their order.
    fn places(
        &self,
        module: &ModuleSpec,
        microbatch: &Microbatch,
        instances: &Range<u32>,
    ) -> Vec<Range<u32>> {
        let Some(features) = microbatch.features.get(&module.name) else { return Vec::new() };
        let features = &features[instances.start as usize..instances.end as usize];
        features.iter().map(|f| f.offset..f.offset + f.tokens).collect()
    }

    /// Numbers of instances that a module is measured with, ascending.
    fn measured_counts(&self, model: &ModelSpec) -> Vec<u32> {
        let _ = model;
        vec![1, 2, 4]
    }

    /// The module with equal layers, once for each kind of layer that it has. The first gives the times of all parts, the others
    /// only those of their layer.
    fn layer_kinds(&self, module: &ModuleSpec) -> Vec<(Part, ModuleSpec)> {
        vec![(Part::Layer, module.clone())]
    }

    /// The microbatch that a module is measured on.
    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch;

    /// Rows that pass through the layers in the probe.
    fn rows(&self, probe: &ProbeSpec<'_>) -> usize;

    /// The inputs of the first chunk in the probe `microbatch`.
    fn inputs(&self, probe: &ProbeSpec<'_>, microbatch: &Microbatch) -> Vec<ProbeInput> {
        let _ = (probe, microbatch);
        Vec::new()
    }

    /// Rows of the tensor between two chunks in the probe `microbatch`.
    fn inner_rows(&self, probe: &ProbeSpec<'_>, microbatch: &Microbatch) -> usize {
        let _ = microbatch;
        self.rows(probe)
    }

    /// The sizes that determine the kept activations.
    fn kept_growth(&self, model: &ModelSpec) -> KeptGrowth {
        let _ = model;
        KeptGrowth::Rows
    }
}

/// A chunk to build: consecutive layers of a module.
#[derive(Debug, Clone)]
pub struct ChunkSpec<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The module.
    pub module: ModuleId,
    /// The layers.
    pub layers: Range<u32>,
}

impl<'a> ChunkSpec<'a> {
    /// All layers of a module.
    pub fn whole(model: &'a ModelSpec, module: ModuleId) -> Self {
        Self { model, module, layers: 0..model.modules[module.index()].layers }
    }

    /// The module.
    pub fn module(&self) -> &'a ModuleSpec {
        &self.model.modules[self.module.index()]
    }

    /// The settings of the module, which is of modality `M`.
    ///
    /// # Errors
    /// [`ModelError::Kind`] if it is of another modality.
    pub fn settings<M: Modality>(&self) -> Result<&'a M, ModelError> {
        let module = self.module();
        module.kind.get().ok_or_else(|| ModelError::Kind {
            module: module.name.clone(),
            kind: module.kind.modality().name().to_owned(),
            trainable: std::any::type_name::<M>().to_owned(),
        })
    }

    /// True if the chunk begins the module.
    pub fn is_first(&self) -> bool {
        self.layers.start == 0
    }

    /// True if the chunk ends the module.
    pub fn is_last(&self) -> bool {
        self.layers.end == self.module().layers
    }

    /// Width of the module's output: the width of its first consumer.
    pub fn output_width(&self) -> usize {
        let consumers = self.model.consumers_of(self.module);
        let consumer = consumers.first().map(|c| self.model.modules[c.index()].hidden);
        consumer.unwrap_or(self.module().hidden) as usize
    }
}

/// The modalities that can be trained, by name.
#[derive(Clone)]
pub struct Modalities<B: Backend>(BTreeMap<String, Arc<dyn TrainableModality<B>>>);

/// The built-in modalities: the one place that lists them.
impl<B: Backend> Default for Modalities<B> {
    fn default() -> Self {
        Self(BTreeMap::new())
            .with("vit", VitModality)
            .with("audio", AudioModality)
            .with("decoder", DecoderModality)
            .with("dit", DitModality)
            .with("t5", T5Modality)
    }
}

impl<B: Backend> Modalities<B> {
    /// Adds a modality under the name that its [`dip_core::Modality`] has.
    #[must_use]
    pub fn with(mut self, name: &str, modality: impl TrainableModality<B> + 'static) -> Self {
        self.0.insert(name.to_owned(), Arc::new(modality));
        self
    }

    /// The modality of a module.
    ///
    /// # Errors
    /// [`ModelError::Kind`] if it cannot be trained.
    pub fn of(&self, module: &ModuleSpec) -> Result<&dyn TrainableModality<B>, ModelError> {
        self.shared(module).map(|modality| &**modality)
    }

    fn shared(&self, module: &ModuleSpec) -> Result<&Arc<dyn TrainableModality<B>>, ModelError> {
        let kind = module.kind.modality().name();
        self.0.get(kind).ok_or_else(|| ModelError::Kind {
            module: module.name.clone(),
            kind: kind.to_owned(),
            trainable: self.0.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Builds a chunk.
    ///
    /// # Errors
    /// [`ModelError`] if the modality of the module cannot be trained or a field is not supported.
    pub fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        self.of(chunk.module())?.build(chunk, init)
    }
}

/// A module upstream of another, as its consumer sees it.
#[derive(Clone)]
pub(crate) struct Upstream<B: Backend> {
    /// The module.
    pub module: ModuleId,
    /// Its name.
    pub name: Arc<str>,
    spec: ModuleSpec,
    modality: Arc<dyn TrainableModality<B>>,
}

impl<B: Backend> Upstream<B> {
    /// The upstream modules of a module.
    ///
    /// # Errors
    /// [`ModelError::Kind`] if the modality of one cannot be trained.
    pub fn of(
        model: &ModelSpec,
        module: ModuleId,
        modalities: &Modalities<B>,
    ) -> Result<Vec<Self>, ModelError> {
        let one = |module: ModuleId| {
            let spec = model.modules[module.index()].clone();
            let modality = modalities.shared(&spec)?.clone();
            Ok(Self { module, name: spec.name.as_str().into(), spec, modality })
        };
        model.inputs_of(module).into_iter().map(one).collect()
    }

    /// Some of its instances as an input of its consumer.
    pub fn slice(&self, microbatch: &Microbatch, instances: Range<u32>) -> InputSlice {
        let places = self.modality.places(&self.spec, microbatch, &instances);
        InputSlice { module: self.name.clone(), instances, places }
    }
}
