use std::ops::Range;

use dip_core::profile::Part;
use dip_core::{
    BatchMeta, Bytes, ChunkQuery, ClipMeta, CostModel, LayerStrategy, MicrobatchMeta, ModelSpec,
    RankId, Seconds, StageCost, StageQuery, Strategy, Workload, presets,
};
use dip_emu::{AnalyticCost, Pass, Replicas, model_flops, utilisation};
use proptest::prelude::{
    ProptestConfig, Strategy as Values, prop_assert, prop_assert_eq, proptest,
};

fn model(name: &str) -> ModelSpec {
    presets::model(name).unwrap()
}

fn cost(model: &ModelSpec, cluster: &str) -> AnalyticCost {
    AnalyticCost::new(model, &presets::cluster(cluster).unwrap())
}

fn chunk<'a>(model: &'a ModelSpec, module: &str, layers: Range<u32>) -> ChunkQuery<'a> {
    ChunkQuery::new(model, model.module(module).unwrap().0, layers)
}

fn whole(model: &ModelSpec, module: &str, meta: &MicrobatchMeta) -> Workload {
    let (id, _) = model.module(module).unwrap();
    model.workload(id, meta, 0..model.instances(id, meta).1)
}

fn images(images: u32) -> MicrobatchMeta {
    MicrobatchMeta { images: images.into(), ..MicrobatchMeta::default() }
}

fn text(text_tokens: u64) -> MicrobatchMeta {
    MicrobatchMeta { text_tokens, ..MicrobatchMeta::default() }
}

fn stage(cost: &AnalyticCost, chunk: ChunkQuery<'_>, workload: Workload, name: &str) -> StageCost {
    let strategy = Strategy::new(name);
    cost.stage(&StageQuery { chunk, workload, strategy: &strategy }).unwrap()
}

/// The time of the forward and backward of one inner layer.
fn layer(model: &ModelSpec, module: &str, meta: &MicrobatchMeta) -> Seconds {
    let work = whole(model, module, meta);
    let stage = stage(&cost(model, "h800"), chunk(model, module, 1..2), work, "keep");
    stage.forward + stage.backward
}

#[test]
fn layers_take_what_the_paper_measured_on_8_h800() {
    let vlm = model("vlm-m");
    assert_eq!(vlm.parallel.tensor, 8);
    for (module, meta, ms) in [("vision", images(8), 6.75), ("language", text(8192), 10.5)] {
        let measured = layer(&vlm, module, &meta).0 * 1e3;
        assert!((measured / ms - 1.0).abs() < 0.03, "{module}: {measured:.2} ms, paper {ms} ms");
    }
}

#[test]
fn a_7b_language_model_has_the_utilisation_of_the_paper() {
    // The paper: 7B on 8 GPUs (TP2, PP4) under 1F1B, MFU 0.400. Its FLOPs are those of 32 sequences of 8,192 tokens.
    let model = ModelSpec::from_toml(
        r#"
        name = "lm-7b"
        sequence_tokens = 8192
        parallel = { data = 1, tensor = 2, pipeline = 4 }
        [[module]]
        name = "language"
        layers = 32
        hidden = 4096
        ffn = 11008
        heads = 32
        kind = { decoder = { vocab = 32000 } }
        "#,
    )
    .unwrap();
    let cost = cost(&model, "h800");
    let work = whole(&model, "language", &text(8192));
    let stages = [0..8, 8..16, 16..24, 24..32].map(|layers| {
        let stage = stage(&cost, chunk(&model, "language", layers), work, "keep");
        stage.forward + stage.backward
    });
    // The slowest rank is idle only while the pipeline fills and drains.
    let slowest = stages.into_iter().fold(Seconds::ZERO, Seconds::max);
    let makespan = slowest * 31.0 + stages.into_iter().sum();
    let batch = BatchMeta { iteration: 0, microbatches: vec![text(8192); 32] };
    let cluster = presets::cluster("h800").unwrap();
    let used = utilisation(&model, &cluster, model_flops(&model, &batch), makespan);
    assert!((used / 0.400 - 1.0).abs() < 0.05, "{used:.3}");
}

