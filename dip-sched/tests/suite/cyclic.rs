//! A comparison with the order of DynaPipe.

use dip_core::{Budget, Environment, Schedule, TaskGraph, TaskKind, check_plan};
use dip_sched::{DynaPipe, lower_bound, schedule_by_name};

use crate::generate::Generator;
use crate::support::Chain;

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

#[test]
fn plans_of_separated_stages_are_shorter_than_cyclic_ones() {
    for (ranks, microbatches) in [(4, 8), (4, 16), (4, 32), (4, 64), (8, 16), (8, 32), (8, 64)] {
        for seed in 0..3 {
            let graph = separated(ranks, microbatches, seed);
            let theirs = DynaPipe.plan(&graph, &Environment::default()).unwrap();
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
    let plan = DynaPipe.plan(&graph, &Environment::default()).unwrap();
    let last: Vec<_> = plan.order[3].iter().map(|&t| graph.task(t)).collect();
    assert!(last.windows(2).step_by(2).all(|w| w[0].kind != w[1].kind));
    assert_eq!(last[0].kind, TaskKind::Forward);
    let of_1f1b = schedule_by_name("1f1b").unwrap().plan(&graph, &Environment::default()).unwrap();
    assert_eq!(plan.predicted.makespan_s, of_1f1b.predicted.makespan_s);
}
