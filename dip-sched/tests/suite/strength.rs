//! The quality of plans: against proven optima of small graphs, and against the best schedules made by hand.

use dip_core::{Budget, Bytes, Environment, Plan, TaskGraph, check_plan};
use dip_sched::{lower_bound, schedule_by_name};

use crate::generate::{
    Generator, GraphShape, MemoryLimit, Model, Module, StageSpec, limit, small, two_chunks,
};
use crate::support::Chain;

fn plan(name: &str, graph: &TaskGraph, iterations: u64) -> Plan {
    let budget = Budget::Iterations(iterations);
    let env = Environment { budget, threads: 2, ..Environment::default() };
    let plan = schedule_by_name(name).unwrap().plan(graph, &env).unwrap();
    let report = check_plan(&plan);
    assert!(report.is_empty(), "{name}: {report:?}");
    plan
}

/// Tiny graphs with every kind of memory limit.
fn tiny(seed: u64) -> TaskGraph {
    let candidates = seed.is_multiple_of(3);
    let shape =
        GraphShape { ranks: 3, microbatches: 3, modules: 2, segments: 1, slices: 2, candidates };
    let mut graph = small(seed, shape);
    let share = [f64::INFINITY, 2.0, 1.5, 1.0][seed as usize % 4];
    if share.is_finite() {
        limit(&mut graph, MemoryLimit::Microbatches(share));
    }
    graph
}

#[test]
fn the_search_is_close_to_proven_optima() {
    let (mut sum, mut proven) = (0.0, 0);
    for seed in 100..140 {
        let graph = tiny(seed);
        let exact = plan("exact", &graph, 300);
        let bound = lower_bound(&graph).unwrap();
        assert!(bound <= exact.predicted.makespan_s, "seed {seed}: the bound is above an optimum");
        if exact.gap() > 1e-6 {
            continue;
        }
        let found = plan("dip", &graph, 300).predicted.makespan_s / exact.predicted.makespan_s;
        assert!(found >= 1.0 - 1e-6, "seed {seed}: below a proven optimum");
        assert!(found <= 1.03, "seed {seed}: {found}");
        sum += found - 1.0;
        proven += 1;
    }
    assert!(proven >= 25, "only {proven} of 40 are proven");
    assert!(sum / f64::from(proven) <= 0.01, "{}", sum / f64::from(proven));
}

#[test]
fn every_number_of_iterations_ends() {
    // Stages are uneven: no plan meets its bound, and only the budget ends the search.
    let chain = |microbatches| {
        let chain = Chain::uniform(4, microbatches, 1).split();
        Chain { forward: vec![16.0, 10.0, 10.0, 8.0], comm: 1.0, limit: 4, ..chain }.graph()
    };
    let shape = GraphShape {
        ranks: 4,
        microbatches: 5,
        modules: 2,
        segments: 2,
        slices: 1,
        candidates: true,
    };
    let mut with_strategies = small(7, shape);
    limit(&mut with_strategies, MemoryLimit::Microbatches(1.5));
    for graph in [chain(8), with_strategies] {
        for iterations in (1..=200).step_by(3) {
            plan("dip", &graph, iterations);
        }
    }
    let large = chain(60);
    for iterations in 35..=60 {
        plan("dip", &large, iterations);
    }
}

/// Every order of every rank, for graphs of a handful of tasks.
fn exhaustive(graph: &TaskGraph) -> f64 {
    fn extend(
        graph: &TaskGraph,
        end: &mut Vec<Option<f64>>,
        free: &mut [f64],
        live: &mut [u64],
        best: &mut f64,
    ) {
        if end.iter().all(Option::is_some) {
            *best = best.min(end.iter().flatten().copied().fold(0.0, f64::max));
            return;
        }
        for (t, task) in graph.tasks.iter().enumerate() {
            let arrival = |d: &dip_core::Dep| end[d.task.index()].map(|e| e + d.comm_s.0);
            let ready = task.deps.iter().map(arrival).try_fold(0.0f64, |at, e| Some(at.max(e?)));
            let (rank, Some(ready)) = (task.rank.index(), ready) else { continue };
            let took = task.activation_bytes.0;
            let fits = live[rank].saturating_add(took) <= graph.memory_limit_bytes[rank].0;
            if end[t].is_some() || !fits {
                continue;
            }
            let pairs = graph.pairs();
            let released = pairs.iter().find(|p| p.release().index() == t);
            let gave = released.map_or(0, |p| graph.task(p.forward).activation_bytes.0);
            let (before, held) = (free[rank], live[rank]);
            let finish = ready.max(before) + task.duration_s.0;
            end[t] = Some(finish);
            (free[rank], live[rank]) = (finish, held + took - gave);
            extend(graph, end, free, live, best);
            end[t] = None;
            (free[rank], live[rank]) = (before, held);
        }
    }
    let mut best = f64::INFINITY;
    let mut live: Vec<u64> = graph.static_bytes.iter().map(|b| b.0).collect();
    let mut free = vec![0.0; graph.ranks as usize];
    extend(graph, &mut vec![None; graph.tasks.len()], &mut free, &mut live, &mut best);
    best
}

