//! The vision encoders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

use dip_core::hf::{LANGUAGE, VISION};
use dip_core::{ModelSpec, Tower, VitSpec};

use super::{Prefixes, Table, TensorLayout, TensorPart};

pub(super) const PREFIXES: [Prefixes; 2] = [
    Prefixes { text: "model.", head: "lm_head.", vision: "visual.", adapter: "visual.merger." },
    Prefixes {
        text: "model.language_model.",
        head: "lm_head.",
        vision: "model.visual.",
        adapter: "model.visual.merger.",
    },
];

/// The layers of a feed-forward network without a gate, and with one.
const PLAIN: [(&str, &str); 2] = [("fc1", "up"), ("fc2", "down")];
const GATED: [(&str, &str); 3] = [("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down")];
/// The same layers in Qwen3-VL.
const LINEAR: [(&str, &str); 2] = [("linear_fc1", "up"), ("linear_fc2", "down")];

/// Names of the norm and the two layers of an adapter.
const MERGER: [&str; 3] = ["ln_q", "mlp.0", "mlp.2"];
const MERGER_3: [&str; 3] = ["norm", "linear_fc1", "linear_fc2"];

/// The tensors of the module [`VISION`]. Query, key and value of a layer are one tensor.
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let Some((_, spec)) = model.module(VISION) else { return };
    let Some(vit) = spec.kind.get::<VitSpec>() else { return };
    let (patch_px, tower, norm) = (vit.patch_px, vit.tower, vit.norm);
    let is_third = tower == Tower::Qwen3Vl;
    let (m, f, px) = (spec.hidden as usize, spec.ffn as usize, patch_px as usize);
    let q = spec.heads as usize * spec.head_dim() as usize;
    let patch = format!("{}patch_embed.proj.weight", prefixes.vision);
    let part = TensorPart { parameter: format!("{VISION}.patch_embed.weight"), rows: m };
    table.push(patch, &[m, 3, tower.frames() as usize, px, px], TensorLayout::Columns, vec![part]);
    if tower.patch_bias() {
        let patch = format!("{}patch_embed.proj.bias", prefixes.vision);
        table.same(patch, &[m], format!("{VISION}.patch_embed.bias"));
    }
    if let Some(side) = vit.position_side {
        let positions = format!("{}pos_embed.weight", prefixes.vision);
        let shape = [(side * side) as usize, m];
        table.same(positions, &shape, format!("{VISION}.positions.weight"));
    }
    for i in 0..spec.layers {
        let (name, ours) =
            (format!("{}blocks.{i}", prefixes.vision), format!("{VISION}.layers.{i}"));
        let qkv = |kind: &str| {
            let part = |projection| TensorPart {
                parameter: format!("{ours}.attention.{projection}.{kind}"),
                rows: q,
            };
            ["query", "key", "value"].map(part).to_vec()
        };
        table.push(
            format!("{name}.attn.qkv.weight"),
            &[3 * q, m],
            TensorLayout::Columns,
            qkv("weight"),
        );
        table.push(format!("{name}.attn.qkv.bias"), &[3 * q], TensorLayout::Rows, qkv("bias"));
        table.linear(
            &format!("{name}.attn.proj"),
            [m, q],
            true,
            &format!("{ours}.attention.output"),
        );
        let names = match spec.gated_ffn() {
            true => &GATED[..],
            false if is_third => &LINEAR,
            false => &PLAIN,
        };
        for &(theirs, part) in names {
            let shape = if part == "down" { [m, f] } else { [f, m] };
            let ours = format!("{ours}.feed_forward.{part}");
            table.linear(&format!("{name}.mlp.{theirs}"), shape, true, &ours);
        }
        table.norm(&format!("{name}.norm1"), m, norm, &format!("{ours}.attention_norm"));
        table.norm(&format!("{name}.norm2"), m, norm, &format!("{ours}.feed_forward_norm"));
    }
    let (merged, inner) = (spec.merged_width() as usize, spec.adapter_width() as usize);
    let output = model.module(LANGUAGE).map_or(m, |(_, language)| language.hidden as usize);
    let mut merger = |name: &str, ours: String, norm_width: usize| {
        let [of_norm, fc1, fc2] = if is_third { MERGER_3 } else { MERGER };
        table.norm(&format!("{name}{of_norm}"), norm_width, norm, &format!("{ours}.norm"));
        table.linear(&format!("{name}{fc1}"), [inner, merged], true, &format!("{ours}.fc1"));
        table.linear(&format!("{name}{fc2}"), [output, inner], true, &format!("{ours}.fc2"));
    };
    merger(prefixes.adapter, format!("{VISION}.merger"), m);
    for i in 0..vit.stacked_layers.len() {
        let name = format!("{}deepstack_merger_list.{i}.", prefixes.vision);
        merger(&name, format!("{VISION}.stacked.{i}"), merged);
    }
}
