//! Whole runs of the trainer, with plans drawn at random.

use std::collections::VecDeque;
use std::path::Path;

use dip_burn::model::Modalities;
use dip_burn::runtime::Connections;
use dip_burn::train::{RunConfig, RunData, Trainer, TrainerInit};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::support::*;

/// An encoder and a decoder of four layers each, for the drawn scenes.
pub fn scenes_model() -> ModelSpec {
    ModelSpec::from_toml(
        "name = 'scenes'\nsequence_tokens = 96\nmax_images = 6\nmicrobatches = 4\n\
         [[module]]\nname = 'vision'\nlayers = 4\nhidden = 16\nffn = 32\nheads = 2\n\
         kind.vit = { image_px = 16, patch_px = 4, merge = 2 }\n\
         [[module]]\nname = 'language'\nlayers = 4\nhidden = 24\nffn = 32\nheads = 2\n\
         inputs = ['vision']\nkind.decoder = { vocab = 260 }\n",
    )
    .unwrap()
}

/// A run into `output`, with `more` TOML after its first lines.
pub fn run_config(output: &Path, iterations: u64, more: &str) -> RunConfig {
    let text = format!(
        "name = 'test'\nmodel = 'scenes'\niterations = {iterations}\noutput = {:?}\n\
         [evaluation]\nevery = 5\npictures = 8\ncaptions = 0\n[checkpoint]\nevery = 5\n{more}",
        output
    );
    RunConfig::from_toml(&text).unwrap()
}

/// Random valid plans for a partition, drawn from the batch, so that a resumed run gets the same plans.
pub struct RandomPlans {
    pub model: ModelSpec,
    pub partition: Partition,
    pub seed: u64,
    pub submitted: VecDeque<BatchMeta>,
}

impl PlanSource for RandomPlans {
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError> {
        self.submitted.push_back(batch);
        Ok(())
    }

    fn take(&mut self) -> Result<PlannedBatch, PlanError> {
        let batch = self.submitted.pop_front().ok_or(PlanError::Empty)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed + batch.iteration);
        let split = random_split(&mut rng, &self.model, &batch);
        let graph = graph_of_split(&self.model, &self.partition, &batch, &split, false);
        let plan = random_plan(&mut rng, graph, &["keep", "full"]);
        let (stall, search) = (Seconds::ZERO, Seconds::ZERO);
        let expected = plan.predicted.makespan_s;
        Ok(PlannedBatch { batch, split, plan, expected, stall, search, fallback: false })
    }
}

/// A trainer of `config` on a partition.
pub fn trainer(config: &RunConfig, partition: Partition, seed: u64) -> Trainer<B> {
    trainer_on(config, partition, 1, seed)
}

/// A trainer of `config` on replicas of a partition.
pub fn trainer_on(
    config: &RunConfig,
    partition: Partition,
    replicas: u32,
    seed: u64,
) -> Trainer<B> {
    TestRun::new(config, partition, replicas, seed).trainer()
}

/// A run of [`scenes_model`] with random plans.
pub struct TestRun<'a> {
    pub config: &'a RunConfig,
    pub data: RunData,
    pub partition: Partition,
    pub replicas: u32,
    /// Seed of the plans.
    pub seed: u64,
    pub connections: Connections<B>,
}

impl<'a> TestRun<'a> {
    /// A run of one process on the data that `config` names.
    pub fn new(config: &'a RunConfig, partition: Partition, replicas: u32, seed: u64) -> Self {
        let data =
            RunData::open(&scenes_model(), &config.data, &config.evaluation, config.seed).unwrap();
        Self { config, data, partition, replicas, seed, connections: Connections::default() }
    }

    pub fn trainer(self) -> Trainer<B> {
        let Self { config, data, partition, replicas, seed, connections } = self;
        let model = scenes_model();
        let devices = match &connections.processes {
            Some(own) => own.grid.hosted(own.transport.index()).len(),
            None => (replicas * partition.ranks) as usize,
        };
        let devices = vec![Default::default(); devices];
        let plans = Box::new(RandomPlans {
            model: model.clone(),
            partition: partition.clone(),
            seed,
            submitted: VecDeque::new(),
        });
        let (model, partition) = (&model, &partition);
        let modalities = Modalities::default();
        let init =
            TrainerInit { config, model, partition, plans, data, devices, connections, modalities };
        Trainer::new(init).unwrap()
    }
}

