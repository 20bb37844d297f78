//! Wan 2.1 in the layout of `diffusers`: transformer and text encoder equal `diffusers` and `transformers`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dip_burn::data::{
    ChannelLatents, LatentShape, Latents, Tokenizer, caption_tokens, joined_spaces,
};
use dip_burn::inference::{ClipPrompt, Sampler};
use dip_burn::model::{InitialWeights, Precision, WholeModel};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{OptimizerConfig, Pipeline, PipelineInit, ReplicaWork, TensorKind};
use dip_burn::weights::{self, ExportConfig, TensorStore};
use dip_burn::{Batch, Clip, Microbatch};
use dip_core::hf::{self, PipelineFiles};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{Case, Fixture, TOLERANCE, checks, halves, largest, out, planned, whole};
use crate::gradients::difference;
use crate::support::*;

/// The numbers of `scripts/hf_fixtures/wan.py`.
const SAMPLE_STEPS: u32 = 3;
const GUIDANCE: f64 = 2.5;
const EMPTY: u32 = 1;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hf/wan"))
}

fn model_of(folder: &Path) -> ModelSpec {
    let read =
        |name: &str| Ok::<_, std::io::Error>(std::fs::read_to_string(folder.join(name)).ok());
    let files = PipelineFiles::read(read).unwrap().unwrap();
    hf::from_pipeline("wan", &files).unwrap().spec
}

/// Two microbatches, of two clips and of one; the text encoder is trained.
fn fixture() -> Fixture {
    let folder = folder();
    let mut model = model_of(&folder);
    assert!(!model.modules[0].trainable, "the text encoder is frozen by default");
    model.modules[0].trainable = true;
    let expected = TensorStore::open_file(&folder.join("expected.safetensors")).unwrap();
    let case = |sequence| Case { sequence, logits: Vec::new() };
    let cases = [&[0, 1][..], &[2]].map(|clips| case(microbatch(&expected, clips, &model)));
    Fixture { folder, model, cases: cases.into(), expected }
}

/// Latents of clip `i` as tokens.
fn tokens(expected: &TensorStore, name: &str, model: &ModelSpec) -> Latents {
    let sides = expected.shape(name).unwrap().to_vec().try_into().unwrap();
    let latents = ChannelLatents { sides, values: expected.all(name).unwrap() };
    latents.tokens(&LatentShape::of(model).unwrap(), 99).unwrap()
}

/// One microbatch of clips of the fixture.
fn microbatch(expected: &TensorStore, clips: &[usize], model: &ModelSpec) -> Microbatch {
    let mut m = Microbatch::default();
    for (document, i) in clips.iter().enumerate() {
        let ids = expected.all(&format!("ids.{i}")).unwrap();
        m.tokens.extend(ids.iter().map(|&id| id as u32));
        m.positions.extend((0..ids.len() as u32).map(|i| [i; 3]));
        m.documents.resize(m.tokens.len(), document as u32);
        let state = tokens(expected, &format!("noisy.{i}"), model);
        let noise = tokens(expected, &format!("target.{i}"), model);
        m.clips.push(Clip {
            grid: state.grid,
            state: state.values,
            // Wan predicts the velocity towards the noise, `Clip` has the velocity towards the video.
            velocity: noise.values.iter().map(|v| -v).collect(),
            time: 1.0 - expected.all(&format!("sigma.{i}")).unwrap()[0],
        });
    }
    m.targets = vec![0; m.tokens.len()];
    m.loss_mask = vec![false; m.tokens.len()];
    m
}

fn whole_model(fixture: &Fixture) -> WholeModel<B> {
    let weights = fixture.weights();
    let start = InitialWeights { seed: 0, weights: Some(&weights) };
    WholeModel::init(&fixture.model, start, &Default::default()).unwrap()
}

