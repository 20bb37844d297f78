use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_burn::model::{Precision, WholeModel};
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{Algorithm, OptimizerConfig, Pipeline, PipelineInit, TensorKind, Update};
use dip_burn::{Batch, Microbatch};
use dip_core::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::*;

/// Largest difference between two sets of tensors, relative to the largest value of each tensor.
pub fn difference(a: &NamedTensors, b: &NamedTensors) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let mut worst = 0.0f64;
    for (name, left) in a {
        let left: Vec<f32> = left.to_vec().unwrap();
        let right: Vec<f32> = b[name].to_vec().unwrap();
        let largest = right.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
        for (x, y) in left.iter().zip(&right) {
            assert!(x.is_finite(), "{name}");
            worst = worst.max(f64::from((x - y).abs() / largest));
        }
    }
    worst
}

pub struct Case {
    pub model: ModelSpec,
    pub metas: BatchMeta,
    pub batch: Arc<Batch>,
}

impl Case {
    /// A random plan on a random partition gives the loss and gradients of the whole model.
    pub fn holds(&self, rng: &mut ChaCha8Rng, ranks: u32, strategies: &[&str]) {
        self.holds_on::<B>(rng, vec![Default::default(); ranks as usize], strategies, 1e-5);
    }

    /// The same for ranks on any devices, to `digits`.
    pub fn holds_on<P: Backend>(
        &self,
        rng: &mut ChaCha8Rng,
        devices: Vec<P::Device>,
        strategies: &[&str],
        digits: f64,
    ) {
        let partition = random_partition(rng, &self.model, devices.len() as u32);
        let graph = graph(&self.model, &partition, &self.metas, &self.batch, rng.random_bool(0.5));
        let window = [1, 64][rng.random_range(0..2)];
        let plan = Plan { window, ..random_plan(rng, graph, strategies) };
        let init = PipelineInit::new(&self.model, &partition, devices).with_weights(7);
        let mut pipeline = Pipeline::<P>::new(&init).unwrap();
        let report = pipeline.run(&plan, &self.batch, None).unwrap();
        let gradients = pipeline.export(TensorKind::Gradients).unwrap();
        // Forwards alone do what one device does, to the bit.
        let whole = WholeModel::<P>::init(&self.model, 7, &Default::default()).unwrap();
        let evaluated = pipeline.forwards().unwrap().loss(&self.batch.microbatches).unwrap();
        assert_eq!(evaluated, whole.loss(&self.batch.microbatches).unwrap());
        let whole = WholeModel::<Oracle>::init(&self.model, 7, &Default::default()).unwrap();
        assert_eq!(
            difference(&pipeline.export(TensorKind::Parameters).unwrap(), &whole.parameters()),
            0.0
        );
        let (loss, mut expected) = whole.loss_and_gradients(&self.batch);
        expected.retain(|name, _| {
            let (module, path) = name.split_once('.').unwrap();
            self.model.modules.iter().any(|m| m.name == module && m.trains(path, false))
        });
        assert!((report.loss - loss).abs() <= digits * loss, "{} {loss}", report.loss);
        let worst = difference(&gradients, &expected);
        assert!(worst < digits, "gradients differ by {worst}");
    }
}

impl Case {
    /// Three iterations of random plans run on any devices in any precision, with optimiser steps, and have finite losses.
    pub fn runs_on<P: Backend>(
        &self,
        rng: &mut ChaCha8Rng,
        devices: Vec<P::Device>,
        strategies: &[&str],
        (precision, algorithm): (Precision, Algorithm),
    ) {
        let partition = random_partition(rng, &self.model, devices.len() as u32);
        let optimizer = OptimizerConfig { algorithm, ema_decay: 0.5, ..OptimizerConfig::default() };
        let init = PipelineInit::new(&self.model, &partition, devices)
            .with_weights(7)
            .with_precision(precision)
            .with_optimizer(optimizer);
        let mut pipeline = Pipeline::<P>::new(&init).unwrap();
        for _ in 0..3 {
            let splits = rng.random_bool(0.5);
            let graph = graph(&self.model, &partition, &self.metas, &self.batch, splits);
            let plan = random_plan(rng, graph, strategies);
            let update = Update { learning_rate: 1e-3, clip_norm: 1.0, loss_scale: 1.0 };
            let report = pipeline.run(&plan, &self.batch, Some(update)).unwrap();
            assert!(report.loss.is_finite() && report.gradient_norm.is_finite(), "{precision:?}");
        }
    }
}

pub fn case(rng: &mut ChaCha8Rng, images: &[&[u32]], frozen: bool) -> Case {
    let model = model(rng.random_range(1..4), rng.random_range(1..4), frozen);
    let (metas, batch) = random_batch(rng, &model, images);
    Case { model, metas, batch }
}

pub fn case_of_clips(rng: &mut ChaCha8Rng, frozen: bool) -> Case {
    let model = video_model(rng.random_range(1..4), rng.random_range(1..4), frozen);
    let (metas, batch) = random_clips(rng, &model);
    Case { model, metas, batch }
}

pub fn case_of_wan(rng: &mut ChaCha8Rng, frozen: bool) -> Case {
    let model = wan_model(rng.random_range(1..4), rng.random_range(1..4), frozen);
    let (metas, batch) = random_clips(rng, &model);
    Case { model, metas, batch }
}

#[test]
fn random_plans_on_two_ranks_give_the_gradients_of_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..50 {
        let images: [Vec<u32>; 3] = std::array::from_fn(|_| {
            (0..rng.random_range(1..4)).map(|_| rng.random_range(0..3)).collect()
        });
        let case = case(&mut rng, &[&images[0], &images[1], &images[2]], false);
        case.holds(&mut rng, 2, &["keep", "selective", "full", "offload"]);
    }
}

