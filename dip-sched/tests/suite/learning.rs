//! Costs that learn, on synthetic timings: noise, outliers, drift, a slow rank.

use dip_core::{
    Environment, Plan, RankId, Schedule, Span, Task, TaskGraph, TaskKind, Timeline, Trace,
};
use dip_sched::{LearnedCosts, MeasuredPlan, OneFOneB};

use crate::generate::{Generator, Model, Module, StageSpec};

/// What a machine does to the time of a task in an iteration.
type Machine<'a> = &'a dyn Fn(&Task, u64, &mut Generator) -> f64;

/// A batch of eight uneven microbatches on three ranks.
fn graph(batch: u64) -> TaskGraph {
    let mut random = Generator(batch);
    let module = Module { name: "m", inputs: vec![], segments: 1, trainable: true };
    let loads = (0..8).map(|_| vec![vec![random.log_normal(0.3)]]).collect();
    let model = Model { ranks: 3, modules: vec![module], loads, comm: 0.0, vee: false };
    model.graph(|_, _, load| StageSpec {
        forward: 0.01 * load,
        backward: 0.02 * load,
        weight: None,
        bytes: 1,
        candidates: vec![],
    })
}

fn plan(graph: &TaskGraph) -> Plan {
    OneFOneB.plan(graph, &Environment::default()).unwrap()
}

/// A run of `plan` on a machine that multiplies the times of `base`.
fn run(base: &TaskGraph, plan: &Plan, iteration: u64, machine: Machine<'_>) -> Trace {
    let mut random = Generator(1000 + iteration);
    let mut measured = plan.graph.clone();
    for (task, base) in measured.tasks.iter_mut().zip(&base.tasks) {
        task.duration_s = base.duration_s * machine(base, iteration, &mut random);
    }
    let timeline = Timeline::evaluate(&measured, &plan.order).unwrap();
    let spans = measured.tasks.iter().map(|task| {
        let (start, end) = (timeline.start[task.id.index()], timeline.end[task.id.index()]);
        Span { task: task.id, rank: task.rank, start, end }
    });
    Trace { ranks: measured.ranks, spans: spans.collect() }
}

/// Trains `iterations` batches. Returns what was learned, the errors of the expected makespans, and all notices.
fn train(iterations: u64, machine: Machine<'_>) -> (LearnedCosts, Vec<f64>, Vec<String>) {
    let mut costs = LearnedCosts::new("test").on_placement("here");
    let (mut errors, mut notices) = (Vec::new(), Vec::new());
    for iteration in 0..iterations {
        let base = graph(iteration);
        let mut corrected = base.clone();
        costs.correct(&mut corrected);
        let plan = plan(&corrected);
        let expected = costs.expected(&base, &plan);
        let trace = run(&base, &plan, iteration, machine);
        errors.push(expected.0 / trace.makespan().0 - 1.0);
        notices.extend(costs.learn(MeasuredPlan { base: &base, plan: &plan, trace: &trace }));
    }
    (costs, errors, notices)
}

fn mean_error(errors: &[f64]) -> f64 {
    errors.iter().map(|e| e.abs()).sum::<f64>() / errors.len() as f64
}

/// Log-normal noise of ten per cent with mean 1.
fn noise(random: &mut Generator) -> f64 {
    random.log_normal(0.1) / 0.005f64.exp()
}

#[test]
fn factors_of_kind_and_rank_are_learned_through_noise() {
    let machine = |task: &Task, _: u64, random: &mut Generator| {
        let kind = if task.kind == TaskKind::Backward { 1.3 } else { 0.9 };
        let rank = if task.rank == RankId(1) { 1.2 } else { 1.0 };
        kind * rank * noise(random)
    };
    let (costs, errors, _) = train(100, &machine);
    let mean = mean_error(&errors[50..]);
    assert!(mean < 0.03, "mean error {mean}");
    assert!(errors[0].abs() > 0.1, "the first iteration knows nothing");
    assert!((costs.deviation() - 0.1).abs() < 0.03, "{}", costs.deviation());
    let base = graph(7);
    let mut corrected = base.clone();
    costs.correct(&mut corrected);
    for (task, base) in corrected.tasks.iter().zip(&base.tasks) {
        let right = base.duration_s.0
            * if task.kind == TaskKind::Backward { 1.3 } else { 0.9 }
            * if task.rank == RankId(1) { 1.2 } else { 1.0 };
        assert!((task.duration_s.0 / right - 1.0).abs() < 0.1, "{task:?}: {right}");
    }
}

