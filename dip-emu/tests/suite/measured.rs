use dip_core::profile::{
    KeptBytes, PROFILE_SCHEMA, Part, PartBytes, PartTimes, Profile, ProfileEntry,
};
use dip_core::{
    Bytes, ChunkQuery, CostModel, MicrobatchMeta, ModelSpec, ModuleId, RankId, Seconds, StageCost,
    StageQuery, Strategy, Workload, presets,
};
use dip_emu::MeasuredCost;

/// Every part of every module of `vlm-tiny` at 100 and 200 tokens. Times are proportional to the tokens.
fn profile() -> Profile {
    let entry = |module: &str, part, seconds: f64, tokens: u64| ProfileEntry {
        images: None,
        module: module.into(),
        part,
        tokens,
        times: PartTimes {
            forward_s: Seconds(seconds * tokens as f64),
            inference_s: Seconds(0.5 * seconds * tokens as f64),
            backward_s: Seconds(2.0 * seconds * tokens as f64),
            input_gradient_s: Seconds(1.25 * seconds * tokens as f64),
            weight_s: Seconds(seconds * tokens as f64),
            selective_backward_s: Seconds(2.5 * seconds * tokens as f64),
            offload_forward_s: Seconds(1.25 * seconds * tokens as f64),
            offload_backward_s: Seconds(2.75 * seconds * tokens as f64),
            update_s: Seconds(seconds),
        },
        kept: PartBytes {
            keep: KeptBytes {
                bytes: 10.0 * tokens as f64,
                bytes_per_pair: if part == Part::Layer { 2.0 } else { 0.0 },
                bytes_per_trained_token: if part == Part::Last { 7.0 } else { 0.0 },
                bytes_per_context_token: 11.0,
                bytes_per_cross_pair: 13.0,
            },
            selective: KeptBytes { bytes: 6.0 * tokens as f64, ..KeptBytes::default() },
            full: KeptBytes { bytes: 3.0 * tokens as f64, ..KeptBytes::default() },
            offload: KeptBytes::default(),
        },
    };
    let parts = [(Part::Stage, 1.0), (Part::Layer, 10.0), (Part::First, 3.0), (Part::Last, 5.0)];
    let mut entries = Vec::new();
    for module in ["vision", "language"] {
        for (part, seconds) in parts {
            entries.extend([100, 200].map(|tokens| entry(module, part, seconds, tokens)));
        }
    }
    Profile {
        schema: PROFILE_SCHEMA.into(),
        key: "test".into(),
        entries,
        link_latency_s: Seconds(0.5),
        link_bytes_per_s: 1000.0,
        peak_flops_per_s: None,
        element_bytes: 4,
    }
}

fn model() -> ModelSpec {
    presets::model("vlm-tiny").unwrap()
}

fn chunk(model: &ModelSpec, module: u32, layers: std::ops::Range<u32>) -> ChunkQuery<'_> {
    let module = ModuleId(module);
    ChunkQuery { model, module, layers, trainable: true, runs_backward: true }
}

fn work(tokens: u64) -> Workload {
    Workload { instances: 1, tokens, output_tokens: tokens, ..Workload::default() }
}

fn stage(chunk: ChunkQuery<'_>, tokens: u64, strategy: &str) -> StageCost {
    let (cost, strategy) =
        (MeasuredCost::new(&profile()).with_recompute(true), Strategy::new(strategy));
    cost.stage(&StageQuery { chunk, workload: work(tokens), strategy: &strategy }).unwrap()
}

#[test]
fn a_chunk_is_the_sum_of_its_parts() {
    let model = model();
    let inner = stage(chunk(&model, 1, 1..3), 150, "keep");
    assert_eq!((inner.forward, inner.backward), (Seconds(150.0 * 21.0), Seconds(150.0 * 42.0)));
    let padding = 2 * 2 * (192 - 150) * (192 - 150);
    // The workload has no computed pairs; the rest of the sequence is one document of padding.
    assert_eq!(inner.activation_bytes, Bytes(1500 * 3 + padding), "a stage and two layers");
    assert_eq!(inner.output_bytes, Bytes(4 * 150 * 128));
    let whole = stage(chunk(&model, 1, 0..4), 150, "keep");
    assert_eq!(whole.forward, Seconds(150.0 * (1.0 + 40.0 + 3.0 + 5.0)));
    assert_eq!(whole.output_bytes, Bytes(0), "the loss stays");
    let encoder = stage(chunk(&model, 0, 2..4), 150, "keep");
    assert_eq!(encoder.output_bytes, Bytes(4 * 150 * 128), "as wide as the backbone");
}

#[test]
fn the_update_time_depends_on_the_trained_layers_only() {
    let (model, cost) = (model(), MeasuredCost::new(&profile()));
    let seconds = |layers| cost.update(&chunk(&model, 1, layers)).0;
    let found = [1..3, 0..1, 3..4, 0..4].map(seconds);
    assert_eq!(found, [21.0, 14.0, 16.0, 49.0]);
    let quarter = MeasuredCost::new(&profile()).with_update_share(0.25);
    assert_eq!(quarter.update(&chunk(&model, 1, 1..3)), Seconds(5.25));
    let frozen = ChunkQuery { trainable: false, ..chunk(&model, 1, 0..4) };
    assert_eq!(cost.update(&frozen), Seconds::ZERO);
}

