//! LLaVA, LLaVA-NeXT and LLaVA-OneVision: a CLIP or SigLIP encoder, an adapter of two layers, and the end of a row of tiles.

use dip_core::hf::{LANGUAGE, VISION};
use dip_core::{ModelSpec, VitSpec};

use super::{Prefixes, Table, clip};

pub(super) const PREFIXES: [Prefixes; 4] = [
    Prefixes {
        text: "language_model.model.",
        head: "language_model.lm_head.",
        vision: "vision_tower.vision_model.",
        adapter: "multi_modal_projector.",
    },
    Prefixes {
        text: "language_model.model.",
        head: "language_model.lm_head.",
        vision: "vision_tower.",
        adapter: "multi_modal_projector.",
    },
    Prefixes {
        text: "model.language_model.",
        head: "lm_head.",
        vision: "model.vision_tower.vision_model.",
        adapter: "model.multi_modal_projector.",
    },
    Prefixes {
        text: "model.language_model.",
        head: "lm_head.",
        vision: "model.vision_tower.",
        adapter: "model.multi_modal_projector.",
    },
];

/// The tensors of the module [`VISION`] with its adapter.
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let Some((_, spec)) = model.module(VISION) else { return };
    clip::add(table, spec, prefixes);
    let (input, inner) = (spec.merged_width() as usize, spec.adapter_width() as usize);
    let output = model.module(LANGUAGE).map_or(inner, |(_, language)| language.hidden as usize);
    let (name, ours) = (prefixes.adapter, format!("{VISION}.merger"));
    table.linear(&format!("{name}linear_1"), [inner, input], true, &format!("{ours}.fc1"));
    table.linear(&format!("{name}linear_2"), [output, inner], true, &format!("{ours}.fc2"));
    let has_tiles = spec.kind.get::<VitSpec>().is_some_and(|vit| vit.tiles.is_some());
    if has_tiles {
        // The parameter is one row; files hold it without the dimension of 1.
        let outer = name.trim_end_matches("multi_modal_projector.");
        table.same(format!("{outer}image_newline"), &[output], format!("{VISION}.newline"));
    }
}
