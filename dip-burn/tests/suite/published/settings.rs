//! Settings of training: parts that are frozen, learning rates of parts, z-loss.

use dip_burn::runtime::{
    OptimizerConfig, ParameterGroup, Pipeline, PipelineInit, TensorKind, Update,
};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Fixture, halves, planned};
use crate::gradients::difference;
use crate::support::B;

/// One step with a large learning rate.
const UPDATE: Update = Update { learning_rate: 0.01, clip_norm: 0.0, loss_scale: 1.0 };

#[test]
fn only_the_parts_that_are_not_frozen_learn() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let mut fixture = Fixture::read("llava-clip");
    let lora = Lora { rank: 2, alpha: 4.0, targets: vec![LoraTarget::Query], ..Lora::default() };
    type Change = fn(&mut ModelSpec, Lora);
    type Learns = fn(&str) -> bool;
    let changes: [(Change, Learns); 3] = [
        (
            |model, _| {
                model.modules[0].frozen = vec!["tower".into()];
                model.modules[1].frozen = vec!["embed".into(), "layers.1".into()];
            },
            |name| {
                let frozen = ["language.embed.", "language.layers.1."];
                let language = name.starts_with("language.");
                let learns = !frozen.iter().any(|part| name.starts_with(part));
                if language { learns } else { name.starts_with("vision.merger.") }
            },
        ),
        (
            |model, lora| {
                model.modules[0].lora = Some(Lora { full: vec!["projector".into()], ..lora });
                model.modules[1].trainable = false;
            },
            |name| name.starts_with("vision.merger.") || name.contains("query.lora."),
        ),
        (
            |model, _| {
                model.modules[0].trainable = false;
                model.modules[1].frozen = vec!["layers".into()];
            },
            |name| name.starts_with("language.") && !name.contains(".layers."),
        ),
    ];
    let plain = fixture.model.clone();
    for (change, learns) in changes {
        fixture.model = plain.clone();
        change(&mut fixture.model, lora.clone());
        fixture.model.validate().unwrap();
        let partition = halves(&fixture.model);
        let (batch, plan) = planned(&fixture, &partition, fixture.sequences(), &mut rng, &["keep"]);
        let mut pipeline = fixture.pipeline(&partition);
        let before = pipeline.export(TensorKind::Parameters).unwrap();
        pipeline.run(&plan, &batch, None).unwrap();
        let gradients = pipeline.export(TensorKind::Gradients).unwrap();
        let (_, mut expected) = fixture.oracle(&before, &batch);
        expected.retain(|name, _| learns(name));
        assert!(!expected.is_empty());
        let worst = difference(&gradients, &expected);
        assert!(worst < 1e-4, "{worst}");
        pipeline.run(&plan, &batch, Some(UPDATE)).unwrap();
        for (name, value) in pipeline.export(TensorKind::Parameters).unwrap() {
            assert!(value == before[&name] || learns(&name), "{name}");
        }
    }
}

#[test]
fn a_part_that_the_model_lacks_is_named() {
    let fixture = Fixture::read("qwen2");
    let partition = halves(&fixture.model);
    let group = |name: &str| OptimizerConfig {
        groups: vec![ParameterGroup { parameters: vec![name.into()], ..Default::default() }],
        ..OptimizerConfig::default()
    };
    drop(fixture.replicas(&partition, 1, group("language.layers.3")));
    let weights = fixture.weights();
    let start = dip_burn::model::InitialWeights { seed: 0, weights: Some(&weights) };
    let error = |model: &ModelSpec, optimizer| {
        let init = dip_burn::runtime::PipelineInit::<crate::support::B>::new(
            model,
            &partition,
            vec![Default::default(); 2],
        );
        let init = init.with_weights(start).with_optimizer(optimizer);
        dip_burn::runtime::Pipeline::new(&init).err().unwrap().to_string()
    };
    let unknown = error(&fixture.model, group("vision.projector"));
    assert!(
        unknown.contains("optimizer.groups[0].parameters is \"vision.projector\"")
            && unknown.contains("language.embed"),
        "{unknown}"
    );
    let mut model = fixture.model.clone();
    model.modules[0].frozen = vec!["layer".into()];
    let unknown = error(&model, OptimizerConfig::default());
    assert!(unknown.contains("\"language\".frozen is \"language.layer\""), "{unknown}");
}

