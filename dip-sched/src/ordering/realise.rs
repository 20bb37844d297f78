//! From a target order on every rank to an order that dependencies and memory allow.
//!
//! A target order that dependencies and memory allow is the result. Otherwise every rank follows its list strictly. When all ranks wait, for each other or for memory, the runnable task closest to the front
//! of its list goes first. There always is one (see [`super::reserve`]), so the result is complete.

use dip_core::ScheduleError;

use super::levels::strategy_levels;
use super::reserve::Reserve;
use super::sequence::feasible_sequence;
use crate::problem::{Order, Problem, Solution, TaskCosts, evaluate};

/// Maximum number of tasks for which every level of memory is tried.
const MAX_TASKS_FOR_ALL_LEVELS: usize = 6000;

/// Realises target orders at every level of memory and returns the shortest result. `ended` can stop the work once there is a result.
///
/// # Errors
/// [`ScheduleError::Infeasible`] if not even the smallest strategies fit.
pub(crate) fn realise(
    problem: &Problem,
    targets: &[Order],
    ended: impl Fn() -> bool,
) -> Result<Solution, ScheduleError> {
    let mut best: Option<Solution> = None;
    let mut failure = None;
    let mut levels = strategy_levels(problem);
    if problem.n > MAX_TASKS_FOR_ALL_LEVELS {
        // Strict lists take long to follow under tight memory. Try only the smallest strategies, which fit if any do.
        levels.drain(..levels.len() - 1);
    }
    for choice in levels {
        if best.is_some() && ended() {
            break;
        }
        let costs = problem.costs(&choice);
        let witness = match feasible_sequence(problem, &costs) {
            Ok(witness) => witness,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        for target in targets {
            if best.is_some() && ended() {
                break;
            }
            let (order, makespan) = match as_it_is(problem, &costs, target) {
                Some(makespan) => (target.clone(), makespan),
                None => {
                    let order = Realisation::new(problem, &costs, &witness).follow(target);
                    let makespan = evaluate::makespan(problem, &costs.dur, &order);
                    (order, makespan.unwrap_or(f64::INFINITY))
                }
            };
            if best.as_ref().is_none_or(|b| makespan < b.makespan) {
                best = Some(Solution { order, choice: choice.clone(), makespan });
            }
        }
    }
    match (best, failure) {
        (Some(best), _) => Ok(best),
        (None, Some(failure)) => Err(failure),
        (None, None) => Ok(Solution {
            order: vec![Vec::new(); problem.ranks],
            choice: Vec::new(),
            makespan: 0.0,
        }),
    }
}

/// The makespan of a target order, if dependencies and memory allow it as it is.
fn as_it_is(problem: &Problem, costs: &TaskCosts, target: &Order) -> Option<f64> {
    let fits = evaluate::fits(problem, costs, target);
    fits.then(|| evaluate::makespan(problem, &costs.dur, target)).flatten()
}

/// A partial order of execution.
struct Realisation<'a> {
    problem: &'a Problem,
    reserve: Reserve,
    /// Unfinished predecessors of each task.
    waiting: Vec<u32>,
    executed: Vec<bool>,
    done: usize,
    order: Order,
}

impl<'a> Realisation<'a> {
    fn new(problem: &'a Problem, costs: &TaskCosts, witness: &[u32]) -> Self {
        Self {
            problem,
            reserve: Reserve::new(problem, costs, witness),
            waiting: problem.in_degrees(),
            executed: vec![false; problem.n],
            done: 0,
            order: vec![Vec::new(); problem.ranks],
        }
    }

    /// Follows the target order as far as dependencies and memory allow.
    fn follow(mut self, target: &[Vec<u32>]) -> Order {
        let mut next = vec![0usize; self.problem.ranks];
        while self.done < self.problem.n {
            let before = self.done;
            for r in 0..self.problem.ranks {
                while let Some(&t) = target[r].get(next[r]) {
                    let t = t as usize;
                    if !self.executed[t] {
                        if !self.may_run(r, t) {
                            break;
                        }
                        self.execute(r, t);
                    }
                    next[r] += 1;
                }
            }
            if self.done > before {
                continue;
            }
            let Some((r, t)) = self.least_out_of_turn(target, &next) else { break };
            self.execute(r, t);
        }
        self.order
    }

    /// The rank and task that may run and are closest to the front of their list.
    fn least_out_of_turn(&self, target: &[Vec<u32>], next: &[usize]) -> Option<(usize, usize)> {
        let first = |r: usize| {
            let mut rest = target[r][next[r]..].iter().map(|&t| t as usize).enumerate();
            let (distance, t) = rest.find(|&(_, t)| !self.executed[t] && self.may_run(r, t))?;
            Some((distance, r, t))
        };
        let (_, r, t) = (0..self.problem.ranks).filter_map(first).min()?;
        Some((r, t))
    }

    fn may_run(&self, rank: usize, t: usize) -> bool {
        self.waiting[t] == 0 && self.reserve.allows(rank, t)
    }

    fn execute(&mut self, rank: usize, t: usize) {
        self.reserve.run(rank, t);
        self.executed[t] = true;
        self.done += 1;
        self.order[rank].push(t as u32);
        for &(s, _) in self.problem.succs.of_task(t) {
            self.waiting[s as usize] -= 1;
        }
    }
}
