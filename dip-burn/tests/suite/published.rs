//! Models of Hugging Face: logits equal the logits of `transformers`, on one rank and on two.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dip_burn::model::{ChunkSpec, InitialWeights, Modalities, WholeModel};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{OptimizerConfig, Pipeline, PipelineInit, ReplicaWork, TensorKind, Update};
use dip_burn::stage::ChunkStage;
use dip_burn::train::checkpoint::{CHECKPOINT_SCHEMA, Checkpoint, RunState, save};
use dip_burn::weights::{ExportConfig, TensorStore, Weights, export};
use dip_burn::{Batch, Image, Microbatch};
use dip_core::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::gradients::difference;
use crate::support::*;

const MODELS: [&str; 5] = ["llama", "qwen2", "qwen2-vl", "llava-clip", "llava-siglip"];
const TOLERANCE: f32 = 1e-4;

/// A tiny random model with an input and the logits of `transformers`.
pub struct Fixture {
    pub folder: PathBuf,
    pub model: ModelSpec,
    pub sequence: Microbatch,
    /// `[tokens][vocab]`
    pub logits: Vec<Vec<f32>>,
}

impl Fixture {
    pub fn read(name: &str) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hf");
        let folder = PathBuf::from(root).join(name);
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let mut model = hf::from_config(name, &config).unwrap().spec;
        let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            let data = file.tensor(name).map(|t| t.data().to_vec()).unwrap_or_default();
            data.chunks_exact(4).map(|b| b.try_into().unwrap()).collect()
        };
        let integers =
            |name| -> Vec<u32> { words(name).into_iter().map(u32::from_le_bytes).collect() };
        let floats =
            |name| -> Vec<f32> { words(name).into_iter().map(f32::from_le_bytes).collect() };
        let tokens = integers("input_ids");
        if let Ok(pixels) = file.tensor("pixels") {
            set_image_px(&mut model, pixels.shape()[2] as u32);
        }
        let image_px = file.tensor("pixels").map_or(1, |p| p.shape()[2]);
        let pixels = floats("pixels");
        let images = pixels.chunks(3 * image_px * image_px);
        let statistics = model.modules[0].tower().pixel_statistics().unwrap_or([(0.5, 0.5); 3]);
        let images = images.map(|pixels| unnormalised(pixels, &statistics)).collect();
        let length = tokens.len();
        model.sequence_tokens = length as u32;
        model.validate().unwrap();
        let vocab = file.tensor("logits").unwrap().shape()[1];
        let logits = floats("logits").chunks(vocab).map(<[f32]>::to_vec).collect();
        let sequence = Microbatch {
            documents: vec![0; length],
            positions: (0..length as u32).collect(),
            targets: tokens.iter().cycle().skip(1).take(length).copied().collect(),
            loss_mask: vec![true; length],
            images,
            image_offsets: integers("offsets"),
            tokens,
            ..Microbatch::default()
        };
        Self { folder, model, sequence, logits }
    }

    pub fn weights(&self) -> Weights {
        Weights::open(&self.folder, &self.model).unwrap()
    }

    /// Two ranks with the halves of every module, each with the weights of its layers.
    fn pipeline(&self) -> Pipeline<B> {
        self.replicas(1)
    }

    /// `count` replicas of [`Self::pipeline`], each with a share of the optimiser state.
    fn replicas(&self, count: usize) -> Pipeline<B> {
        let weights = self.weights();
        let (partition, devices) = (halves(&self.model), vec![Default::default(); 2 * count]);
        let init = PipelineInit::new(&self.model, &partition, devices)
            .with_weights(InitialWeights { seed: 0, weights: Some(&weights) })
            .with_optimizer(OptimizerConfig { shard: true, ..OptimizerConfig::default() });
        Pipeline::new(&init).unwrap()
    }

    /// The largest difference between the logits of `model` with these weights and the logits of `transformers`.
    fn difference(&self, model: &ModelSpec) -> f32 {
        let weights = Weights::open(&self.folder, model).unwrap();
        let start = InitialWeights { seed: 0, weights: Some(&weights) };
        let whole = WholeModel::<B>::init(model, start, &Default::default()).unwrap();
        let logits = whole.logits(&self.sequence).unwrap().into_data();
        largest(&self.logits, &logits.to_vec::<f32>().unwrap())
    }

    /// The cross-entropy of `transformers` at a place, in nats.
    fn loss(&self, place: usize) -> f64 {
        let logits = &self.logits[place];
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        sum.ln() - f64::from(logits[self.sequence.targets[place] as usize])
    }
}

