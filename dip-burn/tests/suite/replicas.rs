//! Two replicas of a pipeline of two ranks: four threads that train like one device.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_burn::model::WholeModel;
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{
    Collective, CollectiveFactory, Connections, LinkFactory, Pipeline, PipelineError, PipelineInit,
    RankLink, RankReplicas, ReplicaRanks, ReplicaWork, TensorKind,
};
use dip_burn::train::Trainer;
use dip_burn::{Batch, Microbatch};
use dip_core::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gradients::difference;
use crate::support::*;
use crate::training::{even_partition, run_config, trainer_on};

fn pipeline(model: &ModelSpec, partition: &Partition, replicas: u32) -> Pipeline<B> {
    let devices = vec![Default::default(); (replicas * partition.ranks) as usize];
    Pipeline::new(&PipelineInit::new(model, partition, devices).with_weights(7)).unwrap()
}

/// A batch for each replica, normalised by the tokens of all of them.
fn batches(
    rng: &mut ChaCha8Rng,
    model: &ModelSpec,
    images: &[&[&[u32]]],
) -> Vec<(BatchMeta, Batch)> {
    let mut all: Vec<(BatchMeta, Batch)> = images
        .iter()
        .map(|own| {
            let (meta, batch) = random_batch(rng, model, own);
            (meta, Batch::clone(&batch))
        })
        .collect();
    let trained_tokens = all.iter().map(|(_, b)| b.trained_tokens).sum();
    all.iter_mut().for_each(|(_, b)| b.trained_tokens = trained_tokens);
    all
}

/// The microbatches of all replicas in one batch.
fn together(batches: &[(BatchMeta, Batch)]) -> Batch {
    let microbatches: Vec<Microbatch> =
        batches.iter().flat_map(|(_, b)| b.microbatches.clone()).collect();
    Batch { microbatches, ..batches[0].1.clone() }
}

#[test]
fn replicas_give_the_loss_and_gradients_of_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    // The last case has a replica without images: its encoder runs no backward at all.
    let cases: [[&[&[u32]]; 2]; 3] =
        [[&[&[1], &[2, 1]], &[&[0, 3]]], [&[&[2]], &[&[1], &[0], &[2]]], [&[&[1, 2]], &[&[0, 0]]]];
    for (case, images) in cases.into_iter().enumerate() {
        let model = model(2, 3, false);
        let batches = batches(&mut rng, &model, &images);
        let partition = random_partition(&mut rng, &model, 2);
        let mut pipeline = pipeline(&model, &partition, 2);
        let work: Vec<(Plan, Arc<Batch>)> = batches
            .iter()
            .map(|(meta, batch)| {
                let graph = graph(&model, &partition, meta, batch, rng.random_bool(0.5));
                (random_plan(&mut rng, graph, &["keep", "full"]), Arc::new(batch.clone()))
            })
            .collect();
        let work: Vec<_> = work.iter().map(|(plan, batch)| ReplicaWork { plan, batch }).collect();
        let report = pipeline.run_replicas(&work, None).unwrap();
        let whole = WholeModel::<Oracle>::init(&model, 7, &Default::default()).unwrap();
        let (loss, expected) = whole.loss_and_gradients(&together(&batches));
        assert!((report.loss - loss).abs() <= 1e-5 * loss, "{case}: {} {loss}", report.loss);
        let worst = difference(&pipeline.export(TensorKind::Gradients).unwrap(), &expected);
        assert!(worst < 1e-5, "{case}: gradients differ by {worst}");
    }
}

/// Makes no connections.
struct Nothing;

impl<P: Backend> LinkFactory<P> for Nothing {
    fn connect(&self, _: &ReplicaRanks<'_, P>) -> std::io::Result<Vec<RankLink<P>>> {
        Ok(Vec::new())
    }
}

impl<P: Backend> CollectiveFactory<P> for Nothing {
    fn connect(&self, _: RankReplicas<'_, P>) -> std::io::Result<Vec<Arc<dyn Collective<P>>>> {
        Ok(Vec::new())
    }
}

#[test]
fn factories_that_make_too_few_connections_are_an_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let model = model(2, 3, false);
    let partition = random_partition(&mut rng, &model, 2);
    let devices = |replicas: usize| vec![Default::default(); 2 * replicas];
    let collectives = Connections { collectives: Arc::new(Nothing), ..Connections::<B>::default() };
    let init = PipelineInit::new(&model, &partition, devices(2)).with_connections(collectives);
    let error = Pipeline::new(&init).map(drop).unwrap_err().to_string();
    assert!(error.contains("made 0 members of a collective, but 2 are needed"), "{error}");

    let links = Connections { links: Arc::new(Nothing), ..Connections::<B>::default() };
    let init = PipelineInit::new(&model, &partition, devices(1)).with_connections(links);
    let (meta, batch) = random_batch(&mut rng, &model, &[&[1]]);
    let graph = graph(&model, &partition, &meta, &batch, false);
    let plan = random_plan(&mut rng, graph, &["keep"]);
    let error = Pipeline::new(&init).unwrap().run(&plan, &batch, None).unwrap_err().to_string();
    assert!(error.contains("made 0 links, but 2 are needed"), "{error}");
}

