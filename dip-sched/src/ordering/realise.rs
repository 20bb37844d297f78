//! From a target order on every rank to an order that dependencies and memory allow.
//!
//! A target order that dependencies and memory allow is the result. Otherwise every rank follows its list strictly. When all ranks wait,
//! for each other or for memory, the runnable task closest to the front of its list goes first. There always is one (see
//! [`super::reserve`]), so the result is complete.

use std::collections::BTreeSet;

use dip_core::ScheduleError;

use super::levels::strategy_levels;
use super::reserve::Reserve;
use super::sequence::feasible_sequence;
use crate::problem::{Choice, Order, Problem, Solution, TaskCosts, evaluate};

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
        // A list that fits as it is takes no time to follow.
        if let Some(solution) = fastest_as_it_is(problem, &levels, targets) {
            return Ok(solution);
        }
        // Strict lists take long to follow under tight memory. Try only the smallest strategies, which fit if any do.
        levels.drain(..levels.len() - 1);
    }
    let offer = |order: Order, choice: &Choice, makespan: f64, best: &mut Option<Solution>| {
        if best.as_ref().is_none_or(|b| makespan < b.makespan) {
            *best = Some(Solution { order, choice: choice.clone(), makespan });
        }
    };
    for choice in levels {
        if best.is_some() && ended() {
            break;
        }
        let costs = problem.costs(&choice);
        // All orders that fit as they are come first, because that takes little time.
        let mut others = Vec::new();
        for target in targets {
            match as_it_is(problem, &costs, target) {
                Some(makespan) => offer(target.clone(), &choice, makespan, &mut best),
                None => others.push(target),
            }
        }
        let witness = match feasible_sequence(problem, &costs) {
            Ok(witness) => witness,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        for target in others {
            if best.is_some() && ended() {
                break;
            }
            let order = Realisation::new(problem, &costs, &witness).follow(target);
            let makespan = evaluate::makespan(problem, &costs.dur, &order);
            offer(order, &choice, makespan.unwrap_or(f64::INFINITY), &mut best);
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

/// The shortest of the targets at the fastest level at which one is allowed as it is.
fn fastest_as_it_is(problem: &Problem, levels: &[Choice], targets: &[Order]) -> Option<Solution> {
    levels.iter().find_map(|choice| {
        let costs = problem.costs(choice);
        let solution = |order: &Order| {
            let makespan = as_it_is(problem, &costs, order)?;
            Some(Solution { order: order.clone(), choice: choice.clone(), makespan })
        };
        let solutions = targets.iter().filter_map(solution);
        solutions.min_by(|a, b| a.makespan.total_cmp(&b.makespan))
    })
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
    /// The place of each task in the list of its rank.
    place: Vec<u32>,
    /// The places of the tasks of each rank whose predecessors have ended.
    ready: Vec<BTreeSet<u32>>,
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
            place: vec![u32::MAX; problem.n],
            ready: vec![BTreeSet::new(); problem.ranks],
        }
    }

    /// Notes where the tasks are in their lists, and which of them are ready.
    fn enter(&mut self, target: &[Vec<u32>]) {
        for (list, ready) in target.iter().zip(&mut self.ready) {
            for (i, &t) in list.iter().enumerate() {
                self.place[t as usize] = i as u32;
                if self.waiting[t as usize] == 0 {
                    ready.insert(i as u32);
                }
            }
        }
    }

    /// Follows the target order as far as dependencies and memory allow.
    fn follow(mut self, target: &[Vec<u32>]) -> Order {
        self.enter(target);
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
            let mut ready = self.ready[r].iter().map(|&i| (i as usize, target[r][i as usize]));
            let (i, t) = ready.find(|&(_, t)| self.reserve.allows(r, t as usize))?;
            Some((i - next[r], r, t as usize))
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
        self.ready[rank].remove(&self.place[t]);
        for &(s, _) in self.problem.succs.of_task(t) {
            let s = s as usize;
            self.waiting[s] -= 1;
            if self.waiting[s] == 0 {
                self.ready[self.problem.rank[s] as usize].insert(self.place[s]);
            }
        }
    }
}
