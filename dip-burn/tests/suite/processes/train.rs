use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dip_burn::Batch;
use dip_burn::data::toy::{DataSplit, Scenes, ScenesConfig};
use dip_burn::data::{
    DataError, DataSource, Document, DocumentPiece, Loader, LoaderConfig, MediaProcessor,
    PackConfig, Picture, SkipCounts, SourcePosition, Tokenizer,
};
use dip_burn::model::Precision;
use dip_burn::params::NamedTensors;
use dip_burn::runtime::transport::{Transport, TransportGroup};
use dip_burn::runtime::{
    Connections, Pipeline, PipelineError, PipelineInit, ProcessGrid, ProcessGroup,
    ProcessPlacement, Processes, TensorKind, Update,
};
use dip_burn::train::{RunConfig, TrainError, Trainer};
use dip_core::{Chunk, ModelSpec, ModulePartition, Partition, Plan, RankId, SegmentId, Strategy};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::on_processes;
use crate::support::*;
use crate::training::{TestRun, even_partition, run_config, scenes_model, trainer_on};

/// One process of a run, as a test sees it.
#[derive(Clone)]
pub struct Process {
    transport: Arc<dyn Transport>,
    group: Arc<TransportGroup>,
}

impl Process {
    /// Connections of the ranks of this process, those of one replica on neighbouring processes.
    pub fn connections(&self, ranks: usize, replicas: usize) -> Connections<B> {
        self.connections_by(ranks, replicas, ProcessPlacement::RanksFirst)
    }

    pub fn connections_by(
        &self,
        ranks: usize,
        replicas: usize,
        placement: ProcessPlacement,
    ) -> Connections<B> {
        let grid = ProcessGrid::new(ranks, replicas, self.size(), placement).unwrap();
        let transport = self.transport.clone();
        Connections::over(self.group.clone(), Processes { transport, grid })
    }
}

impl Deref for Process {
    type Target = dyn ProcessGroup;

    fn deref(&self) -> &Self::Target {
        &*self.group
    }
}

/// A trainer of the part of a process in `replicas` replicas of two ranks.
fn trainer_in(
    folder: &tempfile::TempDir,
    process: &Process,
    replicas: u32,
    more: &str,
) -> Trainer<B> {
    let config = config(folder, "processes", more);
    let run = TestRun::new(&config, even_partition(2, [2, 2]), replicas, 5);
    TestRun { connections: process.connections(2, replicas as usize), ..run }.trainer()
}

/// Runs `part` in each of two processes.
fn together<T: Send + 'static, E: Display + Send + 'static>(
    part: impl Fn(&Process) -> Result<T, E> + Clone + Send + 'static,
) -> Vec<Result<T, E>> {
    in_processes(2, part)
}

/// Runs `part` in each of `count` processes.
pub fn in_processes<T: Send + 'static, E: Display + Send + 'static>(
    count: usize,
    part: impl Fn(&Process) -> Result<T, E> + Clone + Send + 'static,
) -> Vec<Result<T, E>> {
    on_processes(count, move |transport| {
        let group = Arc::new(TransportGroup::new(transport.clone()));
        let process = Process { transport, group };
        process.take_part(|| part(&process))
    })
}

