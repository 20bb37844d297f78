//! The checks that every model passes.

use burn::tensor::TensorData;
use dip_burn::inference::continue_prompts;
use dip_burn::model::{Continuation, InitialWeights, Precision, TokenChoice, WholeModel};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{Algorithm, OptimizerConfig, Pipeline, PipelineInit, TensorKind, Update};
use dip_burn::weights::{ExportConfig, TensorStore};
use dip_burn::{Microbatch, Prompt};
use dip_core::{ModuleSpec, Partition};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

use super::{Case, Fixture, TOLERANCE, halves, out, planned, whole};
use crate::gradients::difference;
use crate::precision::distance;
use crate::support::B;

/// The step of `scripts/hf_fixtures/common.py`.
pub const LEARNING_RATE: f64 = 0.01;
pub const WEIGHT_DECAY: f32 = 0.1;

/// Tests of the standard checks for fixtures: `standard_checks!(module: "folder", ...);`.
macro_rules! standard_checks {
    ($($module:ident: $folder:literal),+ $(,)?) => {$(
        mod $module {
            use super::super::checks;

            #[test]
            fn logits_equal_transformers() {
                checks::logits($folder);
            }

            #[test]
            fn two_ranks_have_the_losses_of_transformers_at_every_place() {
                checks::losses($folder);
            }

            #[test]
            fn losses_scores_and_captions_of_two_ranks_are_those_of_one_device() {
                checks::inference($folder);
            }

            #[test]
            fn gradients_equal_autodiff() {
                checks::gradients($folder);
            }

            #[test]
            fn loss_gradients_and_a_step_of_adamw_equal_torch() {
                checks::torch($folder);
            }

            #[test]
            fn bf16_gives_the_loss_and_gradients_of_f32_to_its_precision() {
                checks::bf16($folder);
            }

            #[test]
            fn an_export_has_every_tensor_with_its_values() {
                checks::export($folder);
            }
        }
    )+};
}
pub(super) use standard_checks;

pub fn logits(name: &str) {
    let fixture = Fixture::read(name);
    let worst = fixture.difference(&fixture.model);
    eprintln!("{name}: {worst:e}");
    assert!(worst < TOLERANCE, "{name}: {worst}");
}

/// A change of one option of a module.
pub type OptionChange = (&'static str, usize, &'static str, fn(&mut ModuleSpec));

/// Every change of an option, by fixture, module and name, moves the logits.
pub fn options_change_logits(changes: &[OptionChange]) {
    for (name, module, option, change) in changes {
        let fixture = Fixture::read(name);
        let mut model = fixture.model.clone();
        change(&mut model.modules[*module]);
        let worst = fixture.difference(&model);
        assert!(worst > 10.0 * TOLERANCE, "{name} {option}: {worst}");
    }
}

pub fn losses(name: &str) {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let fixture = Fixture::read(name);
    let partition = halves(&fixture.model);
    let mut pipeline = fixture.pipeline(&partition);
    for case in &fixture.cases {
        // One batch per place, so that every place is compared separately.
        for place in (0..case.sequence.tokens.len()).step_by(3) {
            let mut sequence = case.sequence.clone();
            sequence.loss_mask = (0..sequence.tokens.len()).map(|i| i == place).collect();
            let (batch, plan) = planned(&fixture, &partition, vec![sequence], &mut rng, &["keep"]);
            let loss = pipeline.run(&plan, &batch, None).unwrap().loss;
            let expected = case.loss(place);
            let worst = f64::from(TOLERANCE) * expected.max(1.0);
            assert!((loss - expected).abs() < worst, "{name} {place}: {loss} {expected}");
        }
    }
}

