//! The operators of each part of a module: its start, one layer, its end. One file a modality, all behind
//! [`ModalityOperators`].

mod audio;
mod builder;
mod decoder;
mod dit;
mod plain;
mod vit;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use builder::{PartBuilder, Product, stream_bytes};
use dip_core::profile::Part;
use dip_core::{ModelSpec, ModuleId, ModuleKind, Workload};

use crate::operators::Dag;

/// How a layer is spread and how wide its values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Devices that share a layer.
    pub tensor: u32,
    /// Bytes of one value.
    pub element_bytes: u32,
}

/// The operators of the modules of one modality.
pub trait ModalityOperators: Send + Sync {
    /// Adds the operators before the first layer. `input_width` is the width of all inputs of the module together.
    fn start(&self, part: &mut PartBuilder<'_>, input_width: u64);

    /// Adds the operators of one layer: self-attention and a feed-forward network unless the modality has another layer.
    fn layer(&self, part: &mut PartBuilder<'_>) {
        part.transformer_layer();
    }

    /// Adds the operators after the last layer: an adapter to `output_width` unless the modality has another end.
    fn end(&self, part: &mut PartBuilder<'_>, output_width: u64) {
        part.adapter(output_width);
    }
}

/// The operators of every modality: of the built-in ones, and of those that a caller adds.
#[derive(Clone, Default)]
pub struct OperatorTable {
    others: BTreeMap<String, Arc<dyn ModalityOperators>>,
}

impl OperatorTable {
    /// Adds the operators of the modality `name`, which comes from another crate.
    pub fn add(&mut self, name: &str, operators: Arc<dyn ModalityOperators>) {
        self.others.insert(name.to_owned(), operators);
    }

    /// The operators of a modality: the one place that lists them all. Modalities that nobody added get plain layers.
    fn of<'a>(&'a self, kind: &'a ModuleKind) -> &'a dyn ModalityOperators {
        match kind {
            ModuleKind::Vit(vit) => vit,
            ModuleKind::Audio(audio) => audio,
            ModuleKind::Decoder(decoder) => decoder,
            ModuleKind::Dit(dit) => dit,
            ModuleKind::Other(_) => {
                let added = self.others.get(kind.modality().name());
                added.map_or(&plain::Plain, |operators| &**operators)
            }
        }
    }

    /// The operators of one part of a module for one sub-microbatch. [`Part::Stage`] has none.
    pub fn operators(&self, of: &PartQuery<'_>) -> Dag {
        let PartQuery { model, module, part, work, layout } = *of;
        let spec = &model.modules[module.index()];
        let operators = self.of(&spec.kind);
        let mut builder = PartBuilder::new(spec, work, layout);
        match part {
            Part::Stage => {}
            Part::First => {
                let inputs = model.inputs_of(module);
                let widths = inputs.iter().map(|m| u64::from(model.modules[m.index()].hidden));
                operators.start(&mut builder, widths.sum());
            }
            Part::Layer => operators.layer(&mut builder),
            Part::Last => operators.end(&mut builder, model.output_width(module)),
        }
        builder.finish()
    }
}

/// One part of a module, with the work of one sub-microbatch.
#[derive(Debug, Clone, Copy)]
pub struct PartQuery<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The module.
    pub module: ModuleId,
    /// The part.
    pub part: Part,
    /// The work.
    pub work: Workload,
    /// How the layers are spread.
    pub layout: Layout,
}

#[cfg(test)]
mod tests;