/// A trainer with `replicas` replicas of `ranks` ranks, and `optimizer` in the section of that name.
fn replicated(
    folder: &tempfile::TempDir,
    ranks: u32,
    replicas: u32,
    optimizer: &str,
) -> Trainer<B> {
    let optimizer = format!("[optimizer]\n{optimizer}\n");
    let config = run_config(&folder.path().join("run"), 12, &optimizer);
    let layers = if ranks == 1 { [4, 4] } else { [2, 2] };
    trainer_on(&config, even_partition(ranks, layers), replicas, 5)
}

fn train(trainer: &mut Trainer<B>) -> Vec<f64> {
    let mut losses = Vec::new();
    while !trainer.is_done() {
        losses.push(trainer.step().unwrap().loss);
    }
    losses
}

/// The weights and moments in a checkpoint of a trainer.
fn state_of(trainer: &mut Trainer<B>) -> NamedTensors {
    saved(&trainer.save().unwrap()).0
}

#[test]
fn two_replicas_of_two_ranks_train_like_one_device() {
    let [one, four] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut one = replicated(&one, 1, 1, "");
    let mut four = replicated(&four, 2, 2, "");
    let (expected, found) = (train(&mut one), train(&mut four));
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= 1e-5 * b, "{found:?} {expected:?}");
    }
    let weights = |trainer: &mut Trainer<B>| trainer.weights().unwrap();
    let worst = absolute_difference(&weights(&mut four), &weights(&mut one));
    assert!(worst < 1e-5, "weights differ by {worst}");
}

fn absolute_difference(a: &NamedTensors, b: &NamedTensors) -> f32 {
    assert!(a.keys().eq(b.keys()));
    let values = |t: &burn::tensor::TensorData| t.to_vec::<f32>().unwrap();
    let worst = |name: &String| {
        let pairs = values(&a[name]).into_iter().zip(values(&b[name]));
        pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    };
    a.keys().map(worst).fold(0.0, f32::max)
}

#[test]
fn replicas_are_bit_reproducible_and_resume_to_the_same_bits() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut whole = replicated(&folders[0], 2, 2, "");
    let mut again = replicated(&folders[1], 2, 2, "");
    let losses = train(&mut whole);
    assert_eq!(losses, train(&mut again));
    let expected = state_of(&mut whole);
    assert!(expected == state_of(&mut again), "two runs differ");

    let mut cut = replicated(&folders[2], 2, 2, "");
    let mut found: Vec<f64> = (0..5).map(|_| cut.step().unwrap().loss).collect();
    cut.save().unwrap();
    drop(cut);
    let mut resumed = replicated(&folders[2], 2, 2, "");
    assert!(resumed.resume().unwrap().is_some());
    found.extend(train(&mut resumed));
    assert_eq!(losses, found);
    assert!(expected == state_of(&mut resumed), "a resumed run differs");
}

#[test]
fn a_shared_optimiser_state_changes_no_bit_and_resumes_unshared() {
    for algorithm in ["adamw", "muon"] {
        let algorithm = format!("algorithm = {algorithm:?}");
        let sharing = format!("{algorithm}\nshard = true");
        let [kept, shared] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut kept = replicated(&kept, 2, 2, &algorithm);
        let mut sharded = replicated(&shared, 2, 2, &sharing);
        for _ in 0..6 {
            assert_eq!(kept.step().unwrap().loss, sharded.step().unwrap().loss);
        }
        let checkpoint = sharded.save().unwrap();
        assert!(
            state_of(&mut kept) == state_of(&mut sharded),
            "sharding changed the weights or moments"
        );
        // All replicas together hold one complete set of moments, from which a single device resumes.
        let expected = train(&mut sharded);
        let mut one = replicated(&shared, 1, 1, &algorithm);
        one.load(&checkpoint).unwrap();
        for (a, b) in train(&mut one).iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5 * b, "{algorithm}: {a} {b}");
        }
        let mut again = replicated(&shared, 2, 2, &sharing);
        again.load(&checkpoint).unwrap();
        assert_eq!(train(&mut again), expected, "{algorithm}");
    }
}

#[test]
fn a_rank_that_fails_ends_all_replicas_with_its_own_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let model = model(2, 2, false);
    let batches = batches(&mut rng, &model, &[&[&[1], &[2]], &[&[2], &[1]]]);
    let partition = random_partition(&mut rng, &model, 2);
    let mut pipeline = pipeline(&model, &partition, 2);
    let plans: Vec<(Plan, Arc<Batch>)> = batches
        .iter()
        .zip(["keep", "unheard-of"])
        .map(|((meta, batch), strategy)| {
            let graph = graph(&model, &partition, meta, batch, false);
            (random_plan(&mut rng, graph, &[strategy]), Arc::new(batch.clone()))
        })
        .collect();
    let work: Vec<_> = plans.iter().map(|(plan, batch)| ReplicaWork { plan, batch }).collect();
    let error = pipeline.run_replicas(&work, None).unwrap_err().to_string();
    assert!(error.contains("unheard-of"), "{error}");
    let one = pipeline.run(work[0].plan, work[0].batch, None).unwrap_err();
    assert!(matches!(one, PipelineError::Replicas { given: 1, replicas: 2 }), "{one}");
}
