//! The speed of the emulator: pricing a batch with and without reuse, and running a plan in virtual time.
//!
//! `cargo bench -p dip-emu`

use criterion::{Criterion, Throughput};
use dip_core::{
    BatchMeta, BatchSplit, Chunk, Executor, GraphInput, ModelSpec, ModulePartition, Partition,
    Plan, RankId, Seconds, SegmentId, TaskGraph, TaskId, Timeline, build_graph, presets,
};
use dip_emu::{AnalyticCost, LinkModel, VirtualExecutor, sample};

const IMAGES: u32 = 12;

/// One chunk of each module on each rank.
fn partition(model: &ModelSpec) -> Partition {
    let ranks = model.parallel.pipeline;
    let module = |spec: &dip_core::ModuleSpec| ModulePartition {
        sub_microbatch: IMAGES,
        chunks: (0..ranks)
            .map(|r| Chunk {
                rank: RankId(r),
                segment: SegmentId(0),
                layers: spec.layers * r / ranks..spec.layers * (r + 1) / ranks,
            })
            .collect(),
    };
    Partition { ranks, modules: model.modules.iter().map(module).collect() }
}

/// Splits every module into slices of at most [`IMAGES`] instances.
fn split(model: &ModelSpec, batch: &BatchMeta) -> BatchSplit {
    let slices = batch.microbatches.iter().map(|meta| {
        let module = |m: usize| {
            let (_, n) = model.instances(m.into(), meta);
            (0..n).step_by(IMAGES as usize).map(|at| at..n.min(at + IMAGES)).collect()
        };
        (0..model.modules.len()).map(module).collect()
    });
    BatchSplit { slices: slices.collect() }
}

fn graph(model: &ModelSpec, cost: &AnalyticCost) -> TaskGraph {
    let cluster = presets::cluster("h800").unwrap();
    let batch = sample(model, 1, 0, None).remove(0);
    let (partition, split) = (partition(model), split(model, &batch));
    build_graph(&GraphInput {
        model,
        cluster: &cluster,
        partition: &partition,
        batch: &batch,
        split: &split,
        cost,
        weight_split: false,
    })
    .unwrap()
}

/// The order of every rank by task id, which is a topological order.
fn by_id(graph: &TaskGraph) -> Vec<Vec<TaskId>> {
    let mut order = vec![Vec::<TaskId>::new(); graph.ranks as usize];
    for task in &graph.tasks {
        order[task.rank.index()].push(task.id);
    }
    order
}

/// One iteration of the paper's largest vision-language model: 8 ranks, 32 microbatches.
fn large(c: &mut Criterion) {
    let mut model = presets::model("vlm-l").unwrap();
    (model.parallel.pipeline, model.microbatches) = (8, 32);
    let cost = AnalyticCost::new(&model, &presets::cluster("h800").unwrap());
    let graph_of_batch = || graph(&model, &cost);
    let graph = graph_of_batch();
    let mut group = c.benchmark_group("vlm-l, 8 ranks, 32 microbatches");
    group.throughput(Throughput::Elements(graph.tasks.len() as u64));
    group.bench_function("build the graph with known costs", |b| b.iter(graph_of_batch));
    let order = by_id(&graph);
    group.bench_function("timeline", |b| b.iter(|| Timeline::evaluate(&graph, &order).unwrap()));
    group.finish();
}

fn benches(c: &mut Criterion) {
    let model = presets::model("vlm-s").unwrap();
    let cluster = presets::cluster("h800").unwrap();
    let fresh = |reuse| AnalyticCost::new(&model, &cluster).with_reuse(reuse);
    c.bench_function("price a batch without reuse", |b| {
        let cost = fresh(false);
        b.iter(|| graph(&model, &cost));
    });
    c.bench_function("price a batch with reuse", |b| {
        b.iter(|| graph(&model, &fresh(true)));
    });
    c.bench_function("price a batch that was priced before", |b| {
        let cost = fresh(true);
        b.iter(|| graph(&model, &cost));
    });
    let graph = graph(&model, &fresh(true));
    let order = by_id(&graph);
    let plan = Plan::new(graph, "by id", order, Seconds::ZERO).unwrap();
    for (name, links) in [
        ("run a plan", LinkModel::Uncontended),
        ("run a plan, contended", LinkModel::Ports { latency: Seconds(1e-5) }),
    ] {
        c.bench_function(name, |b| b.iter(|| VirtualExecutor::new(links).execute(&plan).unwrap()));
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    large(&mut criterion);
    criterion.final_summary();
}
