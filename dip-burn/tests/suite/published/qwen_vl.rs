//! Vision-language models of Qwen.

use dip_burn::runtime::{TensorKind, Update};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::checks::{options_change_logits, standard_checks};
use super::{Fixture, TOLERANCE, halves, planned};
use crate::gradients::difference;

standard_checks!(qwen2_vl: "qwen2-vl", qwen2_5_vl: "qwen2-5-vl", qwen3_vl: "qwen3-vl");

const MODELS: [&str; 3] = ["qwen2-vl", "qwen2-5-vl", "qwen3-vl"];

#[test]
fn positions_of_pictures_and_videos_equal_transformers() {
    for name in MODELS {
        let fixture = Fixture::read(name);
        for (i, case) in fixture.cases.iter().enumerate() {
            let expected = fixture.expected.all(&format!("positions.{i}")).unwrap();
            let length = case.sequence.positions.len();
            let found =
                (0..3).flat_map(|axis| case.sequence.positions.iter().map(move |p| p[axis]));
            assert!(found.map(|p| p as f32).eq(expected), "{name} {i} {length}");
        }
    }
}

#[test]
fn every_option_of_qwen2_vl_changes_its_logits() {
    options_change_logits(&[
        ("qwen2-vl", 0, "theta", |m| m.options.rope.theta = 1e3),
        ("qwen2-vl", 0, "activation", |m| m.options.activation = Activation::Gelu),
        ("qwen2-vl", 1, "sections", |m| m.options.rope.sections = None),
        ("qwen2-vl", 1, "order of sections", |m| m.options.rope.sections = Some([1, 1, 2])),
    ]);
}

#[test]
fn adapters_learn_and_frozen_weights_stay() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut fixture = Fixture::read("qwen2-vl");
    let targets = |targets: &[LoraTarget]| {
        Some(Lora { rank: 3, alpha: 6.0, targets: targets.to_vec(), ..Lora::default() })
    };
    fixture.model.modules[0].lora = targets(&[LoraTarget::Query, LoraTarget::Up, LoraTarget::Down]);
    fixture.model.modules[1].lora = targets(&LoraTarget::ALL);
    fixture.model.validate().unwrap();
    // Adapters begin at zero, so the model still equals the published model.
    assert!(fixture.difference(&fixture.model) < TOLERANCE);
    let partition = halves(&fixture.model);
    let mut pipeline = fixture.pipeline(&partition);
    let before = pipeline.export(TensorKind::Parameters).unwrap();
    let update = Update { learning_rate: 0.01, clip_norm: 0.0, loss_scale: 1.0 };
    let mut losses = Vec::new();
    for strategy in ["keep", "selective", "full", "keep"] {
        let (batch, plan) =
            planned(&fixture, &partition, fixture.sequences(), &mut rng, &[strategy]);
        losses.push(pipeline.run(&plan, &batch, Some(update)).unwrap().loss);
        // After a step both matrices are nonzero, so the gradients of both are compared.
        let report = pipeline.run(&plan, &batch, None).unwrap();
        let weights = pipeline.export(TensorKind::Parameters).unwrap();
        let (loss, mut expected) = fixture.oracle(&weights, &batch);
        expected.retain(|name, _| name.contains(".lora."));
        assert_eq!(expected.len(), 2 * (3 * 3 + 3 * 7));
        assert!((report.loss - loss).abs() < 1e-5 * loss, "{} {loss}", report.loss);
        let worst = difference(&pipeline.export(TensorKind::Gradients).unwrap(), &expected);
        assert!(worst < 1e-4, "{strategy}: {worst}");
    }
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    for (name, value) in pipeline.export(TensorKind::Parameters).unwrap() {
        assert_eq!(value != before[&name], name.contains(".lora."), "{name}");
    }
}
