//! Wan's transformer and its UMT5 text encoder, in the folders of `diffusers`.

use dip_core::hf::{TEXT, VIDEO};
use dip_core::{DitSpec, ModelSpec, ModuleSpec, T5Spec};

use super::{Prefixes, Table, TensorLayout, TensorPart};

/// The folder of the transformer; the names of its tensors begin with it.
pub const TRANSFORMER: &str = "transformer/";
/// The folder of the text encoder.
pub const TEXT_ENCODER: &str = "text_encoder/";

/// The token table has two names; published files hold one of them or both.
const TOKENS: [&str; 2] =
    ["text_encoder/shared.weight", "text_encoder/encoder.embed_tokens.weight"];

pub(super) const PREFIXES: [Prefixes; 2] = [with_tokens(TOKENS[0]), with_tokens(TOKENS[1])];

const fn with_tokens(text: &'static str) -> Prefixes {
    Prefixes { text, head: "", vision: "", adapter: "" }
}

/// The tensors of the modules [`TEXT`] and [`VIDEO`].
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let (Some((_, text)), Some((_, video))) = (model.module(TEXT), model.module(VIDEO)) else {
        return;
    };
    if let Some(t5) = text.kind.get() {
        encoder(table, text, t5, prefixes.text);
    }
    if let Some(dit) = video.kind.get() {
        transformer(table, video, dit, text.hidden as usize);
    }
}

/// True for the second name of the token table.
pub(super) fn is_unused(name: &str) -> bool {
    TOKENS.contains(&name)
}

fn encoder(table: &mut Table, spec: &ModuleSpec, t5: &T5Spec, tokens: &str) {
    let (m, f, heads) = (spec.hidden as usize, spec.ffn as usize, spec.heads as usize);
    let q = heads * spec.head_dim() as usize;
    table.same(tokens.to_owned(), &[t5.vocab as usize, m], format!("{TEXT}.embed.weight"));
    for i in 0..spec.layers {
        let (name, ours) =
            (format!("{TEXT_ENCODER}encoder.block.{i}.layer"), format!("{TEXT}.layers.{i}"));
        let [attention, network] = ["0.SelfAttention", "1.DenseReluDense"];
        for (theirs, part, shape) in [
            (format!("{attention}.q"), "attention.query", [q, m]),
            (format!("{attention}.k"), "attention.key", [q, m]),
            (format!("{attention}.v"), "attention.value", [q, m]),
            (format!("{attention}.o"), "attention.output", [m, q]),
            (format!("{network}.wi_0"), "feed_forward.gate", [f, m]),
            (format!("{network}.wi_1"), "feed_forward.up", [f, m]),
            (format!("{network}.wo"), "feed_forward.down", [m, f]),
        ] {
            table.linear(&format!("{name}.{theirs}"), shape, false, &format!("{ours}.{part}"));
        }
        let distances = format!("{name}.{attention}.relative_attention_bias.weight");
        table.same(distances, &[t5.buckets as usize, heads], format!("{ours}.distances"));
        for (theirs, part) in [("0", "attention_norm"), ("1", "feed_forward_norm")] {
            let theirs = format!("{name}.{theirs}.layer_norm.weight");
            table.same(theirs, &[m], format!("{ours}.{part}.gamma"));
        }
    }
    let norm = format!("{TEXT_ENCODER}encoder.final_layer_norm.weight");
    table.same(norm, &[m], format!("{TEXT}.norm.gamma"));
}

fn transformer(table: &mut Table, spec: &ModuleSpec, dit: &DitSpec, text: usize) {
    let Some(wan) = dit.wan else { return };
    let (m, f, values) = (spec.hidden as usize, spec.ffn as usize, dit.token_channels as usize);
    let [frames, rows, columns] = wan.patch.map(|side| side as usize);
    let channels = values / wan.patch_values() as usize;
    let patch = format!("{TRANSFORMER}patch_embedding");
    let part = TensorPart { parameter: format!("{VIDEO}.start.patch_embed.weight"), rows: m };
    let shape = [m, channels, frames, rows, columns];
    table.push(format!("{patch}.weight"), &shape, TensorLayout::Columns, vec![part]);
    table.same(format!("{patch}.bias"), &[m], format!("{VIDEO}.start.patch_embed.bias"));
    for (theirs, part, shape) in [
        ("text_embedder.linear_1", "context", [m, text]),
        ("text_embedder.linear_2", "context_output", [m, m]),
        ("time_embedder.linear_1", "step.fc1", [m, wan.step_waves as usize]),
        ("time_embedder.linear_2", "step.fc2", [m, m]),
        ("time_proj", "step.table", [6 * m, m]),
    ] {
        let name = format!("{TRANSFORMER}condition_embedder.{theirs}");
        table.linear(&name, shape, true, &format!("{VIDEO}.start.{part}"));
    }
    for i in 0..spec.layers {
        let (name, ours) = (format!("{TRANSFORMER}blocks.{i}"), format!("{VIDEO}.layers.{i}"));
        table.same(format!("{name}.scale_shift_table"), &[1, 6, m], format!("{ours}.modulation"));
        attention(table, spec, &format!("{name}.attn1"), &format!("{ours}.attention"));
        attention(table, spec, &format!("{name}.attn2"), &format!("{ours}.cross"));
        table.layer_norm(&format!("{name}.norm2"), m, &format!("{ours}.cross_norm"));
        for (theirs, part, shape) in
            [("ffn.net.0.proj", "up", [f, m]), ("ffn.net.2", "down", [m, f])]
        {
            let ours = format!("{ours}.feed_forward.{part}");
            table.linear(&format!("{name}.{theirs}"), shape, true, &ours);
        }
    }
    let modulation = format!("{VIDEO}.end.modulation");
    table.same(format!("{TRANSFORMER}scale_shift_table"), &[1, 2, m], modulation);
    let output = format!("{VIDEO}.end.output");
    table.linear(&format!("{TRANSFORMER}proj_out"), [values, m], true, &output);
}

/// One of the two attentions of a layer, with the norms of its queries and keys.
fn attention(table: &mut Table, spec: &ModuleSpec, name: &str, ours: &str) {
    let (m, q) = (spec.hidden as usize, spec.heads as usize * spec.head_dim() as usize);
    for (theirs, part, shape) in [
        ("to_q", "query", [q, m]),
        ("to_k", "key", [q, m]),
        ("to_v", "value", [q, m]),
        ("to_out.0", "output", [m, q]),
    ] {
        table.linear(&format!("{name}.{theirs}"), shape, true, &format!("{ours}.{part}"));
    }
    for (theirs, part) in [("norm_q", "query_norm"), ("norm_k", "key_norm")] {
        table.same(format!("{name}.{theirs}.weight"), &[q], format!("{ours}.{part}.gamma"));
    }
}