/// Through the pipeline, losses have the bits of the whole model; captions have its tokens, although every new token runs alone and
/// several captions at once.
pub fn inference(name: &str) {
    let fixture = Fixture::read(name);
    let (weights, sequences) = (fixture.weights(), fixture.sequences());
    let one_rank = whole(&fixture.model);
    let start = InitialWeights { seed: 0, weights: Some(&weights) };
    let whole = WholeModel::<B>::init(&fixture.model, start, &Default::default()).unwrap();
    let prompt = |case: &Case| {
        let Microbatch { tokens, positions, images, image_offsets, sounds, .. } =
            case.sequence.clone();
        Prompt { tokens, positions, images, image_offsets, sounds }
    };
    let mut prompts: Vec<Prompt> = fixture.cases.iter().map(prompt).collect();
    // More than one group.
    prompts.extend(prompts.first().cloned());
    let (most, never) = (6, u32::MAX);
    let expected = whole.generate(&prompts, never, most).unwrap();
    assert!(expected.iter().all(|tokens| tokens.len() == most), "{name}");
    // The caption of one prompt ends early.
    let stop = expected[0][most / 2];
    let before = |tokens: &Vec<u32>| tokens.iter().copied().take_while(|&t| t != stop).collect();
    let stopped: Vec<Vec<u32>> = expected.iter().map(before).collect();
    for (partition, replicas) in [(one_rank, 1), (halves(&fixture.model), 2)] {
        let mut pipeline = fixture.replicas(&partition, replicas, OptimizerConfig::default());
        let mut model = pipeline.forwards().unwrap();
        assert_eq!(model.loss(&sequences).unwrap(), whole.loss(&sequences).unwrap(), "{name}");
        let mut continued = |stop: Vec<u32>, choice: TokenChoice| {
            let how = Continuation { stop, max_tokens: most, choice };
            continue_prompts(&mut model, &prompts, &how).unwrap()
        };
        let greedy = TokenChoice::default;
        assert_eq!(continued(vec![never], greedy()), expected, "{name}");
        assert_eq!(continued(vec![never - 1, stop], greedy()), stopped, "{name}");
        // What is drawn follows from the seed alone.
        let draws = |seed| TokenChoice { draws: true, temperature: 2.0, seed, ..greedy() };
        let drawn = continued(Vec::new(), draws(1));
        assert_eq!(drawn, continued(Vec::new(), draws(1)), "{name}");
        assert!(drawn != expected && drawn != continued(Vec::new(), draws(2)), "{name}");
        let cold = TokenChoice { top_k: 1, ..draws(1) };
        assert_eq!(continued(Vec::new(), cold), expected, "{name}");
    }
}

pub fn gradients(name: &str) {
    gradients_of(&Fixture::read(name));
}

pub fn gradients_of(fixture: &Fixture) {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let partition = halves(&fixture.model);
    for strategy in ["keep", "selective", "full"] {
        let sequences = fixture.sequences();
        let (batch, plan) = planned(fixture, &partition, sequences, &mut rng, &[strategy]);
        let mut pipeline = fixture.pipeline(&partition);
        let report = pipeline.run(&plan, &batch, None).unwrap();
        let weights = pipeline.export(TensorKind::Parameters).unwrap();
        let (loss, mut expected) = fixture.oracle(&weights, &batch);
        let name = &fixture.model.name;
        assert!((report.loss - loss).abs() < 1e-5 * loss, "{name}: {} {loss}", report.loss);
        let mut gradients = pipeline.export(TensorKind::Gradients).unwrap();
        drop_vanishing(&mut gradients);
        drop_vanishing(&mut expected);
        let worst = difference(&gradients, &expected);
        assert!(worst < 1e-4, "{name} {strategy}: {worst}");
    }
}

/// Drops gradients that are only rounding: without rotary positions, a bias on keys shifts all scores of a row equally.
fn drop_vanishing(gradients: &mut NamedTensors) {
    gradients.retain(|name, gradient| {
        let values = gradient.to_vec::<f32>().unwrap();
        !name.ends_with("key.bias") || values.iter().any(|g| g.abs() > 1e-5)
    });
}

pub fn torch(name: &str) {
    torch_of(&Fixture::read(name));
}

pub fn torch_of(fixture: &Fixture) {
    for partition in [whole(&fixture.model), halves(&fixture.model)] {
        step_of_torch(fixture, &partition);
    }
}

