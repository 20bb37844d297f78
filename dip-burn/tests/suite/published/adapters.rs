//! Adapters in the layout of PEFT: read, trained, written and merged.

use std::path::PathBuf;

use dip_burn::model::{InitialWeights, WholeModel};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{OptimizerConfig, Pipeline, PipelineInit, TensorKind, Update};
use dip_burn::weights::{ExportConfig, TensorStore, Weights, export_adapter, merge};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::checks::{Comparison, LEARNING_RATE, WEIGHT_DECAY};
use super::{Case, Fixture, TOLERANCE, checkpoint, halves, largest, planned};
use crate::gradients::difference;
use crate::support::*;

/// A base model with an adapter, and what PEFT computes for both.
struct Adapted {
    fixture: Fixture,
    adapter: PathBuf,
}

/// Adapters on text models, on both parts of a vision-language model, and on the decoder of one.
const ADAPTERS: [&str; 4] = ["peft-lora", "peft-dora", "peft-qwen2-5-vl", "peft-llava"];
/// One whose adapters of projections in one tensor are blocks. PEFT would train the zeros beside the blocks, so steps differ.
const BLOCKS: &str = "peft-qwen2-5-vl-qkv";

fn all() -> impl Iterator<Item = &'static str> {
    ADAPTERS.into_iter().chain([BLOCKS])
}

fn adapted(name: &str) -> Adapted {
    use LoraTarget::{Down, Output, Query, Value};
    // Targets in the encoder, and in the decoder.
    let (base, encoder, decoder) = match name {
        BLOCKS => ("qwen2-5-vl", vec![Query, Value], vec![Query, Value]),
        "peft-qwen2-5-vl" => ("qwen2-5-vl", vec![Output, Down], vec![Output, Down]),
        "peft-llava" => ("llava-clip", Vec::new(), vec![Query, Value]),
        _ => ("llama-biases", Vec::new(), vec![Query, Down]),
    };
    let mut fixture = Fixture::read(base);
    let adapter = fixture.folder.with_file_name(name);
    fixture.expected = TensorStore::open_file(&adapter.join("expected.safetensors")).unwrap();
    fixture.cases = (0..).map_while(|i| Case::read(&fixture.expected, i, &fixture.model)).collect();
    let is_dora = name == "peft-dora";
    let lora = |targets: Vec<LoraTarget>| Lora {
        rank: 3,
        alpha: 6.0,
        targets,
        rank_stabilized: is_dora,
        dora: is_dora,
        full: Vec::new(),
    };
    let modules = &mut fixture.model.modules;
    modules.last_mut().unwrap().lora = Some(lora(decoder));
    if modules.len() > 1 {
        modules[0].trainable = !encoder.is_empty();
        modules[0].lora = (!encoder.is_empty()).then(|| lora(encoder));
    }
    Adapted { fixture, adapter }
}

impl Adapted {
    fn weights(&self) -> Weights {
        let weights = Weights::open(&self.fixture.folder, &self.fixture.model).unwrap();
        weights.with_adapter(&self.adapter, &self.fixture.folder, &self.fixture.model).unwrap()
    }

    fn pipeline(&self, partition: &Partition) -> Pipeline<B> {
        let weights = self.weights();
        let init = PipelineInit::new(&self.fixture.model, partition, vec![Default::default(); 2])
            .with_weights(InitialWeights { seed: 0, weights: Some(&weights) })
            .with_optimizer(OptimizerConfig {
                weight_decay: WEIGHT_DECAY,
                ..OptimizerConfig::default()
            });
        Pipeline::new(&init).unwrap()
    }

    /// Tensors of all parameters as an adapter of PEFT.
    fn exported(&self, tensors: NamedTensors) -> (tempfile::TempDir, TensorStore) {
        let folder = tempfile::tempdir().unwrap();
        let saved = checkpoint(folder.path(), tensors);
        let (model, out) = (&self.fixture.model, folder.path().join("out"));
        export_adapter(&saved, model, &self.fixture.folder, &out).unwrap();
        let store = TensorStore::open_file(&out.join("adapter_model.safetensors")).unwrap();
        (folder, store)
    }
}

