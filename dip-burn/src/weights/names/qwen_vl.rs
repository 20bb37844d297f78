//! The vision encoders of Qwen2-VL and Qwen2.5-VL.

use dip_core::hf::{LANGUAGE, VISION};
use dip_core::{ModelSpec, VitSpec};

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

/// The tensors of the module [`VISION`]. Query, key and value of a layer are one tensor.
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let Some((_, spec)) = model.module(VISION) else { return };
    let Some(&VitSpec { patch_px, tower, norm, .. }) = spec.kind.get() else { return };
    let (m, f, px) = (spec.hidden as usize, spec.ffn as usize, patch_px as usize);
    let q = spec.heads as usize * spec.head_dim() as usize;
    let patch = format!("{}patch_embed.proj.weight", prefixes.vision);
    let part = TensorPart { parameter: format!("{VISION}.patch_embed.weight"), rows: m };
    table.push(patch, &[m, 3, tower.frames() as usize, px, px], TensorLayout::Columns, vec![part]);
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
        let names = if spec.gated_ffn() { &GATED[..] } else { &PLAIN };
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
    let (name, ours) = (prefixes.adapter, format!("{VISION}.merger"));
    table.norm(&format!("{name}ln_q"), m, norm, &format!("{ours}.norm"));
    table.linear(&format!("{name}mlp.0"), [inner, merged], true, &format!("{ours}.fc1"));
    table.linear(&format!("{name}mlp.2"), [output, inner], true, &format!("{ours}.fc2"));
}
