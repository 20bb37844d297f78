//! Models that are valid and models that are not.

use super::*;
use crate::spec::modality::DecoderSpec;

const MODEL: &str = r#"
name = "pair"
sequence_tokens = 8192
[[module]]
name = "vit"
layers = 2
hidden = 64
ffn = 128
heads = 4
kind = { vit = { image_px = 728, patch_px = 14, merge = 4 } }
[[module]]
name = "lm"
layers = 3
hidden = 64
ffn = 128
heads = 4
kv_heads = 2
inputs = ["vit"]
kind = { decoder = { vocab = 1000 } }
"#;

/// The error of the model after the first occurrence of `from` is replaced.
fn error(from: &str, to: &str) -> String {
    assert!(MODEL.contains(from), "{from:?}");
    ModelSpec::from_toml(&MODEL.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn absent_fields_have_their_defaults() {
    let model = ModelSpec::from_toml(MODEL).unwrap();
    let (id, lm) = model.module("lm").unwrap();
    assert_eq!((id, lm.kv_heads(), lm.head_dim(), lm.gated_ffn()), (ModuleId(1), 2, 16, true));
    let vit = &model.modules[0];
    assert_eq!((vit.kv_heads(), vit.gated_ffn(), vit.trainable), (4, false, true));
    assert_eq!((model.microbatches, model.parallel), (8, Parallelism::default()));
    assert_eq!(lm.kind, DecoderSpec { vocab: 1000, head: true, tied: false, z_loss: 0.0 }.into());
}

#[test]
fn modules_come_after_their_inputs_in_any_order_of_declaration() {
    let text = MODEL.replace("kind = { vit", "inputs = [\"lm\"]\nkind = { vit");
    let text = text.replace("inputs = [\"vit\"]\n", "");
    let model = ModelSpec::from_toml(&text).unwrap();
    assert_eq!(model.topological_order(), [ModuleId(1), ModuleId(0)]);
    assert_eq!(model.inputs_of(ModuleId(0)), [ModuleId(1)]);
    assert_eq!(model.consumers_of(ModuleId(1)), [ModuleId(0)]);
}

#[test]
fn a_frozen_module_runs_a_backward_only_after_a_trained_module() {
    let runs = |vit: bool, lm: bool| {
        let mut model = ModelSpec::from_toml(MODEL).unwrap();
        (model.modules[0].trainable, model.modules[1].trainable) = (vit, lm);
        model.runs_backward()
    };
    assert_eq!(runs(false, true), [false, true]);
    assert_eq!(runs(true, false), [true, true]);
    assert_eq!(runs(false, false), [false, false]);
}

#[test]
fn an_error_names_field_value_limit_and_remedy() {
    assert_eq!(
        error("layers = 3", "layers = 0"),
        "module \"lm\".layers is 0, but must be 1 to 65536; set layers within the limit"
    );
    assert_eq!(
        error("merge = 4", "merge = 3"),
        "module \"vit\".kind.vit.image_px is 728, but must be a side whose 52 patches are a multiple of merge = 3; \
         change the image side so that whole merged patches cover it"
    );
}

#[test]
fn values_outside_their_limits_are_refused() {
    for (from, to, named) in [
        ("sequence_tokens = 8192", "sequence_tokens = 0", "sequence_tokens is 0"),
        ("sequence_tokens = 8192", "sequence_tokens = 1\nmicrobatches = 0", "microbatches is 0"),
        ("[[module]]", "[parallel]\ndata = 1\ntensor = 0\npipeline = 1\n[[module]]", "tensor 0"),
        ("hidden = 64", "hidden = 2000000", "module \"vit\".hidden is 2000000"),
        (
            "hidden = 64",
            "hidden = 65",
            "module \"vit\".hidden is 65, but must be a multiple of heads = 4",
        ),
        ("heads = 4", "heads = 0", "module \"vit\".heads is 0"),
        ("kv_heads = 2", "kv_heads = 3", "a divisor of heads = 4"),
        ("patch_px = 14", "patch_px = 0", "kind.vit.patch_px is 0"),
        ("patch_px = 14", "patch_px = 729", "kind.vit.patch_px is 729"),
        ("vocab = 1000", "vocab = 0", "kind.decoder.vocab is 0"),
        (
            "name = \"lm\"",
            "name = \"vit\"",
            "module[1].name is \"vit\", but must be non-empty and unique",
        ),
        ("inputs = [\"vit\"]", "inputs = [\"eye\"]", "module \"lm\".inputs is \"eye\""),
        (
            "inputs = [\"vit\"]",
            "inputs = [\"vit\", \"vit\"]",
            "inputs[1] is \"vit\", but must be listed once",
        ),
    ] {
        let error = error(from, to);
        assert!(error.contains(named), "{to}: {error}");
    }
}

#[test]
fn inputs_that_form_a_cycle_are_named() {
    let error = error("inputs = [\"vit\"]", "inputs = [\"vit\", \"lm\"]");
    assert_eq!(error, "the inputs of modules [\"lm\"] form a cycle; remove one of these edges");
}

#[test]
fn unknown_fields_and_wrong_types_name_the_line() {
    let array = error("[[module]]", "parallel = [1, 1, 2]\n[[module]]");
    assert!(array.contains("line 4") && array.contains("an object with named fields"), "{array}");
    let kind = error("{ image_px = 728, patch_px = 14, merge = 4 }", "[728, 14, 4]");
    assert!(kind.contains("an object with named fields"), "{kind}");
    assert!(error("ffn = 128", "fnn = 128").contains("unknown field `fnn`"));
    let wrong = error("heads = 4", "heads = \"four\"");
    assert!(wrong.contains("line 9"), "{wrong}");
    assert!(ModelSpec::from_toml("").unwrap_err().to_string().contains("missing field"));
}