#[test]
fn twelve_images_are_the_smallest_sub_microbatch_at_95_per_cent() {
    let vlm = model("vlm-m");
    let an_image = |n: u32| layer(&vlm, "vision", &images(n)).0 / f64::from(n);
    let efficiency = |n| an_image(48) / an_image(n);
    let smallest = (1..=48).find(|&n| efficiency(n) >= 0.95).unwrap();
    assert!((11..=12).contains(&smallest), "{smallest}");
    assert!((0.80..0.88).contains(&efficiency(4)), "{}", efficiency(4));
}

#[test]
fn the_arithmetic_of_a_layer_follows_from_its_weights_and_attention_pairs() {
    for (name, module, meta) in [
        ("vlm-s", "vision", images(8)),
        ("vlm-s", "language", text(8192)),
        ("vlm-m", "language", text(4096)),
    ] {
        let model = model(name);
        let (id, spec) = model.module(module).unwrap();
        let work = whole(&model, module, &meta);
        let cost = cost(&model, "h800");
        let flops = |pass| -> f64 {
            let operators = cost.operators(id, Part::Layer, work, pass);
            operators.iter().map(|(op, _)| op.flops.0).sum::<f64>()
                * f64::from(model.parallel.tensor)
        };
        let products = 2.0 * work.tokens as f64 * spec.layer_parameters() as f64;
        let width = f64::from(spec.heads * spec.head_dim());
        let pairs = 4.0 * work.attention_pairs as f64 * width;
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{module}: {a} {b}");
        close(flops(Pass::Forward), products + pairs);
        close(flops(Pass::InputGradient), products + 2.5 * pairs);
        close(flops(Pass::WeightGradient), products);
    }
}

#[test]
fn a_dit_layer_pays_for_its_captions() {
    let t2v = model("t2v-s");
    let clip = |caption_tokens| MicrobatchMeta {
        clips: vec![ClipMeta { seconds: 4.0, caption_tokens, ..Default::default() }],
        ..MicrobatchMeta::default()
    };
    let seconds = |n| layer(&t2v, "video", &clip(n)).0;
    assert!(seconds(0) < seconds(100) && seconds(100) < seconds(2000));
}

#[test]
fn weight_gradients_are_the_same_under_all_strategies() {
    let vlm = model("vlm-s");
    let cost = cost(&vlm, "h800");
    let work = whole(&vlm, "language", &text(8192));
    let of = |name| stage(&cost, chunk(&vlm, "language", 4..12), work, name);
    let keep = of("keep");
    let share = keep.weight.unwrap() / (keep.forward + keep.backward);
    assert!((0.15..0.34).contains(&share), "{share}");
    for name in ["selective", "full", "offload", "full*3+keep*5"] {
        let other = of(name);
        assert_eq!(other.weight, keep.weight);
        assert!(other.activation_bytes < keep.activation_bytes, "{name}");
        assert!(other.forward + other.backward > keep.forward + keep.backward, "{name}");
    }
    let recompute = of("full").backward - keep.backward;
    assert!((recompute / keep.forward - 1.0).abs() < 1e-9, "the whole forward runs again");
}

#[test]
fn frozen_modules_have_no_weight_gradients_and_keep_less() {
    let mut vlm = model("vlm-s");
    let trained = stage(
        &cost(&vlm, "h800"),
        chunk(&vlm, "language", 4..12),
        whole(&vlm, "language", &text(8192)),
        "keep",
    );
    vlm.modules[1].trainable = false;
    let cost_model = cost(&vlm, "h800");
    let work = whole(&vlm, "language", &text(8192));
    let frozen = stage(&cost_model, chunk(&vlm, "language", 4..12), work, "keep");
    assert_eq!(frozen.weight, None);
    assert!(frozen.backward < trained.backward);
    assert!(frozen.activation_bytes < trained.activation_bytes);
    let mut forward_only = chunk(&vlm, "language", 4..12);
    forward_only.runs_backward = false;
    assert_eq!(cost_model.candidates(&forward_only, work).unwrap().len(), 1);
    let forward_only = stage(&cost_model, forward_only, work, "keep");
    assert_eq!((forward_only.forward, forward_only.backward), (frozen.forward, Seconds::ZERO));
    assert!(forward_only.activation_bytes < frozen.activation_bytes, "only a working set");
}

