//! Idefics3 and SmolVLM: a SigLIP encoder with a norm at its end, and an adapter of one matrix.

use dip_core::ModelSpec;
use dip_core::hf::{LANGUAGE, VISION};

use super::{Prefixes, Table, TensorLayout, TensorPart, clip};

pub(super) const PREFIXES: [Prefixes; 1] = [Prefixes {
    text: "model.text_model.",
    head: "lm_head.",
    vision: "model.vision_model.",
    adapter: "model.connector.modality_projection.",
}];

/// The tensors of the module [`VISION`] with its adapter.
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let Some((_, spec)) = model.module(VISION) else { return };
    clip::add(table, spec, prefixes);
    let merged = spec.merged_width() as usize;
    let output = model.module(LANGUAGE).map_or(merged, |(_, language)| language.hidden as usize);
    let part = TensorPart { parameter: format!("{VISION}.merger.fc1.weight"), rows: output };
    let name = format!("{}proj.weight", prefixes.adapter);
    table.push(name, &[output, merged], TensorLayout::Columns, vec![part]);
}