/// The image, from -1 to 1, before `transformers` normalised its pixels.
fn unnormalised(pixels: &[f32], statistics: &[(f32, f32); 3]) -> Image {
    let colours = pixels.chunks(pixels.len() / 3).zip(statistics);
    let values = colours.flat_map(|(values, (mean, deviation))| {
        values.iter().map(move |v| 2.0 * (v * deviation + mean) - 1.0)
    });
    Image { pixels: values.collect() }
}

fn set_image_px(model: &mut ModelSpec, px: u32) {
    for module in &mut model.modules {
        if let ModuleKind::Vit(VitSpec { image_px, .. }) = &mut module.kind {
            *image_px = px;
        }
    }
}

/// Largest difference between two tables.
fn largest(a: &[Vec<f32>], b: &[f32]) -> f32 {
    let a: Vec<f32> = a.iter().flatten().copied().collect();
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_equal_transformers() {
    for name in MODELS {
        let fixture = Fixture::read(name);
        let worst = fixture.difference(&fixture.model);
        eprintln!("{name}: {worst:e}");
        assert!(worst < TOLERANCE, "{name}: {worst}");
    }
}

#[test]
fn every_option_of_a_published_model_changes_its_logits() {
    type Change = fn(&mut ModuleSpec);
    let changes: [(&str, usize, &str, Change); 10] = [
        ("llama", 0, "theta", |m| m.options.rope.theta = 1e4),
        ("llama", 0, "scaling", |m| m.options.rope.scaling = None),
        ("llama", 0, "epsilon", |m| m.options.norm_epsilon = 1e-2),
        ("qwen2-vl", 0, "theta", |m| m.options.rope.theta = 1e3),
        ("qwen2-vl", 0, "activation", |m| m.options.activation = Activation::Gelu),
        ("qwen2-vl", 1, "sections", |m| m.options.rope.sections = None),
        ("qwen2-vl", 1, "order of sections", |m| m.options.rope.sections = Some([1, 1, 2])),
        ("llava-clip", 0, "activation", |m| m.options.activation = Activation::Gelu),
        ("llava-clip", 0, "epsilon", |m| m.options.norm_epsilon = 1e-2),
        ("llava-siglip", 0, "activation", |m| m.options.activation = Activation::QuickGelu),
    ];
    for (name, module, option, change) in changes {
        let fixture = Fixture::read(name);
        let mut model = fixture.model.clone();
        change(&mut model.modules[module]);
        let worst = fixture.difference(&model);
        assert!(worst > 10.0 * TOLERANCE, "{name} {option}: {worst}");
    }
}

#[test]
fn two_ranks_have_the_losses_of_transformers_at_every_place() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for name in MODELS {
        let fixture = Fixture::read(name);
        // One batch per place, so that every place is compared separately.
        let places = 0..fixture.sequence.tokens.len();
        for place in places.step_by(3) {
            let mut sequence = fixture.sequence.clone();
            sequence.loss_mask = (0..sequence.tokens.len()).map(|i| i == place).collect();
            let loss = loss_on_two_ranks(&fixture, sequence, &mut rng);
            let expected = fixture.loss(place);
            assert!(
                (loss - expected).abs() < f64::from(TOLERANCE),
                "{name} {place}: {loss} {expected}"
            );
        }
    }
}

