use std::sync::Arc;

use dip_burn::Batch;
use dip_burn::model::Precision;
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{Pipeline, PipelineInit, StepReport, TensorKind, Update};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::support::*;

struct Case {
    model: ModelSpec,
    partition: Partition,
    plan: Plan,
    batch: Arc<Batch>,
}

/// Two ranks, images and text, weight tasks, and the same strategy for every layer.
fn case(strategy: &str) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let model = model(2, 3, false);
    let (metas, batch) = random_batch(&mut rng, &model, &[&[1, 2], &[0, 1], &[3]]);
    let partition = random_partition(&mut rng, &model, 2);
    let graph = graph(&model, &partition, &metas, &batch, true);
    let plan = random_plan(&mut rng, graph, &[strategy]);
    Case { model, partition, plan, batch }
}

impl Case {
    fn pipeline(&self, precision: Precision) -> Pipeline<B> {
        let devices = vec![Default::default(); 2];
        let init = PipelineInit::new(&self.model, &self.partition, devices)
            .with_precision(precision)
            .with_weights(7);
        Pipeline::new(&init).unwrap()
    }

    fn gradients(&self, precision: Precision) -> (StepReport, NamedTensors) {
        let mut pipeline = self.pipeline(precision);
        let report = pipeline.run(&self.plan, &self.batch, None).unwrap();
        (report, pipeline.export(TensorKind::Gradients).unwrap())
    }
}

/// Norm of the difference of all tensors, relative to the norm of `b`.
pub fn distance(a: &NamedTensors, b: &NamedTensors) -> f64 {
    let values = |t: &NamedTensors| -> Vec<f32> {
        t.values().flat_map(|data| data.to_vec::<f32>().unwrap()).collect()
    };
    let (a, b) = (values(a), values(b));
    let norm =
        |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(&b).map(|(x, y)| x - y)) / norm(&mut b.iter().copied())
}

#[test]
fn losses_and_gradients_in_sixteen_bits_equal_f32_to_their_precision() {
    let case = case("keep");
    let (exact, expected) = case.gradients(Precision::F32);
    for (precision, digits) in [(Precision::Bf16, 2e-2), (Precision::F16, 3e-3)] {
        let (report, gradients) = case.gradients(precision);
        let error = (report.loss - exact.loss).abs() / exact.loss;
        assert!(error < digits / 4.0, "{precision:?}: the loss differs by {error}");
        let error = distance(&gradients, &expected);
        assert!(error < digits, "{precision:?}: the gradients differ by {error}");
        assert!(error > 0.0, "{precision:?} computed in f32");
    }
}

#[test]
fn activations_of_sixteen_bits_take_half_the_memory() {
    let case = case("keep");
    let peak = |precision| {
        let (report, _) = case.gradients(precision);
        report.peak_activation.iter().map(|b| b.0).sum::<u64>() as f64
    };
    let share = peak(Precision::Bf16) / peak(Precision::F32);
    // Log-probabilities and the scales of the norms stay f32.
    assert!((0.5..0.65).contains(&share), "{share}");
}

#[test]
fn recomputed_layers_give_the_same_bits_in_low_precision() {
    let (kept, full) = (case("keep"), case("full"));
    let (_, a) = kept.gradients(Precision::Bf16);
    let (_, b) = full.gradients(Precision::Bf16);
    assert_eq!(a, b);
}

#[test]
fn offloaded_layers_give_the_same_bits_and_leave_the_device() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (kept, gradients) = case("keep").gradients(precision);
        let (offloaded, same) = case("offload").gradients(precision);
        assert_eq!(gradients, same, "{precision:?}");
        let peak = |report: &StepReport| report.peak_activation.iter().map(|b| b.0).sum::<u64>();
        // Positions and masks, the adapter and the head stay on the device.
        assert!(2 * peak(&offloaded) < peak(&kept), "{} {}", peak(&offloaded), peak(&kept));
    }
}

#[test]
fn weights_stay_f32_and_small_updates_are_not_lost() {
    let case = case("keep");
    let mut pipeline = case.pipeline(Precision::Bf16);
    let before = pipeline.export(TensorKind::Parameters).unwrap();
    // Far below the precision of bf16, which has 8 significant bits.
    let update = Update { learning_rate: 1e-6, clip_norm: 0.0, loss_scale: 1.0 };
    pipeline.run(&case.plan, &case.batch, Some(update)).unwrap();
    let after = pipeline.export(TensorKind::Parameters).unwrap();
    let moved = distance(&after, &before);
    assert!(moved > 0.0 && moved < 1e-4, "{moved}");
}

#[test]
fn the_loss_scale_cancels_and_an_overflow_leaves_the_weights_alone() {
    let case = case("keep");
    let norm_of = |loss_scale: f64| {
        let mut pipeline = case.pipeline(Precision::F16);
        let before = pipeline.export(TensorKind::Parameters).unwrap();
        let update = Update { learning_rate: 1e-3, clip_norm: 1.0, loss_scale };
        let report = pipeline.run(&case.plan, &case.batch, Some(update)).unwrap();
        let moved = pipeline.export(TensorKind::Parameters).unwrap() != before;
        (report.gradient_norm, moved)
    };
    let (plain, moved) = norm_of(1.0);
    assert!(moved);
    let (scaled, moved) = norm_of(256.0);
    assert!(moved && (scaled / plain - 1.0).abs() < 1e-2, "{scaled} {plain}");
    let (overflown, moved) = norm_of(1e9);
    assert!(!overflown.is_finite() && !moved, "{overflown}");
}
