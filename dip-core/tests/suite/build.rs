use std::ops::Range;

use dip_core::{
    BatchMeta, BatchSplit, BuildError, Bytes, Chunk, ChunkQuery, ClusterSpec, CostError, CostModel,
    GraphInput, ModelSpec, ModulePartition, Partition, RankId, Seconds, SegmentId, StageCost,
    StageQuery, Strategy, TaskGraph, TaskKind, build_graph, check_graph,
};

/// A forward takes one second per instance and layer, a backward two; half of a backward is the weight gradient of trained
/// modules. Stages send one megabyte per instance, at one megabyte per second.
struct Simple;

impl CostModel for Simple {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let chunk = &query.chunk;
        let n = u64::from(query.workload.instances);
        let forward = Seconds(n as f64 * chunk.layers.len() as f64);
        let full = query.strategy.as_str() == "full";
        let factor = if full { 3.0 } else { 2.0 };
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward,
            backward: forward * if chunk.runs_backward { factor } else { 0.0 },
            weight: chunk.trainable.then_some(forward),
            activation_bytes: Bytes(if full { n } else { 10 * n }),
            output_bytes: Bytes(n * 1_000_000),
        })
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        if from == to { Seconds::ZERO } else { Seconds(bytes.0 as f64 / 1e6) }
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        Bytes(chunk.layers.len() as u64 * if chunk.trainable { 8 } else { 1 })
    }

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: dip_core::Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let with = |name: &str| {
            let strategy = &Strategy::new(name);
            self.stage(&StageQuery { chunk: chunk.clone(), workload, strategy })
        };
        if chunk.runs_backward {
            Ok(vec![with("keep")?, with("full")?])
        } else {
            Ok(vec![with("keep")?])
        }
    }
}

/// A model of the given modules (name, layers, trained, inputs, kind).
fn model(modules: &[(&str, u32, bool, &str, &str)]) -> ModelSpec {
    let mut text = "name = \"m\"\nsequence_tokens = 1000\n".to_owned();
    for (name, layers, trained, inputs, kind) in modules {
        text += &format!(
            "[[module]]\nname = \"{name}\"\nlayers = {layers}\ntrainable = {trained}\ninputs = [{inputs}]\n\
             hidden = 8\nffn = 8\nheads = 1\nkind = {{ {kind} }}\n"
        );
    }
    ModelSpec::from_toml(&text).unwrap()
}

fn partition(modules: &[&[(u32, u32, Range<u32>)]]) -> Partition {
    let chunk = |(rank, segment, layers): &(u32, u32, Range<u32>)| Chunk {
        rank: RankId(*rank),
        segment: SegmentId(*segment),
        layers: layers.clone(),
    };
    let module = |chunks: &&[(u32, u32, Range<u32>)]| ModulePartition {
        sub_microbatch: 2,
        chunks: chunks.iter().map(chunk).collect(),
    };
    Partition { ranks: 2, modules: modules.iter().map(module).collect() }
}

fn build(
    model: &ModelSpec,
    partition: &Partition,
    batch: &str,
    slices: Vec<Vec<Vec<Range<u32>>>>,
    weight_split: bool,
) -> Result<TaskGraph, BuildError> {
    let cluster = ClusterSpec::from_toml(
        "name = \"c\"\ndevices_per_node = 2\nnodes = 1\n[device]\nflops_per_s = 1.0\nmemory_bytes = 1000\n\
         memory_bytes_per_s = 1.0\n[links]\nintra_node_bytes_per_s = 1.0\ninter_node_bytes_per_s = 1.0\n\
         host_bytes_per_s = 1.0\n",
    )
    .unwrap();
    let batch = BatchMeta::from_jsonl(batch).unwrap().remove(0);
    build_graph(&GraphInput {
        model,
        cluster: &cluster,
        partition,
        batch: &batch,
        split: &BatchSplit { slices },
        cost: &Simple,
        weight_split,
    })
}