/// The loss on two ranks, each with the weights of its layers.
fn loss_on_two_ranks(fixture: &Fixture, sequence: Microbatch, rng: &mut ChaCha8Rng) -> f64 {
    let (batch, plan) = planned(fixture, sequence, rng, &["keep"]);
    fixture.pipeline().run(&plan, &batch, None).unwrap().loss
}

/// A batch of one sequence and a random plan for it on two ranks.
fn planned(
    fixture: &Fixture,
    sequence: Microbatch,
    rng: &mut ChaCha8Rng,
    strategies: &[&str],
) -> (Arc<Batch>, Plan) {
    let model = &fixture.model;
    let images = sequence.images.len() as u32;
    let per_image: u64 = model.modules.iter().map(|m| u64::from(m.tokens_per_image())).sum();
    let text_tokens = sequence.tokens.len() as u64 - per_image * u64::from(images);
    let meta = MicrobatchMeta { images, text_tokens, ..Default::default() };
    let metas = BatchMeta { iteration: 0, microbatches: vec![meta] };
    let split = random_split(rng, model, &metas);
    let trained_tokens = sequence.trained_tokens();
    let batch = Arc::new(Batch { microbatches: vec![sequence], split, trained_tokens });
    let graph = graph(model, &halves(model), &metas, &batch, rng.random_bool(0.5));
    let plan = random_plan(rng, graph, strategies);
    (batch, plan)
}

/// Two ranks; each has one half of every module.
pub fn halves(model: &ModelSpec) -> Partition {
    let modules = model.modules.iter().map(|m| {
        let half = m.layers / 2;
        let chunk = |rank, layers| Chunk { rank: RankId(rank), segment: SegmentId(rank), layers };
        ModulePartition {
            sub_microbatch: 1,
            chunks: vec![chunk(0, 0..half), chunk(1, half..m.layers)],
        }
    });
    Partition { ranks: 2, modules: modules.collect() }
}

#[test]
fn a_model_of_another_shape_is_refused_with_the_name_of_the_tensor() {
    let fixture = Fixture::read("llava-clip");
    let error = |change: &dyn Fn(&mut ModelSpec)| {
        let mut model = fixture.model.clone();
        change(&mut model);
        Weights::open(&fixture.folder, &model).unwrap_err().to_string()
    };
    let ffn = error(&|m| m.modules[1].ffn = 40);
    assert!(
        ffn.contains("mlp.gate_proj.weight\" has shape [48, 32], but must be [40, 32]"),
        "{ffn}"
    );
    let px = error(&|m| set_image_px(m, 20));
    assert!(px.contains("position_embedding.weight\" has shape [17, 24]"), "{px}");
    let deeper = error(&|m| m.modules[1].layers = 5);
    assert!(deeper.contains("9 tensors are missing") && deeper.contains("layers.4."), "{deeper}");
    let flatter = error(&|m| m.modules[1].layers = 3);
    assert!(flatter.contains("9 tensors belong to nothing in the model"), "{flatter}");
}

#[test]
fn names_of_every_version_of_transformers_are_understood() {
    for (name, renamed) in [
        ("qwen2-vl", &[("model.", "model.language_model."), ("visual.", "model.visual.")][..]),
        ("llava-clip", &[("vision_tower.", "vision_tower.vision_model.")]),
        (
            "llava-siglip",
            &[
                ("language_model.model.", "model.language_model."),
                ("language_model.lm_head.", "lm_head."),
                ("vision_tower.", "model.vision_tower.vision_model."),
                ("multi_modal_projector.", "model.multi_modal_projector."),
            ],
        ),
    ] {
        let mut fixture = Fixture::read(name);
        let store = TensorStore::open(&fixture.folder).unwrap();
        let tensors = store.names().map(|old| {
            let new = renamed.iter().find_map(|(from, to)| Some((*to, old.strip_prefix(from)?)));
            let new = new.map_or(old.to_owned(), |(to, rest)| format!("{to}{rest}"));
            (new, (store.shape(old).unwrap().to_vec(), store.all(old).unwrap()))
        });
        let tensors: Vec<_> = tensors.collect();
        let bytes =
            |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let data: Vec<_> = tensors.iter().map(|(_, (_, values))| bytes(values)).collect();
        let views = tensors.iter().zip(&data).map(|((name, (shape, _)), data)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
        });
        let file = safetensors::serialize(views, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let config = fixture.folder.join("config.json");
        std::fs::copy(config, folder.path().join("config.json")).unwrap();
        fixture.folder = folder.path().to_owned();
        assert!(fixture.difference(&fixture.model) < TOLERANCE, "{name}");
    }
}

