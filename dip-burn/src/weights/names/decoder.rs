//! Llama, Mistral, Qwen2 and Qwen3, alone or inside another model.

use dip_core::hf::LANGUAGE;
use dip_core::{DecoderSpec, LoraTarget, ModelSpec};

use super::{Prefixes, Table, TensorLayout, TensorPart, TiedHead};

pub(super) const PREFIXES: [Prefixes; 1] =
    [Prefixes { text: "model.", head: "lm_head.", vision: "", adapter: "" }];

/// The tensors of the module [`LANGUAGE`].
pub(super) fn add(table: &mut Table, model: &ModelSpec, prefixes: &Prefixes) {
    let Some((_, spec)) = model.module(LANGUAGE) else { return };
    let Some(&DecoderSpec { vocab, head, .. }) = spec.kind.get() else { return };
    let (vocab, m, f) = (vocab as usize, spec.hidden as usize, spec.ffn as usize);
    let d = spec.head_dim() as usize;
    let (q, k) = (spec.heads as usize * d, spec.kv_heads() as usize * d);
    let ffn_bias = spec.options.feed_forward_bias;
    let bias = |projection| spec.attention_bias().of(projection);
    let tokens = format!("{}embed_tokens.weight", prefixes.text);
    table.same(tokens.clone(), &[vocab, m], format!("{LANGUAGE}.embed.weight"));
    for i in 0..spec.layers {
        let (name, ours) =
            (format!("{}layers.{i}", prefixes.text), format!("{LANGUAGE}.layers.{i}"));
        for (theirs, part, shape, bias) in [
            ("self_attn.q_proj", "attention.query", [q, m], bias(LoraTarget::Query)),
            ("self_attn.k_proj", "attention.key", [k, m], bias(LoraTarget::Key)),
            ("self_attn.v_proj", "attention.value", [k, m], bias(LoraTarget::Value)),
            ("self_attn.o_proj", "attention.output", [m, q], bias(LoraTarget::Output)),
            ("mlp.gate_proj", "feed_forward.gate", [f, m], ffn_bias),
            ("mlp.up_proj", "feed_forward.up", [f, m], ffn_bias),
            ("mlp.down_proj", "feed_forward.down", [m, f], ffn_bias),
        ] {
            table.linear(&format!("{name}.{theirs}"), shape, bias, &format!("{ours}.{part}"));
        }
        if spec.options.query_key_norm.is_some() {
            for (theirs, part) in [("q_norm", "query_norm"), ("k_norm", "key_norm")] {
                let theirs = format!("{name}.self_attn.{theirs}.weight");
                table.same(theirs, &[d], format!("{ours}.attention.{part}.gamma"));
            }
        }
        for (theirs, part) in [
            ("input_layernorm", "attention_norm"),
            ("post_attention_layernorm", "feed_forward_norm"),
        ] {
            table.same(format!("{name}.{theirs}.weight"), &[m], format!("{ours}.{part}.gamma"));
        }
    }
    table.same(format!("{}norm.weight", prefixes.text), &[m], format!("{LANGUAGE}.end.norm.gamma"));
    let ours = format!("{LANGUAGE}.end.head.weight");
    if spec.is_tied() {
        table.tied.push(TiedHead { parameter: ours, tensor: tokens });
    } else if head {
        let theirs = format!("{}weight", prefixes.head);
        let part = TensorPart { parameter: ours, rows: vocab };
        table.push(theirs, &[vocab, m], TensorLayout::Columns, vec![part]);
    }
}
