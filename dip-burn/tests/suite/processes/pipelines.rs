use std::sync::Arc;
use std::time::{Duration, Instant};

use dip_burn::inference::continue_prompts;
use dip_burn::model::{Continuation, Precision};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{
    Connections, ForwardPipeline, OptimizerConfig, Pipeline, PipelineError, PipelineInit,
    ProcessPlacement, ReplicaWork, TensorKind, Update,
};
use dip_burn::{Batch, Prompt, text_positions};
use dip_core::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::train::{Process, in_processes};
use crate::support::*;

/// A run of two iterations: the model, where its layers are, and a plan and a batch for each replica.
#[derive(Clone)]
struct Case {
    name: &'static str,
    model: ModelSpec,
    partition: Partition,
    replicas: Vec<(Plan, Arc<Batch>)>,
    precision: Precision,
    shard: bool,
}

/// What must have the same bits however ranks are spread: losses and norms of all iterations, what the model gives after them, and its
/// weights.
#[derive(Debug, PartialEq)]
struct Trained {
    losses: Vec<(f64, f64)>,
    evaluated: Evaluated,
    weights: NamedTensors,
}

/// The loss of all batches, and the tokens after prompts.
#[derive(Debug, PartialEq)]
struct Evaluated {
    loss: f64,
    captions: Vec<Vec<u32>>,
}

impl Case {
    fn new(name: &'static str, model: ModelSpec, [ranks, replicas]: [u32; 2]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let partition = partition(&mut rng, &model, ranks);
        let batches: Vec<(BatchMeta, Arc<Batch>)> = (0..replicas)
            .map(|_| match model.video() {
                Some(_) => random_clips(&mut rng, &model),
                None => random_batch(&mut rng, &model, &[&[1, 2], &[3], &[0, 1]]),
            })
            .collect();
        let trained_tokens = batches.iter().map(|(_, batch)| batch.trained_tokens).sum();
        let replicas = batches.into_iter().map(|(meta, batch)| {
            let graph = graph(&model, &partition, &meta, &batch, rng.random_bool(0.5));
            let plan = random_plan(&mut rng, graph, &["keep", "full", "selective"]);
            (plan, Arc::new(Batch { trained_tokens, ..Batch::clone(&batch) }))
        });
        let replicas = replicas.collect();
        Self { name, model, partition, replicas, precision: Precision::F32, shard: false }
    }

    /// Trains the replicas of which this process hosts ranks.
    fn train(&self, connections: Connections<B>) -> Result<Trained, PipelineError> {
        let own = match &connections.processes {
            Some(p) => p.grid.hosted(p.transport.index()).len(),
            None => self.replicas.len() * self.partition.ranks as usize,
        };
        let optimizer = OptimizerConfig { shard: self.shard, ..OptimizerConfig::default() };
        let init = PipelineInit::new(&self.model, &self.partition, vec![Default::default(); own])
            .with_weights(7)
            .with_precision(self.precision)
            .with_optimizer(optimizer)
            .with_connections(connections);
        let mut pipeline = Pipeline::new(&init)?;
        let of_replica = |&replica: &usize| {
            let (plan, batch) = &self.replicas[replica];
            ReplicaWork { plan, batch }
        };
        let work: Vec<_> = pipeline.replicas().iter().map(of_replica).collect();
        let update = Update { learning_rate: 1e-2, clip_norm: 0.1, loss_scale: 8.0 };
        let mut losses = Vec::new();
        for _ in 0..2 {
            let report = pipeline.run_replicas(&work, Some(update))?;
            losses.push((report.loss, report.gradient_norm));
        }
        let evaluated = self.evaluate(&mut pipeline.forwards()?)?;
        Ok(Trained { losses, evaluated, weights: pipeline.export(TensorKind::Parameters)? })
    }

    fn evaluate(&self, model: &mut ForwardPipeline<'_, B>) -> Result<Evaluated, PipelineError> {
        let batches = self.replicas.iter().map(|(_, batch)| batch);
        let all: Vec<_> = batches.flat_map(|batch| batch.microbatches.clone()).collect();
        let loss = model.loss(&all)?;
        let captions = match self.model.video() {
            Some(_) => Vec::new(),
            None => {
                let how = Continuation { max_tokens: 3, ..Continuation::default() };
                continue_prompts(model, &prompts(9), &how)?
            }
        };
        Ok(Evaluated { loss, captions })
    }

    /// Checks that processes with these ranks train to the bits of one process.
    fn check(&self, alone: &Trained, processes: usize, placement: ProcessPlacement) {
        let case = self.clone();
        let ranks = [self.partition.ranks as usize, self.replicas.len()];
        let ends = in_processes(processes, move |process: &Process| {
            case.train(process.connections_by(ranks[0], ranks[1], placement))
        });
        let ends: Vec<Trained> = ends.into_iter().map(Result::unwrap).collect();
        let mut weights = NamedTensors::new();
        for end in ends {
            let place = format!("{} in {processes}, {placement:?}", self.name);
            assert_eq!(end.losses, alone.losses, "{place}");
            assert_eq!(end.evaluated, alone.evaluated, "{place}");
            for (name, own) in &end.weights {
                assert!(alone.weights.get(name) == Some(own), "{}: {name}", self.name);
            }
            weights.extend(end.weights);
        }
        assert_eq!(weights.len(), alone.weights.len(), "{}", self.name);
    }
}

