//! A comparison with the order of DynaPipe: the wait-free cyclic schedule and its search over permutations of microbatches
//! (Jiang and others, EuroSys 2024, sections 4 and 5).
//!
//! In every cycle a rank runs at most one forward and one backward. Their inputs come from earlier cycles, so no rank waits for a task
//! of the same cycle. One microbatch enters in each cycle. Microbatches are clustered by time, and the clusters enter in the best of
//! all permutations.

use dip_core::{
    Budget, Environment, Plan, RankId, Seconds, TaskGraph, TaskId, TaskKind, check_plan,
};
use dip_sched::{lower_bound, schedule_by_name};

use crate::generate::Generator;
use crate::support::Chain;

/// Clusters of microbatches. DynaPipe uses three or four.
const CLUSTERS: usize = 4;

/// A vision encoder with log-normal loads on the first half of the ranks, a language model with equal loads on the others.
fn separated(ranks: u32, microbatches: u32, seed: u64) -> TaskGraph {
    let mut random = Generator(seed);
    let chain = Chain { comm: 0.2, ..Chain::uniform(ranks, microbatches, 1) };
    let mut graph = chain.graph();
    let loads: Vec<f64> = (0..microbatches).map(|_| random.log_normal(0.9)).collect();
    for task in &mut graph.tasks {
        let vision = task.rank.index() < ranks as usize / 2;
        let load = if vision { loads[task.microbatch.index()] } else { 1.0 };
        task.duration_s = task.duration_s * (0.01 * load);
    }
    graph
}

/// The cyclic order of microbatches that enter in the order of `entry`. `stock` cycles separate a task from the task it feeds.
fn cyclic(
    graph: &TaskGraph,
    entry: &[usize],
    stock: usize,
    forward_first: bool,
) -> Vec<Vec<TaskId>> {
    let ranks = graph.ranks as usize;
    let id = |m: usize, r: usize, kind: usize| TaskId::from((m * ranks + r) * 2 + kind);
    (0..ranks)
        .map(|r| {
            // The cycle of every task. On the last rank a backward runs in the cycle after its forward.
            let mut cycles: Vec<(usize, bool, TaskId)> = Vec::new();
            for (i, &m) in entry.iter().enumerate() {
                let forward = i + stock * r;
                let backward = i + stock * (ranks - 1) + 1 + stock * (ranks - 1 - r);
                cycles.push((forward, !forward_first, id(m, r, 0)));
                cycles.push((backward, forward_first, id(m, r, 1)));
            }
            cycles.sort_by_key(|&(cycle, second, task)| (cycle, second, task.0));
            cycles.into_iter().map(|(_, _, task)| task).collect()
        })
        .collect()
}

/// All orders of `items`.
fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.len() < 2 {
        return vec![items.to_vec()];
    }
    let with_first = |i: usize| {
        let mut rest = items.to_vec();
        let first = rest.remove(i);
        permutations(&rest).into_iter().map(move |p| [vec![first], p].concat())
    };
    (0..items.len()).flat_map(with_first).collect()
}

/// The best plan over all permutations of clusters, both orders within a cycle and two values of `stock`.
fn dynapipe(graph: &TaskGraph) -> Plan {
    let microbatches = graph.tasks.iter().map(|t| t.microbatch.index() + 1).max().unwrap();
    let load = |m: usize| -> f64 {
        let own = graph.tasks.iter().filter(|t| t.microbatch.index() == m);
        own.map(|t| t.duration_s.0).sum()
    };
    let mut by_load: Vec<usize> = (0..microbatches).collect();
    by_load.sort_by(|&a, &b| load(a).total_cmp(&load(b)));
    let clusters: Vec<&[usize]> = by_load.chunks(microbatches.div_ceil(CLUSTERS)).collect();
    let numbers: Vec<usize> = (0..clusters.len()).collect();
    let mut best: Option<Plan> = None;
    for permutation in permutations(&numbers) {
        let entry: Vec<usize> = permutation.iter().flat_map(|&c| clusters[c].to_vec()).collect();
        for (stock, forward_first) in [(1, true), (1, false), (2, true), (2, false)] {
            let order = cyclic(graph, &entry, stock, forward_first);
            let plan = Plan::new(graph.clone(), "cyclic", order, Seconds::ZERO).unwrap();
            if best.as_ref().is_none_or(|b| plan.predicted.makespan_s < b.predicted.makespan_s) {
                best = Some(plan);
            }
        }
    }
    best.unwrap()
}

#[test]
fn plans_of_separated_stages_are_shorter_than_cyclic_ones() {
    for (ranks, microbatches) in [(4, 8), (4, 16), (4, 32), (4, 64), (8, 16), (8, 32), (8, 64)] {
        for seed in 0..3 {
            let graph = separated(ranks, microbatches, seed);
            let theirs = dynapipe(&graph);
            assert!(check_plan(&theirs).is_empty());
            let env = Environment { budget: Budget::Iterations(100), ..Environment::default() };
            let ours = schedule_by_name("dip").unwrap().plan(&graph, &env).unwrap();
            let (ours, theirs) = (ours.predicted.makespan_s, theirs.predicted.makespan_s);
            let bound = lower_bound(&graph).unwrap();
            println!("{ranks} x {microbatches}, {seed}: {ours} against {theirs}, bound {bound}");
            // A cyclic plan that meets the bound cannot be beaten.
            assert!(ours < theirs || theirs <= bound * 1.000_001, "{ours} {theirs}");
        }
    }
}

#[test]
fn cyclic_orders_of_equal_microbatches_alternate_like_1f1b() {
    let graph = Chain::uniform(4, 8, 1).graph();
    let order = cyclic(&graph, &[0, 1, 2, 3, 4, 5, 6, 7], 1, false);
    let last: Vec<_> = order[3].iter().map(|&t| graph.task(t)).collect();
    assert!(last.iter().all(|t| t.rank == RankId(3)));
    assert!(last.windows(2).step_by(2).all(|w| w[0].kind != w[1].kind));
    assert_eq!(last[0].kind, TaskKind::Forward);
}