/// One task per line: `id kind module.segment @rank microbatch.sub_microbatch: duration <- dependency(+communication)`.
fn text(graph: &TaskGraph) -> Vec<String> {
    let line = |t: &dip_core::Task| {
        let kind = match t.kind {
            TaskKind::Forward => 'F',
            TaskKind::Backward => 'B',
            TaskKind::Weight => 'W',
        };
        let deps: Vec<_> = t
            .deps
            .iter()
            .map(|d| match d.comm_s {
                Seconds::ZERO => d.task.to_string(),
                comm => format!("{}(+{})", d.task, comm.0),
            })
            .collect();
        let (module, segment, rank, k, s) =
            (&t.module, t.segment, t.rank, t.microbatch, t.sub_microbatch);
        let time = t.duration_s.0;
        format!("{} {kind} {module}.{segment} @{rank} {k}.{s}: {time} <- {}", t.id, deps.join(" "))
            .trim_end()
            .to_owned()
    };
    graph.tasks.iter().map(line).collect()
}

const VIT: &str = "vit = { image_px = 28, patch_px = 14, merge = 1 }";
const EARS: &str = "audio = { frames_per_second = 50, merge = 1 }";
const LM: &str = "decoder = { vocab = 10 }";
const DIT: &str =
    "dit = { latent_frames_per_second = 1.0, tokens_per_frame = 1, token_channels = 1 }";

fn two_encoders() -> (ModelSpec, Partition) {
    let model = model(&[
        ("lm", 2, true, "\"vit\", \"ears\"", LM),
        ("vit", 2, false, "", VIT),
        ("ears", 1, true, "", EARS),
    ]);
    let partition = partition(&[&[(0, 0, 0..1), (1, 0, 1..2)], &[(0, 0, 0..2)], &[(1, 0, 0..1)]]);
    (model, partition)
}

/// One microbatch with three images in two slices and a sound, and one with text only.
const IMAGES_AND_TEXT: &str =
    "{\"images\":3,\"audio_seconds\":[1.0],\"text_tokens\":10}\n{\"text_tokens\":5}\n";

fn images_and_text() -> Vec<Vec<Vec<Range<u32>>>> {
    vec![vec![vec![0..1], vec![0..2, 2..3], vec![0..1]], vec![vec![0..1], vec![], vec![]]]
}

#[test]
fn encoders_feed_the_backbone_and_frozen_encoders_run_no_backward() {
    let (model, partition) = two_encoders();
    let graph = build(&model, &partition, IMAGES_AND_TEXT, images_and_text(), false).unwrap();
    assert_eq!(
        text(&graph),
        [
            "0 F vit.0 @0 0.0: 4 <-",
            "1 F vit.0 @0 0.1: 2 <-",
            "2 F ears.0 @1 0.0: 1 <-",
            "3 F lm.0 @0 0.0: 1 <- 0 1 2(+1)",
            "4 F lm.0 @1 0.0: 1 <- 3(+1)",
            "5 B lm.0 @1 0.0: 2 <- 4",
            "6 B lm.0 @0 0.0: 2 <- 3 5(+1)",
            "7 B ears.0 @1 0.0: 2 <- 2 6(+1)",
            "8 F lm.0 @0 1.0: 1 <-",
            "9 F lm.0 @1 1.0: 1 <- 8(+1)",
            "10 B lm.0 @1 1.0: 2 <- 9",
            "11 B lm.0 @0 1.0: 2 <- 8 10(+1)",
        ]
    );
    assert_eq!(graph.static_bytes, [Bytes(8 + 2), Bytes(8 + 8)]);
    assert_eq!(graph.memory_limit_bytes, [Bytes(1000); 2]);
    assert_eq!(check_graph(&graph), []);
}

#[test]
fn pairs_with_a_choice_carry_their_candidates_on_the_forward() {
    let (model, partition) = two_encoders();
    let graph = build(&model, &partition, IMAGES_AND_TEXT, images_and_text(), false).unwrap();
    let counts: Vec<_> = graph.tasks.iter().map(|t| t.candidates.len()).collect();
    assert_eq!(counts, [0, 0, 2, 2, 2, 0, 0, 0, 2, 2, 0, 0]);
    let full = &graph.tasks[3].candidates[1];
    assert_eq!(
        (full.strategy.as_str(), full.backward_s, full.activation_bytes),
        ("full", Seconds(3.0), Bytes(1))
    );
    assert_eq!(graph.tasks[3].activation_bytes, Bytes(10));
    assert_eq!(graph.tasks[5].activation_bytes, Bytes::ZERO);
}

