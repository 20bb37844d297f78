//! Every schedule on random graphs: plans are valid, bounded and reproducible.

use dip_core::{
    Budget, Bytes, Environment, Plan, ScheduleError, TaskGraph, check_graph, check_plan,
};
use dip_sched::{follow_order, lower_bound, schedule_by_name, schedule_names};

use crate::generate::{Generator, GraphShape, MemoryLimit, Model, Module, StageSpec, limit, small};

const SHAPE: GraphShape =
    GraphShape { ranks: 4, microbatches: 6, modules: 3, segments: 2, slices: 2, candidates: false };

/// The schedules that need a wave of two stages on every rank.
const WAVES: [&str; 4] = ["zbv", "v_half", "v_min", "dualpipe_v"];

/// The schedules that plan any graph.
fn general() -> impl Iterator<Item = &'static str> {
    schedule_names().filter(|name| !WAVES.contains(name))
}

fn env(threads: usize) -> Environment<'static> {
    Environment { threads, budget: Budget::Iterations(40), seed: 3, ..Environment::default() }
}

/// Graphs with and without candidates, without limits, with loose and with tight ones.
fn graph(seed: u64) -> TaskGraph {
    let mut graph = small(seed, GraphShape { candidates: seed.is_multiple_of(3), ..SHAPE });
    let memory = match seed % 4 {
        0 => MemoryLimit::Unlimited,
        1 => MemoryLimit::Microbatches(2.5),
        2 => MemoryLimit::Microbatches(1.5),
        _ => MemoryLimit::Microbatches(1.0),
    };
    limit(&mut graph, memory);
    graph
}

fn check(name: &str, seed: u64, graph: &TaskGraph, plan: &Plan) {
    let report = check_plan(plan);
    assert!(report.is_empty(), "{name}, seed {seed}: {report:?}");
    let bound = lower_bound(graph).unwrap();
    assert!(
        bound <= plan.predicted.makespan_s,
        "{name}, seed {seed}: the bound is above the makespan"
    );
    assert_eq!(plan.graph.tasks.len(), graph.tasks.len());
}

fn every_schedule(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let graph = graph(seed);
        let report = check_graph(&graph);
        assert!(report.is_empty(), "seed {seed}: {report:?}");
        for name in schedule_names() {
            match schedule_by_name(name).unwrap().plan(&graph, &env(1)) {
                Ok(plan) => check(name, seed, &graph, &plan),
                Err(ScheduleError::NotApplicable { .. }) if WAVES.contains(&name) => {}
                Err(error) => panic!("{name}, seed {seed}: {error}"),
            }
        }
    }
}

#[test]
fn every_schedule_makes_valid_plans() {
    every_schedule(0..60);
}

/// The long run: `cargo test --release -p dip-sched -- --ignored`.
#[test]
#[ignore = "minutes"]
fn every_schedule_makes_valid_plans_of_hundreds_of_graphs() {
    every_schedule(1000..1500);
}