#[test]
fn velocities_of_packed_clips_equal_diffusers() {
    let fixture = fixture();
    let all = microbatch(&fixture.expected, &[0, 1, 2], &fixture.model);
    let velocity = whole_model(&fixture).velocity(&all).unwrap().into_data();
    let of_clip =
        |i: usize| tokens(&fixture.expected, &format!("output.{i}"), &fixture.model).values;
    let expected: Vec<f32> = (0..3).flat_map(of_clip).map(|v| -v).collect();
    let worst = largest(&[expected], &velocity.to_vec::<f32>().unwrap());
    eprintln!("wan: {worst:e}");
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn every_option_of_wan_changes_its_velocities() {
    let fixture = fixture();
    let loss = |model: &ModelSpec| {
        let changed = Fixture { model: model.clone(), ..self::fixture() };
        whole_model(&changed).loss(&changed.sequences()).unwrap()
    };
    let exact = loss(&fixture.model);
    let expected = f64::from(fixture.expected.all("loss").unwrap()[0]);
    assert!((exact / expected - 1.0).abs() < 1e-5, "{exact} {expected}");
    type Change = fn(&mut ModelSpec);
    let wan = |model: &mut ModelSpec, change: fn(&mut WanSpec)| {
        let ModuleKind::Dit(DitSpec { wan: Some(wan), .. }) = &mut model.modules[1].kind else {
            panic!("a transformer of Wan")
        };
        change(wan);
    };
    let mut shorter = fixture.model.clone();
    wan(&mut shorter, |wan| wan.caption_tokens = 16);
    assert!((loss(&shorter) / exact - 1.0).abs() > 1e-4, "padding counts");
    let changes: [(&str, Change); 7] = [
        ("text epsilon", |m| m.modules[0].options.norm_epsilon = 1e-2),
        ("gate", |m| m.modules[0].options.gate_activation = None),
        ("distance", |m| {
            m.modules[0].kind = T5Spec { vocab: 64, buckets: 8, max_distance: 4 }.into()
        }),
        ("epsilon", |m| m.modules[1].options.norm_epsilon = 1e-2),
        ("activation", |m| m.modules[1].options.activation = Activation::QuickGelu),
        ("theta", |m| m.modules[1].options.rope.theta = 10.0),
        ("time", |m| m.modules[1].options.rope.theta = 1e6),
    ];
    for (name, change) in changes {
        let mut model = fixture.model.clone();
        change(&mut model);
        let moved = (loss(&model) / exact - 1.0).abs();
        assert!(moved > 1e-6, "{name}: {moved}");
    }
}

#[test]
fn loss_gradients_and_a_step_of_adamw_equal_torch() {
    checks::torch_of(&fixture());
}

#[test]
fn gradients_equal_autodiff() {
    checks::gradients_of(&fixture());
}

#[test]
fn a_frozen_text_encoder_changes_no_gradient_of_the_transformer_and_gets_none() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (trained, mut frozen) = (fixture(), fixture());
    frozen.model.modules[0].trainable = false;
    let mut run = |fixture: &Fixture| -> NamedTensors {
        let partition = halves(&fixture.model);
        let sequences = fixture.sequences();
        let (batch, plan) = planned(fixture, &partition, sequences, &mut rng, &["keep", "full"]);
        let mut pipeline = fixture.pipeline(&partition);
        pipeline.run(&plan, &batch, None).unwrap();
        pipeline.export(TensorKind::Gradients).unwrap()
    };
    let (mut all, own) = (run(&trained), run(&frozen));
    assert!(all.keys().any(|name| name == "text.layers.1.distances"));
    all.retain(|name, _| name.starts_with("video."));
    assert!(difference(&own, &all) < 1e-5);
}

#[test]
fn replicas_train_like_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let fixture = fixture();
    let partition = halves(&fixture.model);
    let whole = whole(&fixture.model);
    let (batch, plan) = planned(&fixture, &whole, fixture.sequences(), &mut rng, &["keep"]);
    let mut single = fixture.pipeline(&whole);
    let (loss, trained_tokens) =
        (single.run(&plan, &batch, None).unwrap().loss, batch.trained_tokens);
    let expected = single.export(TensorKind::Gradients).unwrap();
    let mut work = Vec::new();
    // The loss of every replica is divided by the tokens of the whole batch.
    for sequence in fixture.sequences() {
        let (batch, plan) = planned(&fixture, &partition, vec![sequence], &mut rng, &["keep"]);
        let batch = Batch { trained_tokens, ..Batch::clone(&batch) };
        work.push((plan, Arc::new(batch)));
    }
    let mut pipeline = fixture.replicas(&partition, 2, OptimizerConfig::default());
    let work: Vec<_> = work.iter().map(|(plan, batch)| ReplicaWork { plan, batch }).collect();
    let report = pipeline.run_replicas(&work, None).unwrap();
    assert!((report.loss - loss).abs() < 1e-5 * loss, "{} {loss}", report.loss);
    let gradients = pipeline.export(TensorKind::Gradients).unwrap();
    assert!(difference(&gradients, &expected) < 1e-5);
}