/// Chunks of `layers` layers each, assigned to the ranks in turn.
pub fn even_partition(ranks: u32, layers: [u32; 2]) -> Partition {
    let module = |layers: u32| {
        let chunk = |j: u32| Chunk {
            rank: RankId(j % ranks),
            segment: SegmentId(j / ranks),
            layers: j * layers..(j + 1) * layers,
        };
        ModulePartition { sub_microbatch: 1, chunks: (0..4 / layers).map(chunk).collect() }
    };
    Partition { ranks, modules: layers.map(module).to_vec() }
}

/// The losses of the remaining iterations.
fn losses(trainer: &mut Trainer<B>) -> Vec<f64> {
    let mut losses = Vec::new();
    while !trainer.is_done() {
        losses.push(trainer.step().unwrap().loss);
    }
    losses
}

fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * b, "{found:?} {expected:?}");
    }
}

#[test]
fn a_checkpoint_of_two_ranks_resumes_on_one_and_four_ranks_with_other_segments() {
    let folder = tempfile::tempdir().unwrap();
    let config = run_config(folder.path(), 12, "");
    let mut two = trainer(&config, even_partition(2, [2, 2]), 1);
    for _ in 0..6 {
        two.step().unwrap();
    }
    let checkpoint = two.save().unwrap();
    let expected = losses(&mut two);
    // Ranks, and layers per chunk of encoder and decoder: one to four segments.
    for (ranks, layers) in [(1, [4, 4]), (1, [1, 2]), (2, [2, 1]), (2, [1, 1]), (4, [1, 1])] {
        let mut other = trainer(&config, even_partition(ranks, layers), 2);
        other.load(&checkpoint).unwrap();
        assert_eq!(other.iteration(), 6);
        assert_near(&losses(&mut other), &expected);
    }
}

#[test]
fn a_run_whose_held_out_loss_does_not_fall_ends_early_and_resumes_as_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = run_config(folder.path(), 100, "[optimizer]\nlearning_rate = 0.0\n");
    config.evaluation.patience = 2;
    let mut first = trainer(&config, even_partition(1, [4, 4]), 1);
    first.run(&mut ()).unwrap();
    // The first evaluation sets the best loss; the evaluations after iterations 5 and 10 do not fall below it.
    assert_eq!(first.iteration(), 10);
    let mut again = trainer(&config, even_partition(1, [4, 4]), 1);
    assert!(again.resume().unwrap().is_some());
    assert!(again.is_done());
}

#[test]
fn batches_are_sized_by_tokens_if_the_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = run_config(folder.path(), 6, "[data]\ntokens_per_iteration = 400\n");
    let mut trainer = trainer(&config, even_partition(2, [2, 2]), 1);
    while !trainer.is_done() {
        let report = trainer.step().unwrap();
        assert!((400..400 + 96).contains(&report.tokens), "{}", report.tokens);
    }
}

#[test]
fn an_iteration_whose_gradients_overflow_moves_neither_the_step_count_nor_the_learning_rate() {
    let folder = tempfile::tempdir().unwrap();
    let more = "keep = 9\n[pipeline]\nprecision = 'f16'\n[optimizer]\nwarmup_iterations = 10\n";
    let config = run_config(folder.path(), 12, more);
    let mut before = trainer(&config, even_partition(2, [2, 2]), 1);
    before.step().unwrap();
    // A scale at which all gradients overflow f16.
    let checkpoint = before.save().unwrap();
    change_state(&checkpoint, |state| state["loss_scale"]["scale"] = 1e30.into());

    let mut run = trainer(&config, even_partition(2, [2, 2]), 1);
    assert!(run.resume().unwrap().is_some());
    let [skipped, again] = [run.step().unwrap(), run.step().unwrap()];
    assert!(!skipped.gradient_norm.is_finite() && !again.gradient_norm.is_finite());
    assert_eq!(skipped.learning_rate, again.learning_rate);
    let (_, state) = saved(&run.save().unwrap());
    assert_eq!(
        (state["iteration"].as_u64(), state["optimizer_steps"].as_u64()),
        (Some(3), Some(1))
    );
}
