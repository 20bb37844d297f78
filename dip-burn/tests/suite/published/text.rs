//! Text models.

use dip_burn::Batch;
use dip_burn::runtime::{OptimizerConfig, ReplicaWork, TensorKind, Update};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use super::checks::{options_change_logits, standard_checks};
use super::{Fixture, halves, planned};

standard_checks!(
    llama: "llama",
    llama_biases: "llama-biases",
    mistral: "mistral",
    qwen2: "qwen2",
    qwen2_yarn: "qwen2-yarn",
    qwen3: "qwen3",
);

#[test]
fn every_option_of_a_decoder_changes_its_logits() {
    options_change_logits(&[
        ("llama", 0, "theta", |m| m.options.rope.theta = 1e4),
        ("llama", 0, "scaling", |m| m.options.rope.scaling = None),
        ("llama", 0, "epsilon", |m| m.options.norm_epsilon = 1e-2),
        ("llama-biases", 0, "linear scaling", |m| m.options.rope.linear = None),
        ("mistral", 0, "window", |m| m.options.window = None),
        ("mistral", 0, "tokens", |m| m.options.window.as_mut().unwrap().tokens = 6),
        ("qwen2-yarn", 0, "full layers", |m| {
            m.options.window.as_mut().unwrap().full_layers.clear()
        }),
        ("qwen2-yarn", 0, "factor", |m| m.options.rope.yarn.as_mut().unwrap().factor = 8.0),
        ("qwen2-yarn", 0, "turns", |m| m.options.rope.yarn.as_mut().unwrap().slow = 0.05),
        ("qwen2-yarn", 0, "amplitude", |m| m.options.rope.yarn.as_mut().unwrap().amplitude = 1.0),
    ]);
}

#[test]
fn both_ends_of_a_tied_decoder_learn_from_the_sum_of_their_gradients() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let fixture = Fixture::read("qwen2");
    let partition = halves(&fixture.model);
    let (batch, plan) = planned(&fixture, &partition, fixture.sequences(), &mut rng, &["keep"]);
    let before = fixture.pipeline(&partition).export(TensorKind::Parameters).unwrap();
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
    let optimizer = OptimizerConfig { shard: true, ..OptimizerConfig::default() };
    for replicas in [1, 2] {
        // Replicas with the same sequence share its loss, so that their gradients add up to the gradients of one replica.
        let mut share = Batch::clone(&batch);
        share.trained_tokens *= replicas as u64;
        let share = Arc::new(share);
        let work: Vec<_> =
            (0..replicas).map(|_| ReplicaWork { plan: &plan, batch: &share }).collect();
        let mut pipeline = fixture.replicas(&partition, replicas, optimizer.clone());
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