#[test]
fn z_loss_adds_the_squared_logarithm_of_the_denominator() {
    const WEIGHT: f64 = 0.02;
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let mut fixture = Fixture::read("llama");
    let ModuleKind::Decoder(decoder) = &mut fixture.model.modules[0].kind else { panic!() };
    decoder.z_loss = WEIGHT;
    let partition = halves(&fixture.model);
    let (batch, plan) = planned(&fixture, &partition, fixture.sequences(), &mut rng, &["keep"]);
    let mut pipeline = fixture.pipeline(&partition);
    let loss = pipeline.run(&plan, &batch, None).unwrap().loss;
    let rows = fixture.cases.iter().flat_map(|case| &case.logits);
    let squares = rows.map(|logits| {
        let denominator: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        WEIGHT * denominator.ln().powi(2)
    });
    let cross_entropies =
        fixture.cases.iter().flat_map(|case| (0..case.logits.len()).map(|place| case.loss(place)));
    let count = batch.trained_tokens as f64;
    let expected = (squares.sum::<f64>() + cross_entropies.sum::<f64>()) / count;
    assert!((loss / expected - 1.0).abs() < 1e-5, "{loss} {expected}");
    let weights = pipeline.export(TensorKind::Parameters).unwrap();
    let (_, expected) = fixture.oracle(&weights, &batch);
    let worst = difference(&pipeline.export(TensorKind::Gradients).unwrap(), &expected);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn a_value_that_is_not_finite_is_found_in_its_module_and_microbatch() {
    use dip_burn::runtime::ReplicaWork;
    let mut rng = ChaCha8Rng::seed_from_u64(16);
    let fixture = Fixture::read("llava-clip");
    let partition = halves(&fixture.model);
    let found = |change: &dyn Fn(&mut Vec<dip_burn::Microbatch>), rng: &mut ChaCha8Rng| {
        let mut sequences = fixture.sequences();
        sequences.rotate_right(1);
        change(&mut sequences);
        let (batch, plan) = planned(&fixture, &partition, sequences, rng, &["keep"]);
        let mut pipeline = fixture.pipeline(&partition);
        let work = [ReplicaWork { plan: &plan, batch: &batch }];
        pipeline.first_non_finite(&work, 1.0).map(|place| place.to_string())
    };
    assert_eq!(found(&|_| (), &mut rng), None);
    let spoiled = |sequences: &mut Vec<dip_burn::Microbatch>| {
        sequences[1].images[0].views[0].pixels[7] = f32::NAN;
    };
    let place = found(&spoiled, &mut rng).unwrap();
    let expected = "the forward of module \"vision\", layers 0 to 0, in microbatch 1";
    assert_eq!(place, expected);
}

#[test]
fn a_run_whose_parts_are_all_frozen_one_by_one_is_refused() {
    let mut model = Fixture::read("llava-clip").model;
    let build = |model: &ModelSpec| {
        let partition = halves(model);
        let init = PipelineInit::new(model, &partition, vec![Default::default(); 2]);
        Pipeline::<B>::new(&init).err().map(|error| error.to_string())
    };
    let parts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    model.modules[0].frozen = parts(&["tower", "projector"]);
    model.modules[1].frozen = parts(&["embed", "layers", "end.head"]);
    assert_eq!(build(&model), None, "the last norm is trained");
    model.modules[1].frozen = parts(&["embed", "layers", "end"]);
    let error = build(&model).unwrap();
    assert!(error.contains("weights.frozen is every part of the model"), "{error}");
}
