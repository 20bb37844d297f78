//! The encoders of CLIP, SigLIP and Idefics3, up to the layer whose output is the features of an image.

use dip_core::hf::VISION;
use dip_core::{ModelSpec, ModuleSpec, VitSpec};

use super::{Prefixes, Table, TensorLayout, TensorPart};

/// The tensors of the module [`VISION`] without its adapter, but with the norm before it.
pub(super) fn add(table: &mut Table, spec: &ModuleSpec, prefixes: &Prefixes) {
    let Some(&VitSpec { patch_px, tower, .. }) = spec.kind.get() else { return };
    let (m, f, px) = (spec.hidden as usize, spec.ffn as usize, patch_px as usize);
    let q = spec.heads as usize * spec.head_dim() as usize;
    let embeddings = format!("{}embeddings.", prefixes.vision);
    let part = TensorPart { parameter: format!("{VISION}.patch_embed.weight"), rows: m };
    let patch = format!("{embeddings}patch_embedding.weight");
    table.push(patch, &[m, 3, px, px], TensorLayout::Columns, vec![part]);
    if tower.patch_bias() {
        let patch = format!("{embeddings}patch_embedding.bias");
        table.same(patch, &[m], format!("{VISION}.patch_embed.bias"));
    }
    let rows = spec.rows_per_image() as usize;
    let positions = format!("{embeddings}position_embedding.weight");
    table.same(positions, &[rows, m], format!("{VISION}.stem.positions"));
    if tower.class_token() {
        // The parameter is one row of m values; files hold it without the dimension of 1.
        table.same(format!("{embeddings}class_embedding"), &[m], format!("{VISION}.stem.class"));
        // The published files spell it so.
        let norm = format!("{}pre_layrnorm", prefixes.vision);
        table.layer_norm(&norm, m, &format!("{VISION}.stem.norm"));
    }
    if tower.end_norm() {
        let norm = format!("{}post_layernorm", prefixes.vision);
        table.layer_norm(&norm, m, &format!("{VISION}.merger.norm"));
    }
    for i in 0..spec.layers {
        let name = format!("{}encoder.layers.{i}", prefixes.vision);
        let ours = format!("{VISION}.layers.{i}");
        for (theirs, part, shape) in [
            ("self_attn.q_proj", "attention.query", [q, m]),
            ("self_attn.k_proj", "attention.key", [q, m]),
            ("self_attn.v_proj", "attention.value", [q, m]),
            ("self_attn.out_proj", "attention.output", [m, q]),
            ("mlp.fc1", "feed_forward.up", [f, m]),
            ("mlp.fc2", "feed_forward.down", [m, f]),
        ] {
            table.linear(&format!("{name}.{theirs}"), shape, true, &format!("{ours}.{part}"));
        }
        table.layer_norm(&format!("{name}.layer_norm1"), m, &format!("{ours}.attention_norm"));
        table.layer_norm(&format!("{name}.layer_norm2"), m, &format!("{ours}.feed_forward_norm"));
    }
}

/// True for a tensor after the layer whose output is the features of an image: later layers, last norm, pooling head.
pub(super) fn is_unused(name: &str, model: &ModelSpec, prefixes: &Prefixes) -> bool {
    let Some((_, spec)) = model.module(VISION) else { return false };
    if !spec.tower().learned_positions() {
        return false;
    }
    let Some(inner) = name.strip_prefix(prefixes.vision) else { return false };
    let layer = inner.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next());
    let later = layer.and_then(|i| i.parse::<u32>().ok()).is_some_and(|i| i >= spec.layers);
    later || inner.starts_with("post_layernorm.") || inner.starts_with("head.")
}