#[test]
fn sixteen_bits_come_close() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let fixture = fixture();
    let (weights, partition) = (fixture.weights(), halves(&fixture.model));
    let (batch, plan) = planned(&fixture, &partition, fixture.sequences(), &mut rng, &["keep"]);
    let init = PipelineInit::new(&fixture.model, &partition, vec![Default::default(); 2])
        .with_precision(Precision::Bf16)
        .with_weights(InitialWeights { seed: 0, weights: Some(&weights) });
    let mut pipeline = Pipeline::<B>::new(&init).unwrap();
    let loss = pipeline.run(&plan, &batch, None).unwrap().loss;
    let expected = f64::from(fixture.expected.all("loss").unwrap()[0]);
    assert!((loss / expected - 1.0).abs() < 2e-2, "{loss} {expected}");
}

#[test]
fn samples_equal_euler_steps_with_guidance() {
    let fixture = fixture();
    let shape = LatentShape::of(&fixture.model).unwrap();
    let noise = tokens(&fixture.expected, "sample.noise", &fixture.model);
    let wan = fixture.model.video().unwrap().wan.unwrap();
    let sampler = Sampler {
        steps: SAMPLE_STEPS,
        guidance: GUIDANCE,
        shift: wan.flow_shift,
        values: shape.values as usize,
        empty: vec![EMPTY],
    };
    let caption = fixture.cases[0].sequence.tokens[..5].to_vec();
    let prompt = ClipPrompt { caption, grid: noise.grid };
    let mut pipeline = fixture.pipeline(&halves(&fixture.model));
    let mut model = pipeline.forwards().unwrap();
    let sampled = sampler.sample_from(&mut model, &[prompt], vec![noise]).unwrap();
    let sampled = ChannelLatents::of(&sampled[0], &shape);
    let expected = fixture.expected.all("sample.clip").unwrap();
    assert_eq!(sampled.sides, fixture.expected.shape("sample.clip").unwrap());
    let worst = largest(&[expected], &sampled.values);
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn an_export_has_every_tensor_with_its_values_in_the_same_folders() {
    let fixture = fixture();
    let mut pipeline = fixture.pipeline(&halves(&fixture.model));
    let parameters = pipeline.export(TensorKind::Parameters).unwrap();
    let config = ExportConfig { shard_bytes: 40_000, bf16: false };
    let folder = fixture.exported(parameters, config);
    let out = out(&folder);
    let (before, after) =
        (TensorStore::open(&fixture.folder).unwrap(), TensorStore::open(&out).unwrap());
    assert!(before.names().eq(after.names()));
    for tensor in before.names() {
        assert_eq!(before.shape(tensor), after.shape(tensor), "{tensor}");
        assert_eq!(before.all(tensor).unwrap(), after.all(tensor).unwrap(), "{tensor}");
    }
    for file in ["transformer/config.json", "text_encoder/config.json", "vae/config.json"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert_eq!(read(&fixture.folder), read(&out), "{file}");
    }
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    assert!(out.join(index).exists() && out.join("text_encoder/model.safetensors").exists());
    let again = model_of(&out);
    assert_eq!(again, model_of(&fixture.folder));
}

/// Published parts of a model, with what `diffusers` and `transformers` count.
#[derive(Deserialize)]
struct Published {
    name: String,
    transformer_parameters: u64,
    text_encoder_parameters: u64,
    transformer: serde_json::Value,
    text_encoder: serde_json::Value,
}

#[test]
fn numbers_of_parameters_of_published_models_equal_diffusers() {
    let text = std::fs::read_to_string(folder().join("counts.json")).unwrap();
    let index = std::fs::read_to_string(folder().join("model_index.json")).unwrap();
    let all: Vec<Published> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 2);
    for published in all {
        let files = PipelineFiles {
            index: index.clone(),
            transformer: published.transformer.to_string(),
            text_encoder: published.text_encoder.to_string(),
            scheduler: None,
        };
        let model = hf::from_pipeline(&published.name, &files).unwrap();
        let all = published.transformer_parameters + published.text_encoder_parameters;
        assert_eq!(weights::parameters(&model), all, "{}", published.name);
    }
}

/// A caption with its tokens in the pipeline of `diffusers`, without padding.
#[derive(Deserialize)]
struct Caption {
    caption: String,
    ids: Vec<u32>,
}

#[test]
fn captions_have_the_tokens_of_the_pipeline() {
    let folder = folder();
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer")).unwrap();
    let text = std::fs::read_to_string(folder.join("captions.json")).unwrap();
    let all: Vec<Caption> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 5);
    for Caption { caption, ids } in all {
        let found = caption_tokens(&tokenizer, &joined_spaces(&caption), 512).unwrap();
        assert_eq!(found, ids, "{caption:?}");
    }
}