#[test]
fn random_plans_of_clips_of_any_length_and_size_give_the_gradients_of_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for round in 0..40 {
        let case = case_of_clips(&mut rng, round % 4 == 3);
        case.holds(&mut rng, 2 + round % 2, &["keep", "selective", "full", "offload"]);
    }
}

#[test]
fn random_plans_of_wan_give_the_gradients_of_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    for round in 0..40 {
        let case = case_of_wan(&mut rng, round % 2 == 1);
        case.holds(&mut rng, 1 + round % 3, &["keep", "selective", "full", "offload"]);
    }
}

#[test]
fn packed_clips_have_the_loss_of_separate_clips() {
    for model in [video_model(2, 2, false), wan_model(2, 2, false)] {
        packed_clips_of(&model);
    }
}

fn packed_clips_of(model: &ModelSpec) {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let packed = clips(&mut rng, 4, model.video().unwrap().token_channels as usize);
    let whole = WholeModel::<B>::init(model, 7, &Default::default()).unwrap();
    let alone: Vec<Microbatch> = (0..4).map(|i| clip_alone(&packed, i)).collect();
    let (a, b) = (whole.loss(&[packed]).unwrap(), whole.loss(&alone).unwrap());
    assert!((a - b).abs() < 1e-6, "{a} {b}");
}

#[test]
fn documents_with_zero_one_and_many_images_give_the_gradients_of_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for images in [&[&[0, 0][..]][..], &[&[1]], &[&[6]], &[&[0], &[6], &[1, 0, 2]]] {
        for ranks in 1..4 {
            case(&mut rng, images, false).holds(&mut rng, ranks, &["keep"]);
        }
    }
}

#[test]
fn images_of_many_sizes_give_the_gradients_of_one_device_on_random_plans() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for round in 0..30 {
        let model = model(rng.random_range(1..4), rng.random_range(1..4), round % 5 == 4);
        let counts: [&[u32]; 3] = [&[3, 0, 2], &[rng.random_range(0..2)], &[6]];
        let microbatches = counts.map(|images| microbatch_of(&mut rng, images, any_grid)).to_vec();
        let (metas, batch) = batch_of(&mut rng, &model, microbatches);
        let case = Case { model, metas, batch };
        case.holds(&mut rng, 1 + round % 3, &["keep", "selective", "full", "offload"]);
    }
}

#[test]
fn images_of_many_sizes_in_one_microbatch_give_what_each_gives_alone() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let model = model(2, 2, false);
    let whole = WholeModel::<B>::init(&model, 7, &Default::default()).unwrap();
    for _ in 0..10 {
        let packed = microbatch_of(&mut rng, &[1, 1, 0, 1, 1], any_grid);
        let documents = [0, 1, 2, 3, 4].map(|d| document(&packed, d));
        let alone: Vec<Microbatch> =
            documents.into_iter().filter(|d| !d.tokens.is_empty()).collect();
        let (a, b) = (whole.loss(&[packed]).unwrap(), whole.loss(&alone).unwrap());
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn a_frozen_encoder_gets_no_gradients_and_changes_none() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..10 {
        case(&mut rng, &[&[2, 1], &[0]], true).holds(
            &mut rng,
            2,
            &["keep", "selective", "full", "offload"],
        );
    }
}

/// Only the adapter of the encoder runs a backward: its layers keep nothing.
#[test]
fn a_frozen_tower_runs_forward_only_below_its_trained_adapter() {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    for round in 0..10 {
        let images: &[&[u32]] = &[&[2, 1], &[0], &[3]];
        let mut case = case(&mut rng, images, false);
        case.model.modules[0].frozen = vec!["tower".into()];
        case.holds(&mut rng, 1 + round % 3, &["keep", "selective", "full", "offload"]);
    }
}

#[test]
fn packed_documents_have_the_loss_of_separate_documents() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let model = model(2, 2, false);
    let packed = microbatch(&mut rng, &[2, 0, 1]);
    let whole = WholeModel::<B>::init(&model, 7, &Default::default()).unwrap();
    let alone: Vec<Microbatch> = (0..3).map(|d| document(&packed, d)).collect();
    let (a, b) = (whole.loss(&[packed]).unwrap(), whole.loss(&alone).unwrap());
    assert!((a - b).abs() < 1e-6, "{a} {b}");
}

/// One document of a packed sequence on its own.
fn document(packed: &Microbatch, id: u32) -> Microbatch {
    let rows: Vec<usize> =
        (0..packed.tokens.len()).filter(|&i| packed.documents[i] == id).collect();
    let pick = |values: &[u32]| rows.iter().map(|&i| values[i]).collect();
    let first = rows.first().map_or(0, |&row| row as u32);
    let own = |offset: &u32| rows.contains(&(*offset as usize));
    let images = packed.image_offsets.iter().zip(&packed.images).filter(|(o, _)| own(o));
    Microbatch {
        tokens: pick(&packed.tokens),
        documents: pick(&packed.documents),
        positions: rows.iter().map(|&i| packed.positions[i]).collect(),
        targets: pick(&packed.targets),
        loss_mask: rows.iter().map(|&i| packed.loss_mask[i]).collect(),
        images: images.map(|(_, image)| image.clone()).collect(),
        image_offsets: packed.image_offsets.iter().filter(|o| own(o)).map(|o| o - first).collect(),
        ..Microbatch::default()
    }
}
