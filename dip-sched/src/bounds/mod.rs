//! Proven lower bounds on the makespan of a task graph.
//!
//! Every pair is taken at the fastest duration of each of its tasks over its candidates, so a bound holds for every plan
//! whatever it chooses. Of these the largest is given:
//!
//! 1. the critical path;
//! 2. for each rank, the preemptive one-machine bound (`jackson`) with heads and tails that are sharpened by what must run
//!    before and after each task (`sharpen`);
//! 3. for each rank with limited memory, what its pairs must spend in time or in memory (`memory`).

mod jackson;
mod memory;
mod sharpen;

pub(crate) use jackson::{Jackson, Job};

use dip_core::{ScheduleError, Seconds, TaskGraph};

use crate::problem::{Problem, Strand};

/// A time below which no valid plan of the graph can end.
///
/// # Errors
/// As every schedule: [`ScheduleError::Cycle`] and malformed graphs.
pub fn lower_bound(graph: &TaskGraph) -> Result<Seconds, ScheduleError> {
    Ok(Seconds(lower_bound_of(&Problem::new(graph, "bound")?)))
}

/// The bound of a flat problem.
pub(crate) fn lower_bound_of(problem: &Problem) -> f64 {
    let Times { dur, head, tail } = times(problem);
    let path = (0..problem.n).map(|i| head[i] + dur[i] + tail[i]).fold(0.0, f64::max);
    let mut jackson = Jackson::default();
    let job = |t: usize| Job { head: head[t], dur: dur[t], tail: tail[t] };
    let ranks = problem.by_rank.iter();
    let busy = ranks.map(|tasks| jackson.bound(tasks.iter().map(|&t| job(t as usize))));
    let busy = busy.fold(path, f64::max);
    let held = (0..problem.ranks).map(|r| memory::bound(problem, r, (&dur, &head, &tail)));
    // A hair below, so that rounding of sums in another order never lifts the bound above a makespan.
    held.fold(busy, f64::max) * (1.0 - 1e-12)
}

/// The shortest duration, the head and the tail of every task.
pub(crate) struct Times {
    pub(crate) dur: Vec<f64>,
    pub(crate) head: Vec<f64>,
    pub(crate) tail: Vec<f64>,
}

/// Durations, heads and tails that hold for every plan.
pub(crate) fn times(problem: &Problem) -> Times {
    let dur = shortest(problem);
    let mut times = Times { head: problem.heads(&dur), tail: problem.tails(&dur), dur };
    sharpen::sharpen(problem, &mut times);
    times
}

/// The shortest duration of every task over the candidates of its pair.
fn shortest(problem: &Problem) -> Vec<f64> {
    let mut dur = problem.costs(&problem.fastest()).dur;
    for (pair, strands) in problem.pairs.iter().zip(&problem.strands) {
        let least = |of: fn(&Strand) -> f64| strands.iter().map(of).fold(f64::INFINITY, f64::min);
        dur[pair.forward.index()] = least(|s| s.forward_s);
        if let Some(b) = pair.backward {
            dur[b.index()] = least(|s| s.backward_s);
        }
    }
    dur
}