/// One step of all cases together gives the loss, the gradients and the weights of torch.
fn step_of_torch(fixture: &Fixture, partition: &Partition) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (batch, plan) = planned(fixture, partition, fixture.sequences(), &mut rng, &["keep"]);
    let optimizer = OptimizerConfig {
        algorithm: Algorithm::Adamw,
        weight_decay: WEIGHT_DECAY,
        beta_1: 0.9,
        beta_2: 0.95,
        ..OptimizerConfig::default()
    };
    let mut pipeline = fixture.replicas(partition, 1, optimizer);
    let loss = pipeline.run(&plan, &batch, None).unwrap().loss;
    let expected = f64::from(fixture.expected.all("loss").unwrap()[0]);
    assert!((loss / expected - 1.0).abs() < f64::from(TOLERANCE), "{loss} {expected}");
    let mut gradients = tied(pipeline.export(TensorKind::Gradients).unwrap(), fixture);
    // An export needs every parameter; fixed ones, such as the positions of an audio encoder, have no gradient.
    for (name, values) in pipeline.export(TensorKind::Parameters).unwrap() {
        let zeros = || TensorData::zeros::<f32, _>(values.shape.clone());
        gradients.entry(name).or_insert_with(zeros);
    }
    let update = Update { learning_rate: LEARNING_RATE, clip_norm: 0.0, loss_scale: 1.0 };
    pipeline.run(&plan, &batch, Some(update)).unwrap();
    let stepped = pipeline.export(TensorKind::Parameters).unwrap();
    let config = ExportConfig::default();
    let (gradients, stepped) =
        (fixture.exported(gradients, config), fixture.exported(stepped, config));
    let gradients = TensorStore::open(&out(&gradients)).unwrap();
    let stepped = TensorStore::open(&out(&stepped)).unwrap();
    let norms = fixture.expected.names().filter_map(|name| name.strip_prefix("gradient_norm:"));
    let mut count = 0;
    for tensor in norms {
        let compare = Comparison::read(fixture, tensor, &gradients);
        compare.gradients(&gradients.all(tensor).unwrap());
        compare.step(&stepped.all(tensor).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} tensors");
}

/// Adds the gradient of the head to the gradient of the token table that it shares.
fn tied(mut gradients: NamedTensors, fixture: &Fixture) -> NamedTensors {
    for module in fixture.model.modules.iter().filter(|m| m.is_tied()) {
        let head = &gradients[&format!("{}.end.head.weight", module.name)];
        let (head, vocab) = (head.to_vec::<f32>().unwrap(), head.shape[1]);
        let name = format!("{}.embed.weight", module.name);
        let table = gradients.get_mut(&name).unwrap();
        let (width, shape) = (module.hidden as usize, table.shape.clone());
        let sum = table.to_vec::<f32>().unwrap().into_iter().enumerate();
        let sum: Vec<f32> = sum.map(|(i, g)| g + head[i % width * vocab + i / width]).collect();
        *table = TensorData::new(sum, shape);
    }
    gradients
}

/// What torch computes for one tensor of the files.
pub struct Comparison<'a> {
    tensor: &'a str,
    norm: f32,
    gradient: Vec<f32>,
    step: Vec<f32>,
    /// Largest gradient of the model that counts as rounding.
    rounding: f32,
}

impl<'a> Comparison<'a> {
    pub fn read(fixture: &Fixture, tensor: &'a str, gradients: &TensorStore) -> Self {
        let expected = |kind: &str| fixture.expected.all(&format!("{kind}:{tensor}")).unwrap();
        let largest = |all: &[f32]| all.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        let all = gradients.names().map(|name| largest(&gradients.all(name).unwrap()));
        Self {
            tensor,
            norm: expected("gradient_norm")[0],
            gradient: expected("gradient"),
            step: expected("step"),
            rounding: 1e-6 * all.fold(0.0, f32::max),
        }
    }

    /// The largest gradient that may be only rounding.
    fn scale(&self) -> f32 {
        self.gradient.iter().fold(self.rounding / TOLERANCE, |m, g| m.max(g.abs()))
    }