#[test]
fn gradients_and_a_step_of_adapters_equal_peft() {
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    for name in ADAPTERS {
        let adapted = adapted(name);
        let fixture = &adapted.fixture;
        let partition = halves(&fixture.model);
        for strategy in ["keep", "full"] {
            let sequences = fixture.sequences();
            let (batch, plan) = planned(fixture, &partition, sequences, &mut rng, &[strategy]);
            let mut pipeline = adapted.pipeline(&partition);
            let loss = pipeline.run(&plan, &batch, None).unwrap().loss;
            let expected = f64::from(fixture.expected.all("loss").unwrap()[0]);
            assert!((loss / expected - 1.0).abs() < f64::from(TOLERANCE), "{loss} {expected}");
            let gradients = pipeline.export(TensorKind::Gradients).unwrap();
            let before = pipeline.export(TensorKind::Parameters).unwrap();
            let (_, mut oracle) = fixture.oracle(&before, &batch);
            oracle.retain(|name, _| name.contains(".lora."));
            let worst = difference(&gradients, &oracle);
            assert!(worst < 1e-4, "{name}: {worst}");
            let update = Update { learning_rate: LEARNING_RATE, clip_norm: 0.0, loss_scale: 1.0 };
            pipeline.run(&plan, &batch, Some(update)).unwrap();
            let stepped = pipeline.export(TensorKind::Parameters).unwrap();
            let ((_a, gradients), (_b, stepped)) =
                (adapted.exported(gradients), adapted.exported(stepped));
            let norms = fixture.expected.names();
            let tensors: Vec<_> =
                norms.filter_map(|name| name.strip_prefix("gradient_norm:")).collect();
            let read = TensorStore::open_file(&adapted.adapter.join("adapter_model.safetensors"));
            assert_eq!(tensors.len(), read.unwrap().names().count());
            for tensor in tensors {
                let compare = Comparison::read(fixture, tensor, &gradients);
                compare.gradients(&gradients.all(tensor).unwrap());
                compare.step(&stepped.all(tensor).unwrap());
            }
        }
    }
}

#[test]
fn a_written_adapter_equals_the_one_that_was_read() {
    for name in all() {
        let adapted = adapted(name);
        let mut pipeline = adapted.pipeline(&halves(&adapted.fixture.model));
        let parameters = pipeline.export(TensorKind::Parameters).unwrap();
        let (folder, written) = adapted.exported(parameters);
        let path = adapted.adapter.join("adapter_model.safetensors");
        let read = TensorStore::open_file(&path).unwrap();
        assert!(read.names().eq(written.names()));
        for tensor in read.names() {
            assert_eq!(read.shape(tensor), written.shape(tensor), "{tensor}");
            assert_eq!(read.all(tensor).unwrap(), written.all(tensor).unwrap(), "{tensor}");
        }
        let config = std::fs::read_to_string(folder.path().join("out/adapter_config.json"));
        let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
        assert_eq!(config["use_dora"], name == "peft-dora");
        let settings =
            std::fs::read_to_string(adapted.adapter.join("adapter_config.json")).unwrap();
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
        for pattern in ["rank_pattern", "alpha_pattern"] {
            assert_eq!(config[pattern], settings[pattern], "{name}");
        }
        let paths = config["target_modules"].as_array().unwrap().len();
        assert_eq!(paths, read.names().count() / if name == "peft-dora" { 3 } else { 2 });
    }
}