/// Texts of different lengths.
fn prompts(count: u32) -> Vec<Prompt> {
    let prompt = |i: u32| Prompt {
        tokens: (0..4 + i % 3).map(|k| (7 * i + 5 * k) % 32).collect(),
        positions: text_positions(4 + i as usize % 3).collect(),
        images: Vec::new(),
        image_offsets: Vec::new(),
        sounds: Vec::new(),
    };
    (0..count).map(prompt).collect()
}

/// Chunks on all ranks in turn, of one or two layers.
fn partition(rng: &mut ChaCha8Rng, model: &ModelSpec, ranks: u32) -> Partition {
    let mut partition = random_partition(rng, model, ranks);
    for module in &mut partition.modules {
        for (k, chunk) in module.chunks.iter_mut().enumerate() {
            chunk.rank = RankId((k as u32 + rng.random_range(0..2)) % ranks);
        }
    }
    partition
}

fn tied(mut model: ModelSpec) -> ModelSpec {
    let decoder = &mut model.modules[1];
    let kind = *decoder.kind.get::<DecoderSpec>().unwrap();
    decoder.kind = DecoderSpec { tied: true, ..kind }.into();
    model
}

fn adapted(mut model: ModelSpec) -> ModelSpec {
    model.modules[1].lora = Some(Lora {
        rank: 2,
        alpha: 4.0,
        targets: vec![LoraTarget::Query, LoraTarget::Down],
        rank_stabilized: false,
        dora: false,
        full: Vec::new(),
    });
    model
}

#[test]
fn ranks_train_to_the_same_bits_however_processes_share_them() {
    let four_ranks = |name, model| Case::new(name, model, [4, 1]);
    let two_replicas = |name, model| Case::new(name, model, [2, 2]);
    let cases = [
        four_ranks("a vision-language model", model(4, 4, false)),
        four_ranks("a frozen encoder", model(3, 5, true)),
        four_ranks("tied weights", tied(model(2, 6, false))),
        four_ranks("adapters", adapted(model(2, 6, true))),
        four_ranks("clips", video_model(2, 6, true)),
        Case { precision: Precision::F16, ..four_ranks("f16", model(4, 4, false)) },
        Case { precision: Precision::Bf16, ..four_ranks("bf16", tied(model(4, 4, false))) },
        two_replicas("replicas", model(4, 4, false)),
        two_replicas("replicas of clips", video_model(4, 4, false)),
        two_replicas("replicas with tied weights", tied(model(2, 6, false))),
        Case { shard: true, ..two_replicas("a sharded optimiser", model(4, 4, false)) },
        Case::new("three replicas", model(4, 4, false), [2, 3]),
    ];
    for case in cases {
        let alone = case.train(Connections::default()).unwrap();
        assert!(alone.losses[0] != alone.losses[1], "{}: the step changes nothing", case.name);
        assert!(alone.evaluated.loss.is_finite(), "{}", case.name);
        for (processes, placement) in [
            (2, ProcessPlacement::RanksFirst),
            (2, ProcessPlacement::ReplicasFirst),
            (3, ProcessPlacement::RanksFirst),
            (4, ProcessPlacement::RanksFirst),
        ] {
            case.check(&alone, processes, placement);
        }
    }
}

#[test]
fn the_first_process_reports_the_stages_of_all_ranks() {
    let case = Case::new("traces", model(4, 4, false), [4, 1]);
    let tasks = case.replicas[0].0.graph.tasks.len();
    let ends = in_processes(4, move |process: &Process| {
        let (plan, batch) = &case.replicas[0];
        let init = PipelineInit::new(&case.model, &case.partition, vec![Default::default()])
            .with_connections(process.connections(4, 1));
        let report = Pipeline::new(&init)?.run(plan, batch, None)?;
        Ok::<_, PipelineError>((report.traces[0].spans.len(), report.peak_activation.len()))
    });
    let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
    assert_eq!((ends[0].0, ends[0].1), (tasks, 4));
    assert!(ends[1..].iter().all(|end| end.0 < tasks && end.1 == 1));
}

#[test]
fn a_rank_whose_link_ends_names_the_process_that_has_ended_at_once() {
    let case = Case::new("a lost process", model(4, 4, false), [4, 1]);
    let ends = in_processes(2, move |process: &Process| {
        let init = PipelineInit::new(&case.model, &case.partition, vec![Default::default(); 2])
            .with_connections(process.connections(4, 1));
        let mut pipeline = Pipeline::new(&init).map_err(|error| error.to_string())?;
        if process.index() == 1 {
            return Err(String::from("the test has stopped it"));
        }
        let begin = Instant::now();
        let (plan, batch) = &case.replicas[0];
        let error = pipeline.run(plan, batch, None).map(drop).unwrap_err();
        assert!(matches!(error, PipelineError::Group(_)), "{error}");
        Ok((error.to_string(), begin.elapsed()))
    });
    let (error, time) = ends[0].as_ref().unwrap();
    assert!(error.contains("process 1 (") && error.contains("the test has stopped it"), "{error}");
    assert!(*time < Duration::from_secs(1), "{time:?}");
}
