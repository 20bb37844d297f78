//! The inner loops of the search: `cargo bench -p dip-sched`.
//!
//! Placement is counted in stages a second, on one core; strategies are chosen for 64 pairs of 10 options each.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use dip_core::{
    Bytes, Dep, MicrobatchId, RankId, Seconds, SegmentId, Strategy, SubMicrobatchId, Task,
    TaskGraph, TaskId, TaskKind,
};
use dip_sched::probe::{self, Pair};

/// Forwards and backwards of `microbatches` through a stage a rank, durations uneven, `ranks` microbatches of memory.
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

/// Pairs that overlap a few others, with options from small and slow to large and fast.
fn pairs(count: usize, options: usize) -> Vec<Pair> {
    let pair = |i: usize| {
        let option = |o: usize| (60.0 - (o * (1 + i % 5)) as f64, (2 + o * (3 + i % 4)) as u64);
        ((i, (i + i % 7).min(count - 1)), (0..options).map(option).collect())
    };
    (0..count).map(pair).collect()
}

fn loops(c: &mut Criterion) {
    for (ranks, microbatches) in [(4, 32), (8, 128)] {
        let graph = chain(ranks, microbatches);
        let mut group = c.benchmark_group(format!("{ranks} ranks, {microbatches} microbatches"));
        group.throughput(Throughput::Elements(graph.tasks.len() as u64));
        probe::with_loops(&graph, |loops| {
            group.bench_function("placement", |b| b.iter(|| black_box((loops.place)())));
            group.bench_function("evaluation", |b| b.iter(|| black_box((loops.evaluate)())));
        })
        .expect("the chain fits in memory");
    }
}

fn strategies(c: &mut Criterion) {
    let pairs = pairs(64, 10);
    c.bench_function("strategies of 64 pairs", |b| {
        b.iter(|| black_box(probe::strategies(&pairs, 64, 90)))
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    loops(&mut criterion);
    strategies(&mut criterion);
    criterion.final_summary();
}
