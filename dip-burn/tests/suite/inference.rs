//! The pipeline evaluates and samples what the whole model does. Losses and captions of every architecture are compared in
//! `gradients` and `published`.

use std::convert::Infallible;
use std::time::Instant;

use dip_burn::inference::{Captions, ClipModel, ClipPrompt, Sampler, continue_prompts};
use dip_burn::model::{Continuation, WholeModel};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{
    ForwardItem, OptimizerConfig, Pipeline, PipelineInit, ReplicaWork, TensorKind, Update,
};
use dip_burn::stage::ForwardGoal;
use dip_burn::{ClipGrid, Microbatch, Prompt, text_positions};
use dip_core::{Chunk, ModelSpec, Partition, RankId, SegmentId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gradients::{Case, case, case_of_clips, difference};
use crate::support::*;

/// The whole model on one device, which runs the text encoder in every step.
struct Whole {
    model: WholeModel<B>,
    at_once: usize,
}

impl ClipModel for Whole {
    type Error = Infallible;

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn velocities(
        &mut self,
        microbatches: Vec<Microbatch>,
        _: Captions,
    ) -> Result<Vec<Vec<f32>>, Infallible> {
        let velocity = |m: &Microbatch| self.model.velocity(m).unwrap().into_data();
        Ok(microbatches.iter().map(|m| velocity(m).to_vec().unwrap()).collect())
    }
}

fn pipeline(
    model: &ModelSpec,
    partition: &Partition,
    replicas: usize,
    optimizer: OptimizerConfig,
) -> Pipeline<B> {
    let devices = vec![Default::default(); partition.ranks as usize * replicas];
    let init = PipelineInit::new(model, partition, devices);
    Pipeline::new(&init.with_weights(7).with_optimizer(optimizer)).unwrap()
}

#[test]
fn clips_are_those_of_one_device_on_random_placements() {
    let mut rng = ChaCha8Rng::seed_from_u64(31);
    for round in 0..12 {
        let of_model = [video_model, wan_model][round % 2];
        let model = of_model(rng.random_range(1..4), rng.random_range(1..4), round % 3 == 0);
        let (ranks, replicas) = (1 + round as u32 % 3, 1 + round % 2);
        let partition = random_partition(&mut rng, &model, ranks);
        let values = model.video().unwrap().token_channels as usize;
        let sampler = Sampler { steps: 3, guidance: 2.5, shift: 3.0, values, empty: vec![1, 2] };
        let prompts: Vec<ClipPrompt> = (0..rng.random_range(1..12))
            .map(|_| ClipPrompt {
                caption: (0..rng.random_range(1..5)).map(|_| rng.random_range(0..32)).collect(),
                grid: ClipGrid { frames: rng.random_range(1..4), rows: 1, columns: 3 },
            })
            .collect();
        let mut pipeline = pipeline(&model, &partition, replicas, OptimizerConfig::default());
        let mut through = pipeline.forwards().unwrap();
        let whole = WholeModel::init(&model, 7, &Default::default()).unwrap();
        let mut whole = Whole { model: whole, at_once: through.at_once() };
        let expected = sampler.sample(&mut whole, &prompts, 5).unwrap();
        assert_eq!(sampler.sample(&mut through, &prompts, 5).unwrap(), expected);
        // Other groups round differently.
        whole.at_once = 1000;
        let other = sampler.sample(&mut whole, &prompts, 5).unwrap();
        for (a, b) in other.iter().zip(&expected).flat_map(|(a, b)| a.values.iter().zip(&b.values))
        {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn averages_are_evaluated_also_where_replicas_share_them() {
    let mut rng = ChaCha8Rng::seed_from_u64(32);
    for (shard, replicas) in [(false, 1), (false, 2), (true, 2)] {
        let Case { model, batch, metas } = case(&mut rng, &[&[1], &[2, 0]], false);
        let partition = random_partition(&mut rng, &model, 2);
        let optimizer = OptimizerConfig { ema_decay: 0.9, shard, ..OptimizerConfig::default() };
        let mut pipeline = pipeline(&model, &partition, replicas, optimizer);
        let graph = graph(&model, &partition, &metas, &batch, false);
        let plan = random_plan(&mut rng, graph, &["keep"]);
        let work = vec![ReplicaWork { plan: &plan, batch: &batch }; replicas];
        let update = Update { learning_rate: 0.05, clip_norm: 0.0, loss_scale: 1.0 };
        for _ in 0..3 {
            pipeline.run_replicas(&work, Some(update)).unwrap();
        }
        let averages = averages(&mut pipeline);
        let mut whole = WholeModel::<B>::init(&model, 7, &Default::default()).unwrap();
        whole.load(&averages).unwrap();
        let expected = whole.loss(&batch.microbatches).unwrap();
        let weights = pipeline.export(TensorKind::Parameters).unwrap();
        assert!(difference(&weights, &averages) > 1e-3);
        assert_eq!(pipeline.forwards().unwrap().loss(&batch.microbatches).unwrap(), expected);
        // The weights in training stay as they are.
        assert_eq!(pipeline.export(TensorKind::Parameters).unwrap(), weights);
    }
}

/// The weights with their averages.
fn averages(pipeline: &mut Pipeline<B>) -> NamedTensors {
    let mut weights = pipeline.export(TensorKind::Parameters).unwrap();
    weights.extend(pipeline.export(TensorKind::Averages).unwrap());
    weights
}

#[test]
fn training_goes_on_after_forwards_as_if_there_were_none() {
    let mut rng = ChaCha8Rng::seed_from_u64(33);
    let Case { model, batch, metas } = case_of_clips(&mut rng, false);
    let partition = random_partition(&mut rng, &model, 2);
    let graph = graph(&model, &partition, &metas, &batch, false);
    let plan = random_plan(&mut rng, graph, &["keep"]);
    let update = Update { learning_rate: 0.05, clip_norm: 1.0, loss_scale: 1.0 };
    let trained = |evaluates: bool| {
        let mut pipeline = pipeline(&model, &partition, 1, OptimizerConfig::default());
        for _ in 0..3 {
            pipeline.run(&plan, &batch, Some(update)).unwrap();
            if evaluates {
                pipeline.forwards().unwrap().loss(&batch.microbatches).unwrap();
            }
        }
        pipeline.export(TensorKind::Parameters).unwrap()
    };
    assert_eq!(trained(true), trained(false));
}

#[test]
fn a_sequence_that_never_began_is_an_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(34);
    let Case { model, batch, .. } = case(&mut rng, &[&[1]], false);
    let partition = random_partition(&mut rng, &model, 2);
    let mut pipeline = pipeline(&model, &partition, 1, OptimizerConfig::default());
    let item = ForwardItem {
        microbatch: batch.microbatches[0].clone(),
        goal: ForwardGoal::Continue { number: 3, begins: false, rows: None },
    };
    let error = pipeline.forwards().unwrap().run(vec![item]).unwrap_err().to_string();
    assert!(error.contains("never began"), "{error}");
}

#[test]
#[ignore = "prints times; run it alone, with --nocapture"]
fn times_of_captions_with_keys_and_values_and_without() {
    let mut rng = ChaCha8Rng::seed_from_u64(35);
    let mut model = model(1, 8, false);
    let language = &mut model.modules[1];
    (language.hidden, language.ffn, language.heads, language.kv_heads) = (256, 1024, 8, Some(2));
    model.validate().unwrap();
    let prompts: Vec<Prompt> = (0..8)
        .map(|_| Prompt {
            tokens: (0..64).map(|_| rng.random_range(0..32)).collect(),
            positions: text_positions(64).collect(),
            images: Vec::new(),
            image_offsets: Vec::new(),
            sounds: Vec::new(),
        })
        .collect();
    let whole = WholeModel::<B>::init(&model, 7, &Default::default()).unwrap();
    let start = Instant::now();
    let expected = whole.generate(&prompts, u32::MAX, 64).unwrap();
    let again = start.elapsed();
    for ranks in [1, 2] {
        let mut partition = Partition { ranks, ..random_partition(&mut rng, &model, 1) };
        let of_rank = 8 / ranks;
        let chunk = |rank| Chunk {
            rank: RankId(rank),
            segment: SegmentId(0),
            layers: rank * of_rank..(rank + 1) * of_rank,
        };
        partition.modules[1].chunks = (0..ranks).map(chunk).collect();
        let mut pipeline = pipeline(&model, &partition, 1, OptimizerConfig::default());
        let mut through = pipeline.forwards().unwrap();
        let start = Instant::now();
        let how = Continuation { max_tokens: 64, ..Continuation::default() };
        assert_eq!(continue_prompts(&mut through, &prompts, &how).unwrap(), expected);
        let cached = start.elapsed();
        let ratio = again.as_secs_f64() / cached.as_secs_f64();
        eprintln!("{ranks} ranks: {cached:.2?}, {ratio:.1} times as fast as {again:.2?}");
    }
}
