//! Proven lower bounds on the makespan of a task graph.
//!
//! Every task counts with its shortest duration over the candidates of its pair, so a bound holds for every choice. The result is
//! the largest of these bounds:
//!
//! 1. the critical path;
//! 2. for each rank, the preemptive one-machine bound (`jackson`), with heads and tails sharpened by the tasks that must run before
//!    and after (`sharpen`);
//! 3. for each rank with limited memory, the time or memory that its pairs must spend (`memory`);
//! 4. for each rank, how long its memory makes it wait while the pipeline fills and drains (`ramp`);
//! 5. the chain of one microbatch, and how long it must wait for the others (`passing`).

mod jackson;
mod memory;
mod passing;
mod ramp;
mod sharpen;

pub(crate) use jackson::{Jackson, MachineJob};

use dip_core::{ScheduleError, Seconds, TaskGraph};

use crate::problem::{Problem, StrategyCost};

/// Returns a lower bound on the makespan of every valid plan of the graph.
///
/// # Errors
/// [`ScheduleError`] if the dependencies form a cycle, static bytes exceed a limit, or the graph is malformed.
pub fn lower_bound(graph: &TaskGraph) -> Result<Seconds, ScheduleError> {
    Ok(Seconds(lower_bound_of(&Problem::new(graph, "bound")?)))
}

/// The bound of a flat problem.
pub(crate) fn lower_bound_of(problem: &Problem) -> f64 {
    let times = times(problem);
    let TaskTimes { dur, head, tail } = &times;
    let path = (0..problem.n).map(|i| head[i] + dur[i] + tail[i]).fold(0.0, f64::max);
    let mut jackson = Jackson::default();
    let job = |t: usize| MachineJob { head: head[t], dur: dur[t], tail: tail[t] };
    let ranks = problem.by_rank.iter();
    let busy = ranks.map(|tasks| jackson.bound(tasks.iter().map(|&t| job(t as usize))));
    let busy = busy.fold(path, f64::max);
    let held = (0..problem.ranks).map(|r| memory::bound(problem, r, &times));
    let known = held.fold(busy.max(passing::bound(problem, &times)), f64::max);
    let bound = (0..problem.ranks).map(|r| ramp::bound(problem, r, &times, known));
    // Slightly lower, so that rounding never lifts the bound above a makespan.
    bound.fold(known, f64::max) * (1.0 - 1e-12)
}

/// The shortest duration, the head and the tail of every task.
pub(crate) struct TaskTimes {
    pub(crate) dur: Vec<f64>,
    pub(crate) head: Vec<f64>,
    pub(crate) tail: Vec<f64>,
}

/// Durations, heads and tails that hold for every plan.
pub(crate) fn times(problem: &Problem) -> TaskTimes {
    let dur = shortest(problem);
    let mut times = TaskTimes { head: problem.heads(&dur), tail: problem.tails(&dur), dur };
    sharpen::sharpen(problem, &mut times);
    times
}

/// The shortest duration of every task over the candidates of its pair.
fn shortest(problem: &Problem) -> Vec<f64> {
    let mut dur = problem.costs(&problem.fastest()).dur;
    for (pair, strategies) in problem.pairs.iter().zip(&problem.strategies) {
        let least =
            |of: fn(&StrategyCost) -> f64| strategies.iter().map(of).fold(f64::INFINITY, f64::min);
        dur[pair.forward.index()] = least(|s| s.forward_s);
        if let Some(b) = pair.backward {
            dur[b.index()] = least(|s| s.backward_s);
        }
    }
    dur
}