#[test]
fn candidates_are_a_front_of_at_most_ten_and_cost_what_their_stages_cost() {
    for (name, module, meta) in [
        ("vlm-s", "vision", images(10)),
        ("vlm-l", "language", text(8192)),
        ("vlm-tiny", "vision", images(4)),
    ] {
        let model = model(name);
        let cost = cost(&model, if name == "vlm-tiny" { "cpu" } else { "h800" });
        let layers = model.module(module).unwrap().1.layers;
        for range in [0..layers.min(8), 1..2, layers - 1..layers] {
            let query = chunk(&model, module, range);
            let work = whole(&model, module, &meta);
            let candidates = cost.candidates(&query, work).unwrap();
            assert!((1..=10).contains(&candidates.len()));
            for pair in candidates.windows(2) {
                let seconds = |c: &StageCost| c.forward + c.backward;
                assert!(seconds(&pair[0]) < seconds(&pair[1]));
                assert!(pair[0].activation_bytes > pair[1].activation_bytes);
            }
            for c in candidates {
                assert_eq!(stage(&cost, query.clone(), work, c.strategy.as_str()), c);
            }
        }
    }
}

#[test]
fn only_offered_strategies_are_candidates() {
    let vlm = model("vlm-tiny");
    let cost = cost(&vlm, "cpu").with_strategies(&[LayerStrategy::Keep, LayerStrategy::Full]);
    let work = whole(&vlm, "language", &text(200));
    let names =
        |c: Vec<StageCost>| c.into_iter().map(|c| c.strategy.to_string()).collect::<Vec<_>>();
    let found = names(cost.candidates(&chunk(&vlm, "language", 0..2), work).unwrap());
    assert_eq!(found, ["keep", "full*1+keep*1", "full"]);
}

#[test]
fn replicas_share_the_optimiser_state() {
    let mut vlm = model("vlm-m");
    let bytes = |vlm: &ModelSpec| cost(vlm, "h800").static_bytes(&chunk(vlm, "language", 1..2)).0;
    let parameters = vlm.module("language").unwrap().1.layer_parameters() / 8;
    assert_eq!(bytes(&vlm), 18 * parameters);
    vlm.parallel.data = 4;
    assert_eq!(bytes(&vlm), (6 + 3) * parameters);
    vlm.modules[1].trainable = false;
    assert_eq!(bytes(&vlm), 2 * parameters);
}

#[test]
fn replicas_exchange_gradients_and_weights_once_per_iteration() {
    let mut vlm = model("vlm-m");
    let seconds = |vlm: &ModelSpec| {
        let (cost, chunk) = (cost(vlm, "h800"), chunk(vlm, "language", 1..9));
        (cost.reduction(&chunk) + cost.gather(&chunk)).0
    };
    assert_eq!(seconds(&vlm), 0.0);
    vlm.parallel.data = 8;
    let bytes = 6.0 * 8.0 * vlm.modules[1].layer_parameters() as f64 / 8.0 * 7.0 / 8.0;
    assert!((seconds(&vlm) / (1.4 * bytes / 25e9 + 2e-5) - 1.0).abs() < 1e-6);
}

#[test]
fn an_optimiser_that_is_not_sharded_holds_updates_and_sums_all() {
    let mut vlm = model("vlm-m");
    vlm.parallel.data = 4;
    let replicas = Replicas { sharded: false, ..Replicas::default() };
    let (shared, whole) = (cost(&vlm, "h800"), cost(&vlm, "h800").with_replicas(replicas));
    let chunk = chunk(&vlm, "language", 1..2);
    let parameters = vlm.modules[1].layer_parameters() / 8;
    assert_eq!(whole.static_bytes(&chunk).0, 18 * parameters);
    assert_eq!(whole.reduction(&chunk), shared.reduction(&chunk) * 2.0);
    assert_eq!(whole.gather(&chunk), Seconds::ZERO);
    assert!((whole.update(&chunk) / shared.update(&chunk) - 4.0).abs() < 1e-6);
    // Two states of 12 bytes, a gradient and a weight, at 1 / 1.2 of the memory bandwidth.
    let seconds = 1.2 * 30.0 * parameters as f64 / 3.35e12;
    assert!((whole.update(&chunk).0 / seconds - 1.0).abs() < 1e-6);
}

