//! The asynchronous planner: order, cancellation, fallback, errors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dip_core::{
    Budget, Environment, Plan, PlanError, Schedule, ScheduleError, Seconds, TaskGraph, check_plan,
};
use dip_sched::{Dip, OneFOneB, Planner, PlannerConfig};

use crate::generate::{GraphShape, small};

fn graph(seed: u64) -> TaskGraph {
    let shape = GraphShape {
        ranks: 3,
        microbatches: 4,
        modules: 2,
        segments: 1,
        slices: 2,
        candidates: false,
    };
    small(seed, shape)
}

/// A schedule that calls `wait` and then plans 1F1B.
struct WaitingSchedule {
    wait: fn(&Environment<'_>),
}

impl Schedule for WaitingSchedule {
    fn name(&self) -> &str {
        "waiting"
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        (self.wait)(env);
        let mut plan = OneFOneB.plan(graph, env)?;
        plan.schedule = "waiting".into();
        Ok(plan)
    }
}

fn planner(budget: Budget, wait: fn(&Environment<'_>)) -> Planner {
    let schedule = Arc::new(WaitingSchedule { wait });
    PlannerConfig { schedule, budget, ..PlannerConfig::default() }.start()
}

fn submit(planner: &mut Planner, batch: u64, graph: TaskGraph) {
    planner.submit(batch, move || Ok(graph)).unwrap();
}

#[test]
fn plans_are_taken_in_the_order_of_their_jobs() {
    let budget = Budget::Iterations(20);
    let mut planner = PlannerConfig { budget, seed: 9, ..PlannerConfig::default() }.start();
    for seed in 0..4 {
        submit(&mut planner, seed, graph(seed));
    }
    for seed in 0..4 {
        let planned = planner.take().unwrap();
        assert!(check_plan(&planned.plan).is_empty());
        assert!(!planned.fallback);
        // An iteration budget gives what the schedule gives by itself, on any number of threads.
        let env = Environment { budget, seed: 9 + seed, ..Environment::default() };
        let alone = Dip.plan(&graph(seed), &env).unwrap();
        assert_eq!(planned.plan.to_json(), alone.to_json());
    }
    assert_eq!(planner.stats().taken, 4);
    assert_eq!(planner.stats().fallbacks, 0);
    assert_eq!(planner.pending(), 0);
}

#[test]
fn a_search_with_a_budget_in_time_ends_when_its_plan_is_taken() {
    let until_cancelled = |env: &Environment<'_>| {
        while !env.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut planner = planner(Budget::Time(Seconds(3600.0)), until_cancelled);
    submit(&mut planner, 0, graph(1));
    let planned = planner.take().unwrap();
    assert_eq!(planned.plan.schedule, "waiting");
    assert!(!planned.fallback);
}

#[test]
fn the_fallback_schedule_stands_in_for_a_search_that_does_not_end() {
    let stubborn = |_: &Environment<'_>| std::thread::sleep(Duration::from_millis(600));
    let mut planner = planner(Budget::Time(Seconds(3600.0)), stubborn);
    submit(&mut planner, 0, graph(1));
    let start = Instant::now();
    let planned = planner.take().unwrap();
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert!(planned.fallback);
    assert_eq!(planned.plan.schedule, "1f1b");
    assert!(check_plan(&planned.plan).is_empty());
    assert_eq!(planner.stats().fallbacks, 1);
}

#[test]
fn a_measured_iteration_limits_the_next_search() {
    let report = |env: &Environment<'_>| {
        let Budget::Time(limit) = env.budget else { panic!("a budget in time") };
        assert!(limit.0 <= 0.25, "{limit}");
    };
    let mut planner = planner(Budget::Time(Seconds(3600.0)), report);
    planner.measured(Seconds(0.25));
    submit(&mut planner, 0, graph(1));
    assert!(!planner.take().unwrap().fallback);
}

#[test]
fn take_returns_the_error_of_its_job() {
    let mut planner = PlannerConfig::default().start();
    assert!(matches!(planner.take(), Err(PlanError::Empty)));
    let mut broken = graph(1);
    broken.static_bytes[0] = dip_core::Bytes(10);
    broken.memory_limit_bytes[0] = dip_core::Bytes(5);
    submit(&mut planner, 0, broken);
    submit(&mut planner, 1, graph(2));
    let error = planner.take().unwrap_err();
    assert!(error.to_string().contains("rank 0"), "{error}");
    assert!(planner.take().is_ok(), "the next job is not affected");
}

#[test]
fn a_search_that_panics_gives_an_error() {
    let mut planner = planner(Budget::Iterations(1), |_| panic!("on purpose"));
    submit(&mut planner, 0, graph(1));
    assert!(matches!(planner.take(), Err(PlanError::Gone(_))));
}

#[test]
fn dropping_a_planner_cancels_what_runs() {
    let until_cancelled = |env: &Environment<'_>| {
        let start = Instant::now();
        while !env.cancelled() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut planner = planner(Budget::Time(Seconds(3600.0)), until_cancelled);
    for seed in 0..3 {
        submit(&mut planner, seed, graph(seed));
    }
    let start = Instant::now();
    drop(planner);
    assert!(start.elapsed() < Duration::from_secs(10));
}