#[test]
fn a_rank_reads_no_tensor_of_other_layers() {
    let fixture = Fixture::read("llama");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&fixture.folder).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let weights = Weights::open(folder.path(), &fixture.model).unwrap();
    // The shard with the last layer is deleted after its header was read.
    let name = "model.layers.3.mlp.down_proj.weight";
    let store = |path: &std::path::Path| TensorStore::open_file(path).unwrap();
    let shards = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path());
    let mut shards = shards.filter(|p| p.extension().is_some_and(|e| e == "safetensors"));
    let shard = shards.find(|p| store(p).shape(name).is_some()).unwrap();
    std::fs::remove_file(shard).unwrap();
    let chunk = |layers| {
        let start = InitialWeights { seed: 0, weights: Some(&weights) };
        let device = Default::default();
        let chunk = ChunkSpec { model: &fixture.model, module: ModuleId(0), layers };
        ChunkStage::<B>::new(&chunk, &Modalities::default(), start, &device)
    };
    assert!(chunk(0..1).is_ok());
    assert!(chunk(3..4).is_err());
}

#[test]
fn gradients_of_published_models_equal_autodiff() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for name in MODELS {
        for strategy in ["keep", "selective", "full"] {
            let fixture = Fixture::read(name);
            let (batch, plan) = planned(&fixture, fixture.sequence.clone(), &mut rng, &[strategy]);
            let mut pipeline = fixture.pipeline();
            let report = pipeline.run(&plan, &batch, None).unwrap();
            let weights = pipeline.export(TensorKind::Parameters).unwrap();
            let (loss, mut expected) = fixture.oracle(&weights, &batch);
            assert!((report.loss - loss).abs() < 1e-5 * loss, "{name}: {} {loss}", report.loss);
            let mut gradients = pipeline.export(TensorKind::Gradients).unwrap();
            // Without rotary positions, a bias on keys shifts all scores of a row equally, so its gradient is only rounding.
            if name.starts_with("llava") {
                for gradients in [&mut gradients, &mut expected] {
                    gradients.retain(|name, g| {
                        let vanishes = name.starts_with("vision") && name.ends_with("key.bias");
                        let small = |g: &&f32| g.abs() < 1e-5;
                        assert!(!vanishes || g.to_vec::<f32>().unwrap().iter().all(|g| small(&g)));
                        !vanishes
                    });
                }
            }
            let worst = difference(&gradients, &expected);
            assert!(worst < 1e-4, "{name} {strategy}: {worst}");
        }
    }
}

impl Fixture {
    /// Loss and gradients of these weights from one graph of Burn's autodiff.
    fn oracle(&self, weights: &NamedTensors, batch: &Batch) -> (f64, NamedTensors) {
        let mut whole = WholeModel::<Oracle>::init(&self.model, 0, &Default::default()).unwrap();
        whole.load(weights).unwrap();
        whole.loss_and_gradients(batch)
    }
}