#[test]
fn a_split_backward_has_a_weight_task() {
    let (model, partition) = two_encoders();
    let slices = vec![vec![vec![0..1], vec![], vec![]]];
    let graph = build(&model, &partition, "{\"text_tokens\":5}", slices, true).unwrap();
    assert_eq!(
        text(&graph),
        [
            "0 F lm.0 @0 0.0: 1 <-",
            "1 F lm.0 @1 0.0: 1 <- 0(+1)",
            "2 B lm.0 @1 0.0: 1 <- 1",
            "3 W lm.0 @1 0.0: 1 <- 2",
            "4 B lm.0 @0 0.0: 1 <- 0 2(+1)",
            "5 W lm.0 @0 0.0: 1 <- 4",
        ]
    );
    assert_eq!(graph.tasks[0].candidates[1].backward_s, Seconds(2.0), "without the weight task");
    assert_eq!(check_graph(&graph), []);
}

#[test]
fn clips_depend_on_the_slices_that_hold_them_if_modules_are_split_differently() {
    let model = model(&[("text", 1, true, "", LM), ("dit", 1, true, "\"text\"", DIT)]);
    let partition = partition(&[&[(0, 0, 0..1)], &[(1, 0, 0..1)]]);
    let clip = "{\"seconds\":1.0,\"caption_tokens\":5}";
    let batch = format!("{{\"clips\":[{clip},{clip},{clip},{clip}]}}");
    let slices = vec![vec![vec![0..3, 3..4], vec![0..2, 2..4]]];
    let graph = build(&model, &partition, &batch, slices, false).unwrap();
    assert_eq!(
        text(&graph),
        [
            "0 F text.0 @0 0.0: 3 <-",
            "1 F text.0 @0 0.1: 1 <-",
            "2 F dit.0 @1 0.0: 2 <- 0(+3)",
            "3 F dit.0 @1 0.1: 2 <- 0(+3) 1(+1)",
            "4 B dit.0 @1 0.0: 4 <- 2",
            "5 B dit.0 @1 0.1: 4 <- 3",
            "6 B text.0 @0 0.0: 6 <- 0 4(+3) 5(+3)",
            "7 B text.0 @0 0.1: 2 <- 1 5(+1)",
        ]
    );
    assert_eq!(check_graph(&graph), []);
}

#[test]
fn a_module_passes_every_rank_once_per_segment() {
    let model = model(&[("lm", 4, true, "", LM)]);
    let partition = partition(&[&[(0, 0, 0..1), (1, 0, 1..2), (0, 1, 2..3), (1, 1, 3..4)]]);
    let graph =
        build(&model, &partition, "{\"text_tokens\":5}", vec![vec![vec![0..1]]], false).unwrap();
    let forwards: Vec<_> = text(&graph).into_iter().take(4).collect();
    assert_eq!(
        forwards,
        [
            "0 F lm.0 @0 0.0: 1 <-",
            "1 F lm.0 @1 0.0: 1 <- 0(+1)",
            "2 F lm.1 @0 0.0: 1 <- 1(+1)",
            "3 F lm.1 @1 0.0: 1 <- 2(+1)"
        ]
    );
    assert_eq!(check_graph(&graph), []);
}

#[test]
fn a_split_that_does_not_cover_the_instances_is_refused() {
    let (model, partition) = two_encoders();
    let splits: [&[(u32, u32)]; 5] =
        [&[], &[(0, 2)], &[(0, 2), (1, 3)], &[(0, 2), (2, 4)], &[(0, 0), (0, 3)]];
    for split in splits {
        let slices = split.iter().map(|&(start, end)| start..end).collect();
        let all = vec![vec![vec![0..1], slices, vec![0..1]], vec![vec![0..1], vec![], vec![]]];
        let error = build(&model, &partition, IMAGES_AND_TEXT, all, false).unwrap_err().to_string();
        assert!(error.starts_with("the split of microbatch 0 for module \"vit\" is ["), "{error}");
        assert!(error.contains("must cover 0..3 in order"), "{error}");
    }
}