fn assert_all_ok<E: Display>(ends: &[Result<(), E>]) {
    let errors: Vec<String> =
        ends.iter().filter_map(|e| Some(e.as_ref().err()?.to_string())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

fn config(folder: &tempfile::TempDir, output: &str, more: &str) -> RunConfig {
    run_config(&folder.path().join(output), 12, more)
}

/// The tensors and the state of the last checkpoint. Its facts differ with the number of processes.
fn last(folder: &tempfile::TempDir, output: &str) -> (NamedTensors, serde_json::Value) {
    saved(&folder.path().join(output).join("checkpoint-00000012"))
}

#[test]
fn two_processes_train_to_the_bits_of_two_replicas_and_resume_to_them() {
    for optimizer in ["", "[optimizer]\nshard = true\nema_decay = 0.9\n"] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = config(&folder, "alone", optimizer);
        let mut alone = trainer_on(&config, even_partition(2, [2, 2]), 2, 5);
        alone.run(&mut ()).unwrap();
        let shared = folder.clone();
        assert_all_ok(&together(move |process| {
            trainer_in(&shared, process, 2, optimizer).run(&mut ())
        }));
        assert!(last(&folder, "alone") == last(&folder, "processes"), "{optimizer}");
        assert_eq!(losses(&folder, "alone"), losses(&folder, "processes"));

        std::fs::remove_dir_all(folder.path().join("processes/checkpoint-00000012")).unwrap();
        let shared = folder.clone();
        assert_all_ok(&together(move |process| {
            let mut trainer = trainer_in(&shared, process, 2, optimizer);
            assert!(trainer.resume()?.is_some());
            assert_eq!(trainer.iteration(), 10);
            trainer.run(&mut ())
        }));
        assert!(last(&folder, "alone") == last(&folder, "processes"), "{optimizer}, resumed");
    }
}

#[test]
fn a_damaged_file_of_any_part_lets_all_processes_resume_from_the_checkpoint_before() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    trainer_on(&config(&folder, "processes", ""), even_partition(2, [2, 2]), 2, 5)
        .run(&mut ())
        .unwrap();
    let newest = folder.path().join("processes/checkpoint-00000012");
    let files = std::fs::read_dir(&newest).unwrap().map(|file| file.unwrap().path());
    let files: Vec<_> = files.filter(|p| p.extension() == Some("safetensors".as_ref())).collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let shared = folder.clone();
        let ends = together(move |process| {
            let mut trainer = trainer_in(&shared, process, 2, "");
            let resumed = trainer.resume()?.expect("there are checkpoints");
            let damaged: Vec<String> = resumed.damaged.iter().map(ToString::to_string).collect();
            Ok::<_, TrainError>((trainer.iteration(), damaged.join("\n")))
        });
        let name = file.file_name().unwrap().to_str().unwrap();
        for end in ends {
            let (iteration, damaged) = end.unwrap();
            assert_eq!(iteration, 10, "{name}");
            assert!(damaged.contains(name) && damaged.contains("checksum"), "{damaged}");
        }
        std::fs::write(&file, whole).unwrap();
    }
}

#[test]
fn two_replicas_in_each_of_two_processes_train_to_the_bits_of_four_in_one_process() {
    for optimizer in ["", "[optimizer]\nshard = true\nema_decay = 0.9\n"] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = config(&folder, "alone", optimizer);
        trainer_on(&config, even_partition(2, [2, 2]), 4, 5).run(&mut ()).unwrap();
        let shared = folder.clone();
        assert_all_ok(&together(move |process| {
            trainer_in(&shared, process, 4, optimizer).run(&mut ())
        }));
        assert!(last(&folder, "alone") == last(&folder, "processes"), "{optimizer}");
        assert_eq!(losses(&folder, "alone"), losses(&folder, "processes"));
    }
}

#[test]
fn runs_in_f16_skip_the_same_steps_in_processes_as_in_one_process() {
    let f16 = "[pipeline]\nprecision = \"f16\"\n";
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = config(&folder, "alone", f16);
    let resumed = || {
        let mut trainer = trainer_on(&config, even_partition(2, [2, 2]), 2, 5);
        trainer.resume().unwrap();
        trainer
    };
    let mut trainer = resumed();
    (0..4).for_each(|_| drop(trainer.step().unwrap()));
    let checkpoint = trainer.save().unwrap();
    // A scale that gradients of this size reach after thousands of steps.
    change_state(&checkpoint, |state| state["loss_scale"]["scale"] = 2f64.powi(22).into());
    let copy = folder.path().join("processes").join(checkpoint.file_name().unwrap());
    std::fs::create_dir_all(&copy).unwrap();
    for file in std::fs::read_dir(checkpoint).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }

    resumed().run(&mut ()).unwrap();
    let shared = folder.clone();
    assert_all_ok(&together(move |process| {
        let mut trainer = trainer_in(&shared, process, 2, f16);
        assert!(trainer.resume()?.is_some());
        trainer.run(&mut ())
    }));
    let alone = last(&folder, "alone");
    assert!(alone == last(&folder, "processes"));
    let steps = alone.1["optimizer_steps"].as_u64().unwrap();
    assert!((5..12).contains(&steps), "{steps} steps of 12 were not skipped");
}

/// A pipeline of two ranks, and work for it.
struct Case {
    model: ModelSpec,
    partition: Partition,
    plan: Plan,
    batch: Arc<Batch>,
}

