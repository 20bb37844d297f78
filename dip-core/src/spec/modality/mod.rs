//! The properties of each modality. One file per modality implements [`Modality`].
//!
//! | file | modality |
//! |---|---|
//! | `vit` | vision encoder |
//! | `audio` | audio encoder |
//! | `decoder` | causal language model or text encoder |
//! | `t5` | text encoder of the T5 type |
//! | `dit` | diffusion transformer |
//! | `tiles` | any-resolution tiles of a vision encoder |
//! | `kind` | [`ModuleKind`], the list of them, and the place of modalities from other crates |

mod audio;
mod decoder;
mod dit;
mod kind;
mod t5;
mod tiles;
mod vit;

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

pub use audio::{AUDIO_KERNEL, AudioProjector, AudioSpec};
pub use decoder::DecoderSpec;
pub use dit::{DitSpec, STEP_EMBEDDING, WanSpec};
pub use kind::{ModuleKind, OtherModality};
pub use t5::T5Spec;
pub use tiles::TileSpec;
pub use vit::{NormKind, PixelRange, Tower, VitSpec, WindowSpec};

use crate::spec::batch::{ClipMeta, MicrobatchMeta};
use crate::spec::error::FieldError;
use crate::spec::model::{AttentionBias, ModelSpec, ModuleSpec};
use crate::spec::workload::{
    InstanceSpace, Workload, add, causal_block_pairs, document_pairs, square, triangle,
    window_block_pairs, window_pairs,
};

/// The settings of one modality, and the properties of its modules that the planner needs.
///
/// The defaults describe an encoder from another crate. Its instances are the entries of [`MicrobatchMeta::other`] under the name
/// of the module. Every row of an instance passes through the layers and attends to all rows of the same instance. An adapter
/// turns each instance into [`output_tokens`](Self::output_tokens) tokens of the decoder.
pub trait Modality: Any + Debug + Send + Sync {
    /// Name of the modality, as in `kind = { vit = {..} }`.
    fn name(&self) -> &str;

    /// The settings as text. Two modalities are equal if their names and settings are.
    fn settings(&self) -> String {
        format!("{self:?}")
    }

    /// Checks the settings of `module`.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        let _ = module;
        Ok(())
    }

    /// The instance space of `module` for a microbatch, and the number of its instances.
    fn instances(&self, module: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        let sizes = microbatch.sizes_of(&module.name);
        (InstanceSpace::Other(module.name.as_str().into()), sizes.len() as u32)
    }

    /// The loads of the instances of a microbatch, if they differ: sub-microbatches are cut by load. `None` if all instances count
    /// alike.
    fn instance_loads(
        &self,
        module: &ModuleSpec,
        microbatch: &MicrobatchMeta,
    ) -> Option<InstanceLoads> {
        let _ = (module, microbatch);
        None
    }

    /// The work of some instances of one microbatch.
    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let mut work = slice.empty_workload();
        let range = slice.instances.start as usize..slice.instances.end as usize;
        for &size in &slice.microbatch.sizes_of(&slice.module.name)[range] {
            add(&mut work.tokens, size);
            add(&mut work.attention_pairs, square(size));
            add(&mut work.output_tokens, self.output_tokens(size));
        }
        work.computed_pairs = work.attention_pairs;
        work
    }

    /// The number of decoder tokens of an instance with `size` rows.
    fn output_tokens(&self, size: u64) -> u64 {
        size
    }

    /// Tokens that the instances of a microbatch take in the packed sequence.
    fn sequence_tokens(&self, module: &ModuleSpec, microbatch: &MicrobatchMeta) -> u64 {
        let sizes = microbatch.sizes_of(&module.name);
        sizes.iter().fold(0, |sum, &size| sum.saturating_add(self.output_tokens(size)))
    }

    /// Weights before the first layer. `input_width` is the sum of the widths of all inputs of the module.
    fn start_parameters(&self, module: &ModuleSpec, input_width: u64) -> u64;

    /// Weights after the last layer. `output_width` is the width of the module's output.
    fn end_parameters(&self, module: &ModuleSpec, output_width: u64) -> u64 {
        module.adapter_width().saturating_mul(module.merged_width() + output_width)
    }

    /// Attention blocks of one layer: 2 if a layer also attends to the inputs of the module.
    fn attention_blocks(&self) -> u64 {
        1
    }

    /// Rows that are merged into one token by the adapter.
    fn merged_rows(&self) -> u64 {
        1
    }

    /// True if the attention of a layer stays inside windows.
    fn is_windowed(&self, layer: u32) -> bool {
        let _ = layer;
        false
    }

    /// Layers whose outputs the adapter also merges, ascending; each has an adapter of its own. The decoder adds these features
    /// to the outputs of its first layers.
    fn stacked_layers(&self) -> &[u32] {
        &[]
    }

    /// True if the module ends in an adapter, whose output has the width of the module's consumer.
    fn has_adapter(&self) -> bool {
        true
    }

    /// True if the module ends in a loss.
    fn has_loss(&self) -> bool {
        false
    }

    /// True if the feed-forward network has a gate by default.
    fn gated_ffn(&self) -> bool {
        false
    }

    /// The default biases of the attention.
    fn attention_bias(&self) -> AttentionBias {
        AttentionBias::All
    }

    /// Adds the instances of a typical microbatch, filled to `share` (0 to 1) of what `model` allows.
    fn fill(&self, at: &Filling<'_>, microbatch: &mut MicrobatchMeta) {
        let sizes = vec![TYPICAL_ROWS; at.part(TYPICAL_INSTANCES) as usize];
        microbatch.other.insert(at.module.name.clone(), sizes);
    }

    /// A microbatch that gives `module` about `tokens` tokens, as closely as its instances allow.
    fn microbatch_of(&self, module: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let other = [(module.name.clone(), vec![tokens])].into();
        MicrobatchMeta { other, ..MicrobatchMeta::default() }
    }
}

/// The instances of a modality from another crate in a full microbatch.
const TYPICAL_INSTANCES: u32 = 8;
/// Rows of an instance of a modality from another crate.
const TYPICAL_ROWS: u64 = 256;

/// How much the instances of a module count in the size of a sub-microbatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLoads {
    /// The load of an instance of the model's own size. The size of a sub-microbatch counts such instances.
    pub own: u64,
    /// The load of each instance.
    pub each: Vec<u64>,
}

/// Some instances of a module in one microbatch.
#[derive(Debug, Clone)]
pub struct ModuleSlice<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The module.
    pub module: &'a ModuleSpec,
    /// The microbatch.
    pub microbatch: &'a MicrobatchMeta,
    /// The instances, a range of those of [`Modality::instances`].
    pub instances: Range<u32>,
}

impl ModuleSlice<'_> {
    /// A workload of these instances with all sizes 0.
    pub fn empty_workload(&self) -> Workload {
        Workload { instances: self.instances.len() as u32, ..Workload::default() }
    }
}

/// The share of a module's instances in a typical microbatch.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The module.
    pub module: &'a ModuleSpec,
    /// Share of what the model allows, from 0 to 1.
    pub share: f64,
}

impl Filling<'_> {
    /// The share of `max`, rounded up.
    pub fn part(&self, max: u32) -> u32 {
        ((f64::from(max) * self.share).ceil() as u32).min(max)
    }
}

#[cfg(test)]
mod tests;