#[test]
fn parallelism_degrees_of_zero_count_as_one() {
    let mut vlm = model("vlm-s");
    (vlm.parallel.data, vlm.parallel.tensor) = (0, 0);
    let zero = cost(&vlm, "h800");
    let work = whole(&vlm, "vision", &images(2));
    let found = zero.candidates(&chunk(&vlm, "vision", 0..63), work).unwrap();
    let weights = zero.static_bytes(&chunk(&vlm, "vision", 0..63));
    (vlm.parallel.data, vlm.parallel.tensor) = (1, 1);
    let one = cost(&vlm, "h800");
    assert_eq!(found, one.candidates(&chunk(&vlm, "vision", 0..63), work).unwrap());
    assert_eq!(weights, one.static_bytes(&chunk(&vlm, "vision", 0..63)));
    assert!(zero.transfer(RankId(0), RankId(9), Bytes(1)) > Seconds::ZERO);
}

#[test]
fn messages_between_nodes_take_the_slower_link() {
    let vlm = model("vlm-s");
    let cost = cost(&vlm, "h800");
    let bytes = Bytes(1 << 24);
    let seconds = |from, to| cost.transfer(RankId(from), RankId(to), bytes).0;
    assert_eq!(seconds(1, 1), 0.0);
    // Two ranks of 4 devices are one node of 8.
    assert!(seconds(0, 1) > 0.0 && seconds(0, 1) < seconds(1, 2));
}

#[test]
fn chunks_of_another_model_and_unknown_strategies_are_refused() {
    let (small, tiny) = (model("vlm-s"), model("vlm-tiny"));
    let cost = cost(&small, "h800");
    let work = whole(&small, "vision", &images(1));
    let error = cost.candidates(&chunk(&tiny, "vision", 0..2), work).unwrap_err().to_string();
    assert!(error.contains("vlm-tiny") && error.contains("vlm-s"), "{error}");
    let half = Strategy::new("half");
    let query =
        StageQuery { chunk: chunk(&small, "vision", 0..2), workload: work, strategy: &half };
    assert!(cost.stage(&query).unwrap_err().to_string().contains("half"));
}

fn any_batch() -> impl Values<Value = BatchMeta> {
    let microbatch = (0u32..20, 1u64..8000).prop_map(|(images, text_tokens)| MicrobatchMeta {
        images: images.into(),
        text_tokens,
        ..Default::default()
    });
    proptest::collection::vec(microbatch, 1..5)
        .prop_map(|microbatches| BatchMeta { iteration: 0, microbatches })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn reuse_changes_no_cost(batch in any_batch(), start in 0u32..20, layers in 1u32..10) {
        let vlm = model("vlm-s");
        let (reused, recomputed) = (cost(&vlm, "h800"), cost(&vlm, "h800").with_reuse(false));
        for meta in &batch.microbatches {
            for module in ["vision", "language"] {
                let query = chunk(&vlm, module, start..start + layers);
                let work = whole(&vlm, module, meta);
                let a = reused.candidates(&query, work).unwrap();
                prop_assert_eq!(&a, &recomputed.candidates(&query, work).unwrap());
                prop_assert_eq!(&a, &reused.candidates(&query, work).unwrap());
            }
        }
    }

    #[test]
    fn more_work_never_takes_less(n in 1u32..40, tokens in 1u64..8000) {
        let vlm = model("vlm-s");
        prop_assert!(layer(&vlm, "vision", &images(n)) <= layer(&vlm, "vision", &images(n + 1)));
        prop_assert!(layer(&vlm, "language", &text(tokens)) <= layer(&vlm, "language", &text(tokens + 1)));
    }

    #[test]
    fn huge_workloads_have_finite_times(tokens in (1u64 << 30)..(1 << 32), clips in 1usize..4) {
        let t2v = model("t2v-s");
        let clip = ClipMeta { seconds: 1e6, caption_tokens: tokens, ..Default::default() };
        let meta = MicrobatchMeta { clips: vec![clip; clips], ..Default::default() };
        for module in ["text", "video"] {
            let query = chunk(&t2v, module, 0..2);
            for c in cost(&t2v, "h800").candidates(&query, whole(&t2v, module, &meta)).unwrap() {
                prop_assert!(c.forward.0.is_finite() && c.backward.0.is_finite());
            }
        }
    }
}
