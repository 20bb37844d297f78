//! Operators of the parts of presets.

use dip_core::{Bytes, Flops, presets};

use super::*;
use crate::operators::{OperatorKind, Pass};

fn dag(model: &str, module: &str, part: Part, work: Workload, tensor: u32) -> Dag {
    let model = presets::model(model).unwrap();
    let (id, _) = model.module(module).unwrap();
    let layout = DeviceLayout { tensor, element_bytes: 2 };
    OperatorTable::default().operators(&PartQuery { model: &model, module: id, part, work, layout })
}

fn tokens(tokens: u64) -> Workload {
    let pairs = tokens * tokens;
    Workload { instances: 1, tokens, attention_pairs: pairs, ..Workload::default() }
}

#[test]
fn a_plain_layer_keeps_what_its_gradients_need() {
    let (t, h, f, heads) = (2704, 1792, 15360, 16);
    let layer = dag("vlm-s", "vision", Part::Layer, tokens(t), 1);
    // The inputs of two norms and four products, queries, keys and values, and the input of the activation.
    let kept = 2 * t * (2 * h + (h + h + h + f) + 3 * h + f);
    assert_eq!(layer.saved(true, false), Bytes(kept + 4 * t * heads));
    assert_eq!(layer.saved(true, true), Bytes(kept - 2 * t * h), "no attention output");
    let shared = dag("vlm-s", "vision", Part::Layer, tokens(t), 4);
    assert_eq!(shared.saved(true, false), Bytes((kept + 4 * t * heads) / 4));
}

#[test]
fn a_gated_layer_with_few_key_heads_keeps_both_halves_of_its_gate() {
    let (t, h, f, kv) = (1024, 4096, 14336, 1024);
    let layer = dag("vlm-s", "language", Part::Layer, tokens(t), 1);
    let kept = 2 * t * (2 * h + (h + h + h + f) + (h + 2 * kv) + 2 * f) + 4 * t * 32;
    assert_eq!(layer.saved(true, false), Bytes(kept));
}

#[test]
fn devices_that_share_a_layer_gather_and_scatter_twice() {
    let (t, h) = (1024, 4096);
    let sent = |tensor| {
        let layer = dag("vlm-s", "language", Part::Layer, tokens(t), tensor);
        let sent = |op: &crate::operators::Operator| op.network.0;
        layer.operators(Pass::Forward).iter().map(sent).sum::<u64>()
    };
    assert_eq!(sent(1), 0);
    assert_eq!(sent(4), 4 * (2 * t * h * 3 / 4));
}

#[test]
fn heads_that_do_not_divide_leave_one_device_with_more() {
    // Whisper has 20 heads. On 8 devices the slowest device has 3.
    let layer = dag("omni-l", "audio", Part::Layer, tokens(100), 8);
    let core = layer.operators(Pass::Forward);
    let core = core.iter().find(|op| op.kind == OperatorKind::Attention).unwrap();
    assert_eq!(core.flops, Flops(4.0 * 1e4 * f64::from(3 * 64)));
}

#[test]
fn every_part_of_every_preset_has_operators() {
    for name in presets::model_names() {
        let model = presets::model(name).unwrap();
        for module in &model.modules {
            let work = Workload { output_tokens: 10, cross_pairs: 500, ..tokens(100) };
            for part in [Part::First, Part::Layer, Part::Last] {
                let dag = dag(name, &module.name, part, work, model.parallel.tensor);
                assert!(!dag.operators(Pass::Forward).is_empty());
                assert!(dag.peak() > Bytes::ZERO, "{name} {} {part:?}", module.name);
            }
            let none = dag(name, &module.name, Part::Stage, work, 1);
            assert!(none.operators(Pass::Forward).is_empty());
        }
    }
}