#[test]
fn both_ends_of_a_tied_decoder_learn_from_the_sum_of_their_gradients() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let fixture = Fixture::read("qwen2");
    let (batch, plan) = planned(&fixture, fixture.sequence.clone(), &mut rng, &["keep"]);
    let before = fixture.pipeline().export(TensorKind::Parameters).unwrap();
    let (_, mut gradients) = fixture.oracle(&before, &batch);
    let head: Vec<f32> = gradients.remove("language.end.head.weight").unwrap().to_vec().unwrap();
    let table: Vec<f32> = gradients.remove("language.embed.weight").unwrap().to_vec().unwrap();
    let of_table = |i: usize| f64::from(table[i]) + f64::from(head[i % 32 * 96 + i / 32]);
    let squares = |data: &burn::tensor::TensorData| {
        data.to_vec::<f32>().unwrap().iter().map(|&g| f64::from(g).powi(2)).sum::<f64>()
    };
    let tied: f64 = (0..96 * 32).map(|i| of_table(i).powi(2)).sum();
    let norm = (tied + gradients.values().map(squares).sum::<f64>()).sqrt();
    let update = Update { learning_rate: 0.01, clip_norm: 0.0, loss_scale: 1.0 };
    for replicas in [1, 2] {
        // Replicas with the same sequence share its loss, so that their gradients add up to the gradients of one replica.
        let mut share = Batch::clone(&batch);
        share.trained_tokens *= replicas as u64;
        let share = Arc::new(share);
        let work: Vec<_> =
            (0..replicas).map(|_| ReplicaWork { plan: &plan, batch: &share }).collect();
        let mut pipeline = fixture.replicas(replicas);
        let report = pipeline.run_replicas(&work, Some(update)).unwrap();
        assert!((report.gradient_norm / norm - 1.0).abs() < 1e-5, "{report:?} {norm}");
        for _ in 0..3 {
            pipeline.run_replicas(&work, Some(update)).unwrap();
        }
        let after = pipeline.export(TensorKind::Parameters).unwrap();
        let values = |name: &str| after[name].to_vec::<f32>().unwrap();
        let (table, head) = (values("language.embed.weight"), values("language.end.head.weight"));
        assert!((0..96 * 32).all(|i| table[i] == head[i % 32 * 96 + i / 32]));
        assert_ne!(after["language.embed.weight"], before["language.embed.weight"]);
    }
}

#[test]
fn adapters_learn_and_frozen_weights_stay() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut fixture = Fixture::read("qwen2-vl");
    let targets =
        |targets: &[LoraTarget]| Some(Lora { rank: 3, alpha: 6.0, targets: targets.to_vec() });
    fixture.model.modules[0].lora = targets(&[LoraTarget::Query, LoraTarget::Up, LoraTarget::Down]);
    fixture.model.modules[1].lora = targets(&LoraTarget::ALL);
    fixture.model.validate().unwrap();
    // Adapters begin at zero, so the model still equals the published model.
    assert!(fixture.difference(&fixture.model) < TOLERANCE);
    let mut pipeline = fixture.pipeline();
    let before = pipeline.export(TensorKind::Parameters).unwrap();
    let update = Update { learning_rate: 0.01, clip_norm: 0.0, loss_scale: 1.0 };
    let mut losses = Vec::new();
    for strategy in ["keep", "selective", "full", "keep"] {
        let (batch, plan) = planned(&fixture, fixture.sequence.clone(), &mut rng, &[strategy]);
        losses.push(pipeline.run(&plan, &batch, Some(update)).unwrap().loss);
        // After a step both matrices are nonzero, so the gradients of both are compared.
        let report = pipeline.run(&plan, &batch, None).unwrap();
        let weights = pipeline.export(TensorKind::Parameters).unwrap();
        let (loss, mut expected) = fixture.oracle(&weights, &batch);
        expected.retain(|name, _| name.contains(".lora."));
        assert_eq!(expected.len(), 2 * (3 * 3 + 4 * 7));
        assert!((report.loss - loss).abs() < 1e-5 * loss, "{} {loss}", report.loss);
        let worst = difference(&pipeline.export(TensorKind::Gradients).unwrap(), &expected);
        assert!(worst < 1e-4, "{strategy}: {worst}");
    }
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    for (name, value) in pipeline.export(TensorKind::Parameters).unwrap() {
        assert_eq!(value != before[&name], name.contains(".lora."), "{name}");
    }
}