#[test]
fn layers_pay_for_the_recomputation_of_their_strategy() {
    let model = model();
    let of = |strategy: &str| stage(chunk(&model, 1, 1..3), 100, strategy);
    let (keep, full, selective) = (of("keep"), of("full"), of("selective"));
    // Apart from its two layers, of ten units each, the stage has one unit of time and 1000 bytes.
    assert_eq!(full.forward, Seconds(100.0 * (1.0 + 2.0 * 5.0)), "the first pass keeps nothing");
    assert_eq!(full.backward, keep.backward + Seconds(100.0 * 2.0 * 10.0));
    assert_eq!(full.activation_bytes, Bytes(1000 + 2 * 300));
    assert_eq!(selective.forward, keep.forward);
    assert_eq!(selective.backward, keep.backward + Seconds(100.0 * 2.0 * 5.0));
    assert_eq!(selective.activation_bytes, Bytes(1000 + 2 * 600));
    let offload = of("offload");
    assert_eq!(offload.forward, Seconds(100.0 * (1.0 + 2.0 * 12.5)), "copies out");
    assert_eq!(offload.backward, keep.backward + Seconds(100.0 * 2.0 * 7.5), "copies in");
    assert_eq!(offload.activation_bytes, Bytes(1000), "layers keep nothing on the device");
    let mixed = of("full*1+keep*1");
    assert_eq!(mixed.backward, (keep.backward + full.backward) * 0.5);
}

#[test]
fn activations_grow_with_pairs_inside_documents_and_tokens_with_a_loss() {
    let model = model();
    let (cost, keep) = (MeasuredCost::new(&profile()).with_recompute(true), Strategy::keep());
    // Documents of 60 and 40 tokens, and 92 of padding.
    let workload = Workload { computed_pairs: 60 * 60 + 40 * 40, trained_tokens: 30, ..work(100) };
    let query = StageQuery { chunk: chunk(&model, 1, 2..4), workload, strategy: &keep };
    let pairs = 60 * 60 + 40 * 40 + 92 * 92;
    let expected = 1000 * 4 + 2 * 2 * pairs + 7 * 30;
    assert_eq!(cost.stage(&query).unwrap().activation_bytes, Bytes(expected));
    let workload = Workload { context_tokens: 5, cross_pairs: 500, ..workload };
    let query = StageQuery { workload, ..query };
    // Four parts see the captions: the stage, two layers and the end.
    let expected = expected + 4 * (11 * 5 + 13 * 500);
    assert_eq!(cost.stage(&query).unwrap().activation_bytes, Bytes(expected));
}

#[test]
fn split_backwards_take_the_sum_of_their_two_tasks() {
    let model = model();
    let chunk = chunk(&model, 1, 1..3);
    let strategy = Strategy::keep();
    let query = StageQuery { chunk, workload: work(100), strategy: &strategy };
    let joint = MeasuredCost::new(&profile());
    let (whole, split) = (joint.stage(&query), joint.clone().with_weight_split(true).stage(&query));
    let (whole, split) = (whole.unwrap(), split.unwrap());
    assert_eq!(whole.backward, Seconds(100.0 * 42.0));
    assert_eq!(split.backward, Seconds(100.0 * 21.0 * 2.25));
    assert_eq!(split.weight, Some(Seconds(100.0 * 21.0)));
}

#[test]
fn frozen_modules_run_a_forward_without_activations() {
    let model = model();
    let mut frozen = chunk(&model, 0, 1..3);
    (frozen.trainable, frozen.runs_backward) = (false, false);
    let cost = stage(frozen, 100, "keep");
    assert_eq!((cost.forward, cost.backward), (Seconds(1050.0), Seconds::ZERO));
    assert_eq!(cost.activation_bytes, Bytes(0));
}

#[test]
fn recompute_and_offload_are_candidates_on_request() {
    let model = model();
    let names = |recompute, offload| {
        let cost = MeasuredCost::new(&profile()).with_recompute(recompute).with_offload(offload);
        let found = cost.candidates(&chunk(&model, 1, 0..2), work(100)).unwrap();
        found.into_iter().map(|c| c.strategy.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(false, false), ["keep"]);
    assert_eq!(names(true, false), ["keep", "selective", "full"]);
    assert_eq!(names(true, true), ["keep", "selective", "full", "offload"]);
    let mut frozen = chunk(&model, 0, 1..3);
    (frozen.trainable, frozen.runs_backward) = (false, false);
    let cost = MeasuredCost::new(&profile()).with_recompute(true).with_offload(true);
    assert_eq!(cost.candidates(&frozen, work(100)).unwrap().len(), 1, "nothing is kept");
}

#[test]
fn memory_and_messages_follow_from_the_profile_and_unknown_parts_are_refused() {
    let model = model();
    let cost = MeasuredCost::new(&profile()).with_recompute(true);
    let parameters = model.parameters(ModuleId(1));
    assert_eq!(cost.static_bytes(&chunk(&model, 1, 0..4)), Bytes(16 * parameters.total()));
    let averaged = cost.clone().with_averages(true);
    assert_eq!(averaged.static_bytes(&chunk(&model, 1, 0..4)), Bytes(20 * parameters.total()));
    assert_eq!(cost.transfer(RankId(0), RankId(1), Bytes(500)), Seconds(1.0));
    assert_eq!(cost.transfer(RankId(1), RankId(1), Bytes(500)), Seconds::ZERO);
    let t2v = presets::model("t2v-tiny").unwrap();
    let meta = MicrobatchMeta::default();
    let none = t2v.workload(ModuleId(0), &meta, 0..0);
    let error = cost.candidates(&chunk(&t2v, 0, 0..2), none).unwrap_err().to_string();
    assert!(error.contains("\"text\"") && error.contains("measure"), "{error}");
    let strategy = Strategy::new("elsewhere");
    let query =
        StageQuery { chunk: chunk(&model, 1, 0..2), workload: work(1), strategy: &strategy };
    assert!(cost.stage(&query).unwrap_err().to_string().contains("`offload`"));
}
