//! Time of whole schedules, and tasks per second: `cargo bench -p dip-sched`.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use dip_core::{
    Budget, Bytes, Dep, Environment, MicrobatchId, RankId, Schedule, Seconds, SegmentId, Strategy,
    SubMicrobatchId, Task, TaskGraph, TaskId, TaskKind,
};
use dip_sched::{Dip, OneFOneB, Reordered};

/// A chain with one stage per rank, uneven durations, and memory for `ranks` microbatches.
fn chain(ranks: usize, microbatches: usize) -> TaskGraph {
    let mut tasks = Vec::new();
    let id = |m: usize, r: usize, kind: usize| TaskId::from((m * ranks + r) * 2 + kind);
    let dep = |task: TaskId| Dep { task, comm_s: Seconds(0.1) };
    for m in 0..microbatches {
        for r in 0..ranks {
            let load = 1.0 + ((m * 7 + r * 3) % 11) as f64 / 11.0;
            let forward: Vec<Dep> =
                r.checked_sub(1).map(|r| dep(id(m, r, 0))).into_iter().collect();
            let mut backward = vec![dep(id(m, r, 0))];
            backward.extend((r + 1 < ranks).then(|| dep(id(m, r + 1, 1))));
            let kinds =
                [(TaskKind::Forward, load, forward), (TaskKind::Backward, 2.0 * load, backward)];
            for (k, (kind, seconds, deps)) in kinds.into_iter().enumerate() {
                tasks.push(Task {
                    id: id(m, r, k),
                    rank: RankId::from(r),
                    kind,
                    module: "chain".into(),
                    segment: SegmentId(0),
                    microbatch: MicrobatchId::from(m),
                    sub_microbatch: SubMicrobatchId(0),
                    duration_s: Seconds(seconds),
                    activation_bytes: Bytes(1 - k as u64),
                    strategy: Strategy::keep(),
                    deps,
                    candidates: Vec::new(),
                });
            }
        }
    }
    TaskGraph {
        model: "chain".into(),
        cluster: "none".into(),
        ranks: ranks as u32,
        memory_limit_bytes: vec![Bytes(ranks as u64); ranks],
        static_bytes: vec![Bytes(0); ranks],
        tasks,
    }
}

/// A search with a budget in iterations.
fn environment(iterations: u64) -> Environment<'static> {
    Environment { budget: Budget::Iterations(iterations), ..Environment::default() }
}

fn schedules(c: &mut Criterion) {
    for (ranks, microbatches) in [(4, 32), (8, 128)] {
        let graph = chain(ranks, microbatches);
        let mut group = c.benchmark_group(format!("{ranks} ranks, {microbatches} microbatches"));
        group.throughput(Throughput::Elements(graph.tasks.len() as u64));
        group.sample_size(20);
        // From one sequence to 81: the difference is 80 runs of dual-queue interleaving.
        for (name, schedule, iterations) in [
            ("1f1b", &OneFOneB as &dyn Schedule, 1),
            ("interleaving, 1 sequence", &Reordered::DepthFirst, 1),
            ("interleaving, 81 sequences", &Reordered::DepthFirst, 81),
            ("dip, 100 iterations", &Dip, 100),
        ] {
            let environment = environment(iterations);
            group.bench_function(name, |b| {
                b.iter(|| black_box(schedule.plan(&graph, &environment).expect("the chain fits")));
            });
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    schedules(&mut criterion);
    criterion.final_summary();
}