impl Case {
    /// An encoder on the first rank, a decoder on the second.
    fn new(images: &[&[u32]]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let model = model(2, 3, false);
        let (meta, batch) = random_batch(&mut rng, &model, images);
        let whole =
            |(rank, layers)| Chunk { rank: RankId(rank), segment: SegmentId(0), layers: 0..layers };
        let of_module = |chunk| ModulePartition { sub_microbatch: 1, chunks: vec![whole(chunk)] };
        let partition = Partition { ranks: 2, modules: [(0, 2), (1, 3)].map(of_module).to_vec() };
        let graph = graph(&model, &partition, &meta, &batch, true);
        let plan = random_plan(&mut rng, graph, &["keep"]);
        Self { model, partition, plan, batch }
    }

    fn pipeline(
        &self,
        precision: Precision,
        process: &Process,
    ) -> Result<Pipeline<B>, PipelineError> {
        let devices = vec![Default::default(); 2];
        let init = PipelineInit::new(&self.model, &self.partition, devices)
            .with_precision(precision)
            .with_weights(7)
            .with_connections(process.connections(2, 2));
        Pipeline::new(&init)
    }
}

#[test]
fn gradients_beyond_f16_in_one_process_leave_the_weights_of_all_alone() {
    let ends = together(|process| {
        let case = Case::new(&[&[1, 2], &[3]]);
        let mut pipeline = case.pipeline(Precision::F16, process)?;
        let mut step = |loss_scale: f64| {
            let before = pipeline.export(TensorKind::Parameters).unwrap();
            let update = Update { learning_rate: 1e-3, clip_norm: 1.0, loss_scale };
            let report = pipeline.run(&case.plan, &case.batch, Some(update)).unwrap();
            let moved = pipeline.export(TensorKind::Parameters).unwrap() != before;
            (report.gradient_norm.is_finite(), moved)
        };
        // A loss scale that no run has simulates an extraordinary share of the batch.
        Ok::<_, PipelineError>([1e9, 1.0].map(|second| step([1.0, second][process.index()])))
    });
    for steps in ends {
        assert_eq!(steps.unwrap(), [(false, false), (true, true)]);
    }
}

/// Drawn scenes; the pictures of every fifth document are not valid.
struct Broken(Scenes, u64);

impl DataSource for Broken {
    fn next_document(&mut self) -> Result<Document, DataError> {
        let mut document = self.0.next_document()?;
        self.1 += 1;
        if let (Document::Plain(pieces), true) = (&mut document, self.1.is_multiple_of(5)) {
            for piece in pieces {
                if let DocumentPiece::Picture(picture) = piece {
                    *picture = Picture::Encoded([0; 9].into());
                }
            }
        }
        Ok(document)
    }

    fn position(&self) -> SourcePosition {
        self.0.position()
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        self.0.restore(position)
    }

    fn skipped(&self) -> SkipCounts {
        self.0.skipped()
    }
}