#[test]
fn plans_do_not_depend_on_the_number_of_threads() {
    for seed in 0..16 {
        let graph = graph(seed);
        for name in general() {
            let schedule = schedule_by_name(name).unwrap();
            let one = schedule.plan(&graph, &env(1)).unwrap();
            let two = schedule.plan(&graph, &env(2)).unwrap();
            assert_eq!(one.to_json(), two.to_json(), "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_graph_that_cannot_fit_names_the_rank_and_its_bytes() {
    for seed in 0..20 {
        let mut graph = graph(seed);
        let rank = seed as usize % graph.ranks as usize;
        let on_rank = graph.tasks.iter().filter(|t| t.rank.index() == rank);
        let smallest = |t: &dip_core::Task| {
            let bytes = t.candidates.iter().map(|c| c.activation_bytes.0).min();
            bytes.unwrap_or(t.activation_bytes.0)
        };
        let largest = on_rank.map(smallest).max().unwrap();
        graph.memory_limit_bytes[rank] = Bytes(graph.static_bytes[rank].0 + largest - 1);
        for name in general() {
            match schedule_by_name(name).unwrap().plan(&graph, &env(1)) {
                Err(ScheduleError::Infeasible { rank: r, needed, limit }) => {
                    assert_eq!(r.index(), rank, "{name}, seed {seed}");
                    assert_eq!(limit, graph.memory_limit_bytes[rank]);
                    assert!(needed > limit, "{name}, seed {seed}: {needed} <= {limit}");
                }
                Ok(_) => panic!("{name}, seed {seed}: made a plan"),
                Err(error) => panic!("{name}, seed {seed}: {error}"),
            }
        }
    }
}

#[test]
fn microbatches_may_have_any_numbers() {
    let mut graph = graph(5);
    for task in &mut graph.tasks {
        task.microbatch.0 = u32::MAX - 1000 * task.microbatch.0;
    }
    for name in general() {
        let plan = schedule_by_name(name).unwrap().plan(&graph, &env(1)).unwrap();
        check(name, 5, &graph, &plan);
    }
}

/// Waves of uneven chunks and microbatches, down to the memory of a single microbatch, with and without split weights.
#[test]
fn wave_schedules_make_valid_plans_of_every_wave() {
    for seed in 0..24 {
        let mut random = Generator(seed);
        let (ranks, microbatches) = (1 + seed as usize % 5, 2 + random.below(10));
        let module = || Module { name: "m", inputs: vec![], segments: 2, trainable: true };
        let loads = (0..microbatches).map(|_| vec![vec![random.log_normal(0.5)]]).collect();
        let model = Model { ranks, modules: vec![module()], loads, comm: 1.0, vee: true };
        let chunk: Vec<f64> = (0..2 * ranks).map(|_| 4.0 + random.below(12) as f64).collect();
        let split = random.chance(70);
        let mut graph = model.graph(|_, c, load| StageSpec {
            forward: chunk[c] * load,
            backward: 1.3 * chunk[c] * load,
            weight: split.then_some(0.8 * chunk[c] * load),
            bytes: 1 + (10.0 * load) as u64,
            candidates: vec![],
        });
        let share = [f64::INFINITY, 3.0, 1.5, 1.0][seed as usize % 4];
        if share.is_finite() {
            limit(&mut graph, MemoryLimit::Microbatches(share));
        }
        for name in WAVES {
            match schedule_by_name(name).unwrap().plan(&graph, &env(1)) {
                Ok(plan) => check(name, seed, &graph, &plan),
                Err(error) => {
                    assert!(name == "dualpipe_v" && microbatches < 2 * ranks, "{name}: {error}");
                }
            }
        }
    }
}

#[test]
fn an_order_of_the_users_own_is_followed_within_memory() {
    for seed in 0..24 {
        let graph = graph(seed);
        // Backwards first and late microbatches first: it deadlocks, and takes no regard of memory.
        let mut order = vec![Vec::new(); graph.ranks as usize];
        graph.tasks.iter().rev().for_each(|task| order[task.rank.index()].push(task.id));
        let plan = follow_order("mine", &graph, &order, &env(1)).unwrap();
        check("mine", seed, &graph, &plan);
        assert_eq!(plan.schedule, "mine");
        // A plan that is valid as it is, with strategies of its own, comes out no longer.
        let best = schedule_by_name("1f1b").unwrap().plan(&graph, &env(1)).unwrap();
        let again = follow_order("mine", &graph, &best.order, &env(1)).unwrap();
        assert!(again.predicted.makespan_s <= best.predicted.makespan_s, "seed {seed}");
        let lost = order.iter_mut().find_map(Vec::pop);
        let error = follow_order("mine", &graph, &order, &env(1)).unwrap_err();
        assert!(matches!(error, ScheduleError::InvalidOrder { .. }), "{lost:?}: {error}");
    }
}
