//! The audio encoder of Qwen2-Audio, and its projector.

use dip_core::hf::{AUDIO, LANGUAGE};
use dip_core::{AudioSpec, ModelSpec};

use super::{Prefixes, Table, TensorLayout, TensorPart};

pub(super) const PREFIXES: [Prefixes; 2] = [
    Prefixes {
        text: "language_model.model.",
        head: "language_model.lm_head.",
        vision: "audio_tower.",
        adapter: "multi_modal_projector.",
    },
    Prefixes {
        text: "model.language_model.",
        head: "lm_head.",
        vision: "model.audio_tower.",
        adapter: "model.multi_modal_projector.",
    },
];

/// Rows that a convolution reads.
const WIDTH: usize = 3;

/// The tensors of the module [`AUDIO`].
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let Some((_, spec)) = model.module(AUDIO) else { return };
    let Some(audio) = spec.kind.get::<AudioSpec>() else { return };
    let (m, f, tower) = (spec.hidden as usize, spec.ffn as usize, prefixes.vision);
    for (conv, channels) in [("conv1", audio.mel_bands as usize), ("conv2", m)] {
        let ours = format!("{AUDIO}.start.{conv}");
        let part = TensorPart { parameter: format!("{ours}.weight"), rows: m };
        let name = format!("{tower}{conv}.weight");
        table.push(name, &[m, channels, WIDTH], TensorLayout::Columns, vec![part]);
        table.same(format!("{tower}{conv}.bias"), &[m], format!("{ours}.bias"));
    }
    let positions = format!("{tower}embed_positions.weight");
    let frames = audio.max_frames as usize;
    table.same(positions, &[frames, m], format!("{AUDIO}.start.positions"));
    for i in 0..spec.layers {
        let (name, ours) = (format!("{tower}layers.{i}"), format!("{AUDIO}.layers.{i}"));
        for (theirs, part, shape, bias) in [
            ("self_attn.q_proj", "attention.query", [m, m], true),
            ("self_attn.k_proj", "attention.key", [m, m], false),
            ("self_attn.v_proj", "attention.value", [m, m], true),
            ("self_attn.out_proj", "attention.output", [m, m], true),
            ("fc1", "feed_forward.up", [f, m], true),
            ("fc2", "feed_forward.down", [m, f], true),
        ] {
            table.linear(&format!("{name}.{theirs}"), shape, bias, &format!("{ours}.{part}"));
        }
        for (theirs, part) in
            [("self_attn_layer_norm", "attention_norm"), ("final_layer_norm", "feed_forward_norm")]
        {
            table.layer_norm(&format!("{name}.{theirs}"), m, &format!("{ours}.{part}"));
        }
    }
    table.layer_norm(&format!("{tower}layer_norm"), m, &format!("{AUDIO}.end.pooled.norm"));
    let output = model.module(LANGUAGE).map_or(m, |(_, language)| language.hidden as usize);
    let linear = format!("{}linear", prefixes.adapter);
    table.linear(&linear, [output, m], true, &format!("{AUDIO}.end.pooled.linear"));
}