#[test]
fn broken_pictures_in_one_process_change_the_losses_as_in_one_process() {
    let losses = |replicas: u32, process: Option<&Process>| {
        let folder = tempfile::tempdir().unwrap();
        let (config, model) = (config(&folder, "out", ""), scenes_model());
        let tokenizer = Arc::new(Tokenizer::bytes());
        let pack = PackConfig::new(&model, tokenizer.special()).unwrap();
        let media = MediaProcessor::of_model(&model).unwrap();
        let shape = LoaderConfig { pack, media, microbatches: 4, prefetch: 2 };
        let source = Broken(Scenes::new(ScenesConfig { seed: 0, split: DataSplit::Train }), 0);
        let loader = Loader::new(Box::new(source), tokenizer, shape).unwrap();
        let mut run = TestRun::new(&config, even_partition(2, [2, 2]), replicas, 5);
        run.data.loader = Box::new(loader);
        run.connections = process.map_or_else(Connections::default, |p| p.connections(2, 2));
        let mut trainer = run.trainer();
        (0..4).map(|_| trainer.step().map(|report| report.loss)).collect::<Result<Vec<f64>, _>>()
    };
    let alone = losses(2, None).unwrap();
    for end in together(move |process| losses(2, Some(process))) {
        assert_eq!(end.unwrap(), alone);
    }
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Losses of training and of evaluations in `metrics.jsonl`: true for training, iteration, loss.
fn losses(folder: &tempfile::TempDir, output: &str) -> Vec<(bool, u64, f64)> {
    let text = std::fs::read_to_string(folder.path().join(output).join("metrics.jsonl")).unwrap();
    let of_line = |line: &str| {
        let line = json(line.as_bytes());
        let is_train = line.get("train").is_some();
        let report = &line[if is_train { "train" } else { "evaluation" }];
        (is_train, report["iteration"].as_u64().unwrap(), report["loss"].as_f64().unwrap())
    };
    text.lines().map(of_line).collect()
}

#[test]
fn a_process_with_other_data_or_weights_is_found_before_it_trains() {
    for (seeds, named) in [("seed", "after iteration 0"), ("data", "the data of batch 0")] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let ends = together(move |process| {
            let mut config = config(&folder, &format!("process-{}", process.index()), "");
            match seeds {
                "seed" => config.seed = process.index() as u64,
                _ => config.data.microbatches = Some(4 + process.index() as u32),
            }
            let run = TestRun::new(&config, even_partition(2, [2, 2]), 2, 5);
            let connections = process.connections(2, 2);
            TestRun { connections, ..run }.trainer().run(&mut ())
        });
        for (number, error) in ends.into_iter().map(Result::unwrap_err).enumerate() {
            let other = format!("process {} ", 1 - number);
            let text = error.to_string();
            assert!(matches!(error, TrainError::Group(_)), "{text}");
            assert!(text.starts_with(&other) && text.contains(named), "{text}");
        }
    }
}

#[test]
fn a_process_that_ends_in_the_middle_ends_the_others_with_its_reason() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let start = Instant::now();
    let ends: Vec<Result<(), String>> = together(move |process| {
        let mut trainer = trainer_in(&folder, process, 2, "");
        trainer.step().unwrap();
        if process.index() == 1 {
            return Err("the test has stopped it".into());
        }
        loop {
            trainer.step().map_err(|error| error.to_string())?;
        }
    });
    let error = ends[0].as_ref().unwrap_err();
    assert!(error.contains("process 1") && error.contains("the test has stopped it"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_process_whose_rank_fails_says_so_while_another_rank_waits_for_sums() {
    let start = Instant::now();
    let ends: Vec<Result<(), String>> = together(|process| {
        // Without images the rank of the encoder only waits for the other process, which waits for this one.
        let mut case = Case::new(&[&[0, 0]]);
        for task in &mut case.plan.graph.tasks {
            task.strategy = Strategy::new("unheard-of");
        }
        let mut pipeline = case.pipeline(Precision::F32, process).unwrap();
        if process.index() == 1 {
            return process.all_gather(Vec::new()).map(drop).map_err(|e| e.to_string());
        }
        pipeline.run(&case.plan, &case.batch, None).map(drop).map_err(|e| e.to_string())
    });
    for error in ends.into_iter().map(Result::unwrap_err) {
        assert!(error.contains("unheard-of"), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn processes_agree_on_texts_that_are_longer_than_messages_together_and_name_a_difference() {
    let ends = in_processes(4, |process| {
        let mut text = "line\n".repeat(2 << 20);
        process.agree("equal texts", || text.clone())?;
        if process.index() == 2 {
            text.replace_range(5..9, "else");
        }
        process.agree("texts", || text)
    });
    let shown = |i: usize| ends[i].as_ref().unwrap_err().to_string();
    for i in [0, 1, 3] {
        let expected =
            "process 2 differs from this process in texts: it has `else`, this process `line`";
        assert!(shown(i).starts_with(expected), "{}", shown(i));
    }
    assert!(shown(2).starts_with("process 0 differs from this process in texts"), "{}", shown(2));
}

#[test]
fn processes_with_different_partitions_fail_before_they_train() {
    let ends = together(move |process| {
        let number = process.index();
        let model = scenes_model();
        let partition = even_partition(2, [[2, 2], [4, 2]][number]);
        let devices = vec![Default::default(); 2];
        let init = PipelineInit::new(&model, &partition, devices)
            .with_connections(process.connections(2, 2));
        Pipeline::<B>::new(&init).map(drop)
    });
    for (number, error) in ends.into_iter().map(|end| end.unwrap_err().to_string()).enumerate() {
        let other = format!("process {} differs from this process in the partition", 1 - number);
        assert!(error.starts_with(&other), "{error}");
    }
}