#[test]
fn a_model_with_an_adapter_has_the_logits_of_peft() {
    for name in all() {
        let adapted = adapted(name);
        let weights = adapted.weights();
        let start = InitialWeights { seed: 0, weights: Some(&weights) };
        let model = &adapted.fixture.model;
        let whole = WholeModel::<B>::init(model, start, &Default::default()).unwrap();
        for case in &adapted.fixture.cases {
            let logits = whole.logits(&case.sequence).unwrap().into_data();
            let worst = largest(&case.logits, &logits.to_vec::<f32>().unwrap());
            assert!(worst < TOLERANCE, "{name}: {worst}");
        }
    }
}

#[test]
fn a_model_with_a_merged_adapter_has_the_logits_of_peft() {
    for name in all() {
        let Adapted { mut fixture, adapter } = adapted(name);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("merged");
        fixture.model.modules.iter_mut().for_each(|module| module.lora = None);
        merge(&adapter, &fixture.model, &fixture.folder, &out, ExportConfig::default()).unwrap();
        fixture.folder = out;
        let worst = fixture.difference(&fixture.model);
        assert!(worst < TOLERANCE, "{name}: {worst}");
    }
}

#[test]
fn magnitudes_start_at_the_norms_of_the_weights_and_exports_hold_them() {
    let Adapted { mut fixture, .. } = adapted("peft-dora");
    // Without a file of adapters, the model is the published model.
    let published = Fixture::read("llama-biases");
    fixture.cases = published.cases;
    assert!(fixture.difference(&fixture.model) < TOLERANCE);
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let partition = halves(&fixture.model);
    let mut pipeline = fixture.pipeline(&partition);
    let (batch, plan) = planned(&fixture, &partition, fixture.sequences(), &mut rng, &["keep"]);
    let update = Update { learning_rate: 0.02, clip_norm: 0.0, loss_scale: 1.0 };
    for _ in 0..3 {
        pipeline.run(&plan, &batch, Some(update)).unwrap();
    }
    let parameters = pipeline.export(TensorKind::Parameters).unwrap();
    let mut whole = WholeModel::<B>::init(&fixture.model, 0, &Default::default()).unwrap();
    whole.load(&parameters).unwrap();
    let folder = fixture.exported(parameters, ExportConfig::default());
    for case in &mut fixture.cases {
        let logits = whole.logits(&case.sequence).unwrap().into_data().to_vec::<f32>().unwrap();
        assert!(largest(&case.logits, &logits) > 0.02);
        case.logits = logits.chunks(96).map(<[f32]>::to_vec).collect();
    }
    fixture.model.modules[0].lora = None;
    fixture.folder = super::out(&folder);
    assert!(fixture.difference(&fixture.model) < TOLERANCE);
}

#[test]
fn adapters_that_do_not_fit_are_refused_by_name() {
    let Adapted { mut fixture, adapter } = adapted("peft-lora");
    let opened = |model: &ModelSpec, adapter: &std::path::Path| {
        let weights = Weights::open(&fixture.folder, model).unwrap();
        weights.with_adapter(adapter, &fixture.folder, model).err().map(|e| e.to_string())
    };
    let mut model = fixture.model.clone();
    model.modules[0].lora.as_mut().unwrap().rank = 4;
    let error = opened(&model, &adapter).unwrap();
    assert!(error.contains("has r 3") && error.contains("[lora]"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    for (from, to, named) in [
        ("\"LORA\"", "\"IA3\"", "peft_type"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias"),
        ("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save"),
        ("\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", "fan_in_fan_out"),
        ("\"r\": 3", "\"r\": \"x\"", "adapter_config.json"),
        ("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"q.*\": 3.0}", "q.*"),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 2}", "q_proj"),
    ] {
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(adapter.join(name), folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("adapter_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = opened(&fixture.model, folder.path()).unwrap();
        assert!(error.contains(named), "{named}: {error}");
    }
    fixture.model.modules[0].lora = None;
    let out = folder.path().join("merged");
    let other = Fixture::read("qwen3");
    let error = merge(&adapter, &other.model, &other.folder, &out, ExportConfig::default());
    assert!(error.unwrap_err().to_string().contains("does not fit"));
    assert!(!out.exists());
}