    pub fn gradients(&self, ours: &[f32]) {
        let (tensor, scale) = (self.tensor, self.scale());
        for (ours, theirs) in spread(ours, self.gradient.len()).zip(&self.gradient) {
            assert!((ours - theirs).abs() <= TOLERANCE * scale, "{tensor}: {ours} {theirs}");
        }
        let norm = ours.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
        let limit = TOLERANCE * self.norm.max(scale);
        assert!((norm - self.norm).abs() <= limit, "{tensor}: norm {norm} {}", self.norm);
    }

    /// The first step of AdamW has the size of the learning rate wherever there is a gradient, and the sign of that gradient. It is
    /// compared where the sign is more than rounding.
    pub fn step(&self, ours: &[f32]) {
        let scale = self.scale();
        let vanishes = scale == self.rounding / TOLERANCE;
        let places = spread(ours, self.step.len()).zip(&self.step).zip(&self.gradient);
        for ((ours, theirs), gradient) in places {
            let is_small = gradient.abs() <= 100.0 * TOLERANCE * scale;
            let is_rounding = is_small && (vanishes || *gradient != 0.0);
            let limit = if is_rounding { 2.0 } else { f64::from(TOLERANCE) };
            let limit = (limit * LEARNING_RATE) as f32 + 1e-6 * theirs.abs();
            assert!(
                (ours - theirs).abs() <= limit,
                "{}: {ours} {theirs}, gradient {gradient}",
                self.tensor
            );
        }
    }
}

/// The `count` values that `common.py` keeps of a tensor.
fn spread(values: &[f32], count: usize) -> impl Iterator<Item = f32> + '_ {
    (0..count).map(move |i| values[i * values.len() / count])
}

/// Layers in bf16 give nearly the loss and gradients of f32.
pub fn bf16(name: &str) {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let fixture = Fixture::read(name);
    let partition = halves(&fixture.model);
    let sequences = fixture.sequences();
    let (batch, plan) = planned(&fixture, &partition, sequences, &mut rng, &["keep"]);
    let run = |precision| {
        let weights = fixture.weights();
        let init = PipelineInit::new(&fixture.model, &partition, vec![Default::default(); 2])
            .with_precision(precision)
            .with_weights(InitialWeights { seed: 0, weights: Some(&weights) });
        let mut pipeline = Pipeline::<B>::new(&init).unwrap();
        let loss = pipeline.run(&plan, &batch, None).unwrap().loss;
        (loss, pipeline.export(TensorKind::Gradients).unwrap())
    };
    let (exact, expected) = run(Precision::F32);
    let (loss, gradients) = run(Precision::Bf16);
    let (loss_error, error) = ((loss - exact).abs() / exact, distance(&gradients, &expected));
    eprintln!("{name}: {loss_error:e} {error:e}");
    assert!(loss_error < 2e-3, "{name}: the loss differs by {loss_error}");
    assert!(error < 4e-2, "{name}: the gradients differ by {error}");
}

pub fn export(name: &str) {
    let fixture = Fixture::read(name);
    let config = ExportConfig { shard_bytes: 50_000, bf16: false };
    let mut pipeline = fixture.pipeline(&halves(&fixture.model));
    let folder = fixture.exported(pipeline.export(TensorKind::Parameters).unwrap(), config);
    let out = out(&folder);
    let (before, after) =
        (TensorStore::open(&fixture.folder).unwrap(), TensorStore::open(&out).unwrap());
    assert!(before.names().eq(after.names()), "{name}");
    for tensor in before.names() {
        assert_eq!(before.shape(tensor), after.shape(tensor), "{name} {tensor}");
        assert_eq!(before.all(tensor).unwrap(), after.all(tensor).unwrap(), "{name} {tensor}");
    }
    let read = |folder: &std::path::Path| std::fs::read(folder.join("config.json")).unwrap();
    assert_eq!(read(&fixture.folder), read(&out));
    for file in std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "safetensors") {
            assert!(std::fs::metadata(&file).unwrap().len() < 50_000 + 20_000, "{file:?}");
            // Other readers accept it, too.
            SafeTensors::deserialize(&std::fs::read(&file).unwrap()).unwrap();
        }
    }
}