#[test]
fn outliers_and_disturbed_iterations_spoil_nothing() {
    let machine = |_: &Task, iteration: u64, random: &mut Generator| {
        let outlier = if random.below(100) == 0 { 20.0 } else { 1.0 };
        let disturbed = if iteration % 17 == 16 { 3.0 } else { 1.0 };
        outlier * disturbed * noise(random)
    };
    let (costs, _, _) = train(120, &machine);
    let base = graph(3);
    let mut corrected = base.clone();
    costs.correct(&mut corrected);
    let sum = |graph: &TaskGraph| graph.tasks.iter().map(|t| t.duration_s.0).sum::<f64>();
    let factor = sum(&corrected) / sum(&base);
    assert!((0.97..1.1).contains(&factor), "{factor}");
}

#[test]
fn drift_is_followed_and_told_once() {
    let machine = |_: &Task, iteration: u64, random: &mut Generator| {
        if iteration < 60 { noise(random) } else { 1.5 * noise(random) }
    };
    let (_, errors, notices) = train(240, &machine);
    let mean = mean_error(&errors[100..]);
    assert!(mean < 0.03, "mean error {mean}");
    assert!(!notices.is_empty() && notices.len() <= 2, "{notices:?}");
    assert!(
        notices.last().is_some_and(|n| n.contains("% longer than in the profile")),
        "{notices:?}"
    );
}

#[test]
fn factors_of_all_tasks_do_not_drift_away_from_those_of_parts() {
    // Times with a long tail: fine factors are pulled up in every iteration, and what all share is pulled down, or the reverse.
    let machine = |task: &Task, iteration: u64, random: &mut Generator| {
        let busy = if iteration % 40 < 8 { 2.5 } else { 1.0 };
        let slow = if task.rank == RankId(1) && random.below(4) == 0 { 3.0 } else { 1.0 };
        busy * slow * random.log_normal(0.3)
    };
    let (costs, _, _) = train(1500, &machine);
    let base = graph(3);
    let sum = |costs: &LearnedCosts| {
        let mut graph = base.clone();
        costs.correct(&mut graph);
        graph.tasks.iter().map(|t| t.duration_s.0).sum::<f64>()
    };
    // Chunks that were never measured get the factors of all others.
    let factor = sum(&costs.of_any_placement()) / sum(&costs);
    assert!((0.85..1.15).contains(&factor), "{factor}");
}

#[test]
fn a_slow_rank_is_named() {
    let machine = |task: &Task, _: u64, random: &mut Generator| {
        noise(random) * if task.rank == RankId(2) { 1.4 } else { 1.0 }
    };
    let (_, _, notices) = train(80, &machine);
    assert!(notices.iter().any(|n| n.starts_with("the stages of rank 2 take")), "{notices:?}");
    assert!(!notices.iter().any(|n| n.starts_with("the stages of rank 0 take")), "{notices:?}");
}

#[test]
fn what_was_learned_survives_its_file() {
    let machine = |task: &Task, _: u64, random: &mut Generator| {
        noise(random) * if task.rank == RankId(2) { 1.4 } else { 1.0 }
    };
    let (costs, _, _) = train(20, &machine);
    let read = LearnedCosts::from_json(&costs.to_json(), "test").unwrap().unwrap();
    let corrected = |costs: &LearnedCosts| {
        let mut graph = graph(5);
        costs.correct(&mut graph);
        graph.tasks.iter().map(|task| task.duration_s.0).collect::<Vec<_>>()
    };
    for (read, written) in corrected(&read).into_iter().zip(corrected(&costs)) {
        assert!((read / written - 1.0).abs() < 1e-12);
    }
    assert_eq!(read.iterations(), 20);
    assert_eq!(LearnedCosts::from_json(&costs.to_json(), "other").unwrap(), None);
    assert!(LearnedCosts::from_json("{}", "test").is_err());
    // On another placement chunks are not known.
    let moved = costs.clone().on_placement("there");
    assert!(moved.to_json().len() < costs.to_json().len() / 2);
    assert_eq!(costs.clone().on_placement("here"), costs);
}

#[test]
fn traces_that_do_not_cover_their_plan_teach_nothing() {
    let base = graph(0);
    let plan = plan(&base);
    let trace = Trace { ranks: 3, spans: Vec::new() };
    let mut costs = LearnedCosts::new("test");
    costs.learn(MeasuredPlan { base: &base, plan: &plan, trace: &trace });
    assert_eq!(costs, LearnedCosts::new("test"));
    assert_eq!(costs.expected(&base, &plan), plan.predicted.makespan_s);
}
