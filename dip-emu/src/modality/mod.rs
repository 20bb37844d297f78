//! The operators of each part of a module: its start, a layer, and its end. One file per modality implements
//! [`ModalityOperators`].

mod audio;
mod builder;
mod decoder;
mod dit;
mod plain;
mod t5;
mod vit;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use builder::{PartBuilder, Product, stream_bytes};
use dip_core::profile::Part;
use dip_core::{ModelSpec, ModuleId, ModuleKind, Workload};

use crate::operators::Dag;

/// How layers are spread over devices, and the width of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceLayout {
    /// The number of devices that share a layer.
    pub tensor: u32,
    /// Bytes of one value.
    pub element_bytes: u32,
}

/// The operators of the modules of a modality.
pub trait ModalityOperators: Send + Sync {
    /// Adds the operators before the first layer. `input_width` is the sum of the widths of all inputs of the module.
    fn start(&self, part: &mut PartBuilder<'_>, input_width: u64);

    /// Adds the operators of one layer: by default self-attention and a feed-forward network.
    fn layer(&self, part: &mut PartBuilder<'_>) {
        part.transformer_layer();
    }

    /// Adds the operators after the last layer: by default an adapter to `output_width`.
    fn end(&self, part: &mut PartBuilder<'_>, output_width: u64) {
        part.adapter(output_width);
    }
}

/// The operators of all modalities, built-in and added.
#[derive(Clone, Default)]
pub struct OperatorTable {
    others: BTreeMap<String, Arc<dyn ModalityOperators>>,
}

impl OperatorTable {
    /// Adds the operators of the modality `name` from another crate.
    pub fn add(&mut self, name: &str, operators: Arc<dyn ModalityOperators>) {
        self.others.insert(name.to_owned(), operators);
    }

    /// The operators of a modality. This is the only list of modalities. Unknown ones have plain layers.
    fn of<'a>(&'a self, kind: &'a ModuleKind) -> &'a dyn ModalityOperators {
        match kind {
            ModuleKind::Vit(vit) => vit,
            ModuleKind::Audio(audio) => audio,
            ModuleKind::Decoder(decoder) => decoder,
            ModuleKind::Dit(dit) => dit,
            ModuleKind::T5(t5) => t5,
            ModuleKind::Other(_) => {
                let added = self.others.get(kind.modality().name());
                added.map_or(&plain::Plain, |operators| &**operators)
            }
        }
    }

    /// The operators of a part of a module. [`Part::Stage`] has none.
    pub fn operators(&self, query: &PartQuery<'_>) -> Dag {
        let PartQuery { model, module, part, work, layout } = *query;
        let spec = &model.modules[module.index()];
        let operators = self.of(&spec.kind);
        let work = if part == Part::Windowed { work.in_windows() } else { work };
        let mut builder = PartBuilder::new(spec, work, layout);
        match part {
            Part::Stage => {}
            Part::First => {
                let inputs = model.inputs_of(module);
                let widths = inputs.iter().map(|m| u64::from(model.modules[m.index()].hidden));
                operators.start(&mut builder, widths.sum());
            }
            Part::Layer | Part::Windowed => operators.layer(&mut builder),
            Part::Last => operators.end(&mut builder, model.output_width(module)),
        }
        builder.finish()
    }
}

/// One part of a module with the workload of a sub-microbatch.
#[derive(Debug, Clone, Copy)]
pub struct PartQuery<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The module.
    pub module: ModuleId,
    /// The part.
    pub part: Part,
    /// The workload.
    pub work: Workload,
    /// The layout of the layers.
    pub layout: DeviceLayout,
}

#[cfg(test)]
mod tests;