#[test]
fn the_exact_schedule_agrees_with_exhaustive_search() {
    let shape = GraphShape {
        ranks: 2,
        microbatches: 2,
        modules: 1,
        segments: 1,
        slices: 1,
        candidates: false,
    };
    let mut tried = 0;
    for seed in 0..60 {
        let mut graph = small(seed, shape);
        limit(
            &mut graph,
            [MemoryLimit::Unlimited, MemoryLimit::Microbatches(1.3)][seed as usize % 2],
        );
        if graph.tasks.len() > 12 {
            continue;
        }
        let exact = plan("exact", &graph, 1000);
        let best = exhaustive(&graph);
        assert!((exact.predicted.makespan_s.0 - best).abs() < 1e-6, "seed {seed}: {best}");
        assert!(lower_bound(&graph).unwrap().0 <= best);
        tried += 1;
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn uniform_batches_are_as_good_as_zero_bubble_v_and_interleaving() {
    for (ranks, microbatches, zero_bubble, interleaved) in
        [(4, 8, 25500.0, 28500.0), (8, 16, 51500.0, 58500.0), (8, 64, 195_500.0, 202_500.0)]
    {
        for vee in [false, true] {
            let split = plan("dip", &two_chunks(ranks, microbatches, vee, true), 200);
            assert!(split.predicted.makespan_s.0 <= zero_bubble, "{ranks}, {microbatches}, {vee}");
            let whole = plan("dip", &two_chunks(ranks, microbatches, vee, false), 200);
            assert!(whole.predicted.makespan_s.0 <= interleaved, "{ranks}, {microbatches}, {vee}");
        }
    }
}

/// The graph with memory for this many pairs on every rank.
fn within(graph: TaskGraph, pairs: usize) -> TaskGraph {
    let limit = |fixed: &Bytes| Bytes(fixed.0 + pairs as u64);
    TaskGraph { memory_limit_bytes: graph.static_bytes.iter().map(limit).collect(), ..graph }
}

#[test]
fn waves_within_tight_memory_are_no_longer_than_schedules_made_by_hand() {
    for (ranks, microbatches) in [(4usize, 8), (6, 12)] {
        // The memory of ZB-V, of V-Half, and of V-Min rounded up to whole microbatches.
        for pairs in [2 * ranks, ranks + 2, 2 * (ranks + 4).div_ceil(3)] {
            let graph = within(two_chunks(ranks, microbatches, true, true), pairs);
            let ours = plan("dip", &graph, 100).predicted.makespan_s;
            for name in ["zbv", "v_half", "v_min", "dualpipe_v"] {
                let theirs = plan(name, &graph, 100).predicted.makespan_s;
                assert!(ours <= theirs, "{ranks}, {microbatches}, {pairs}: {name} is shorter");
            }
        }
    }
}

#[test]
fn the_bound_knows_that_memory_makes_a_rank_wait() {
    // The memory of V-Half, whose plan takes 27,500 s. A rank has 24,000 s of work.
    let graph = within(two_chunks(4, 8, true, true), 6);
    let bound = lower_bound(&graph).unwrap().0;
    assert!((bound - 26_500.0).abs() < 1e-3, "{bound}");
    assert_eq!(plan("dip", &graph, 100).predicted.makespan_s.0, 26_500.0);
}

#[test]
fn loops_within_tight_memory_are_periodic() {
    // Without patterns, the search finds 60,500 and 72,500 s.
    for (pairs, seconds) in [(10, 58_000.0), (8, 64_000.0)] {
        let graph = within(two_chunks(8, 16, false, true), pairs);
        let ours = plan("dip", &graph, 100).predicted.makespan_s;
        assert!(ours.0 <= seconds, "{pairs}: {ours}");
    }
}

#[test]
fn an_uneven_chain_is_planned_optimally() {
    let chain = Chain {
        ranks: 4,
        microbatches: 4,
        forward: vec![16.0, 10.0, 10.0, 8.0],
        backward: vec![16.0, 10.0, 10.0, 9.0],
        weight: vec![16.0, 10.0, 10.0, 9.0],
        comm: 1.0,
        bytes: 1,
        limit: 4,
    };
    assert_eq!(plan("dip", &chain.graph(), 200).predicted.makespan_s.0, 207.0);
}

/// A chain of one chunk a rank, whose microbatches have these loads.
fn uneven_chain(ranks: usize, loads: &[f64], mut seconds: impl FnMut(usize) -> f64) -> TaskGraph {
    let chunk: Vec<f64> = (0..ranks).map(&mut seconds).collect();
    let module = Module { name: "m", inputs: vec![], segments: 1, trainable: true };
    let loads = loads.iter().map(|&load| vec![vec![load]]).collect();
    let model = Model { ranks, modules: vec![module], loads, comm: 0.0, vee: false };
    model.graph(|_, c, load| StageSpec {
        forward: chunk[c] * load,
        backward: chunk[c] * load,
        weight: None,
        bytes: 1,
        candidates: vec![],
    })
}

#[test]
fn the_bound_knows_that_a_microbatch_waits_for_the_others() {
    // The heavy one takes 40 s by itself. Each light one runs before it, after it, or makes it wait in between.
    let graph = uneven_chain(2, &[10.0, 1.0, 1.0], |_| 1.0);
    let bound = lower_bound(&graph).unwrap().0;
    assert!((bound - 42.0).abs() < 1e-6, "{bound}");
    assert_eq!(plan("exact", &graph, 1000).predicted.makespan_s.0, 42.0);
}

#[test]
fn bounds_of_uneven_chains_are_below_proven_optima() {
    let mut proven = 0;
    for seed in 0..40 {
        let mut random = Generator(seed);
        let ranks = 2 + random.below(3);
        let loads: Vec<f64> = (0..2 + random.below(3)).map(|_| random.log_normal(0.8)).collect();
        let graph = uneven_chain(ranks, &loads, |_| 4.0 + random.below(12) as f64);
        let exact = plan("exact", &graph, 300);
        let bound = lower_bound(&graph).unwrap();
        assert!(bound <= exact.predicted.makespan_s, "seed {seed}: the bound is above a plan");
        proven += usize::from(exact.gap() < 1e-6);
    }
    assert!(proven >= 25, "only {proven} of 40 are proven");
}