/// Exports a checkpoint of a pipeline into the subfolder `out` of the result.
fn exported(
    fixture: &Fixture,
    pipeline: &mut Pipeline<B>,
    config: ExportConfig,
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint {
        model: pipeline.export(TensorKind::Parameters).unwrap(),
        optimizer: NamedTensors::new(),
        state: RunState {
            schema: CHECKPOINT_SCHEMA.into(),
            iteration: 1,
            optimizer_steps: 1,
            early_stop: Default::default(),
            loss_scale: None,
            data: (),
        },
    };
    let saved = save(folder.path(), &checkpoint, 1).unwrap();
    export(&saved, &fixture.model, &fixture.folder, &folder.path().join("out"), config).unwrap();
    folder
}

#[test]
fn an_export_has_every_tensor_of_the_published_model_with_its_values() {
    for name in MODELS {
        let fixture = Fixture::read(name);
        let config = ExportConfig { shard_bytes: 50_000, bf16: false };
        let folder = exported(&fixture, &mut fixture.pipeline(), config);
        let out = folder.path().join("out");
        let (before, after) =
            (TensorStore::open(&fixture.folder).unwrap(), TensorStore::open(&out).unwrap());
        assert!(before.names().eq(after.names()), "{name}");
        for tensor in before.names() {
            assert_eq!(before.shape(tensor), after.shape(tensor), "{name} {tensor}");
            assert_eq!(before.all(tensor).unwrap(), after.all(tensor).unwrap(), "{name} {tensor}");
        }
        let read = |folder: &Path| std::fs::read(folder.join("config.json")).unwrap();
        assert_eq!(read(&fixture.folder), read(&out));
        for file in std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().path()) {
            if file.extension().is_some_and(|e| e == "safetensors") {
                assert!(std::fs::metadata(&file).unwrap().len() < 50_000 + 20_000, "{file:?}");
                // Other readers accept it, too.
                SafeTensors::deserialize(&std::fs::read(&file).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn an_export_in_bf16_rounds_and_an_existing_folder_is_refused() {
    let fixture = Fixture::read("qwen2");
    let config = ExportConfig { bf16: true, ..ExportConfig::default() };
    let folder = exported(&fixture, &mut fixture.pipeline(), config);
    let out = folder.path().join("out");
    // The weights of this model have an exact form in bf16.
    let bytes = |folder: &Path| std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(bytes(&out) < bytes(&fixture.folder) + 1000);
    let again = Fixture { folder: out.clone(), ..Fixture::read("qwen2") };
    assert!(again.difference(&again.model) < TOLERANCE);
    let checkpoint = folder.path().join("checkpoint-00000001");
    let error = export(&checkpoint, &fixture.model, &fixture.folder, &out, config).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
}

#[test]
fn exported_adapters_are_part_of_the_weights() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let mut fixture = Fixture::read("llava-clip");
    let plain = fixture.model.clone();
    let targets = LoraTarget::ALL.to_vec();
    fixture.model.modules[1].lora = Some(Lora { rank: 2, alpha: 5.0, targets });
    let mut pipeline = fixture.pipeline();
    let (batch, plan) = planned(&fixture, fixture.sequence.clone(), &mut rng, &["keep"]);
    let update = Update { learning_rate: 0.02, clip_norm: 0.0, loss_scale: 1.0 };
    for _ in 0..3 {
        pipeline.run(&plan, &batch, Some(update)).unwrap();
    }
    let folder = exported(&fixture, &mut pipeline, ExportConfig::default());
    let mut whole = WholeModel::<B>::init(&fixture.model, 0, &Default::default()).unwrap();
    whole.load(&pipeline.export(TensorKind::Parameters).unwrap()).unwrap();
    let logits = whole.logits(&fixture.sequence).unwrap().into_data().to_vec::<f32>().unwrap();
    let moved = largest(&fixture.logits, &logits);
    assert!(moved > 0.1, "{moved}");
    let merged = Fixture {
        folder: folder.path().join("out"),
        logits: logits.chunks(96).map(<[f32]>::to_vec).collect(),
        ..fixture
    };
    let worst = merged.difference(&plain);
    assert!(worst < TOLERANCE, "{worst}");
}
