//! From a wished-for order on every rank to one that dependencies and memory allow.
//!
//! Every rank follows its list strictly. Where all ranks wait, for each other or for memory, the task that is least out of
//! turn among those that may run goes first. There always is one (see [`crate::ordering::reserve`]), so the result is complete.

use crate::ordering::Reserve;
use crate::ordering::feasible_sequence;
use crate::problem::Solution;
use crate::problem::evaluate;
use crate::problem::{Choice, Costs, Problem};
use dip_core::ScheduleError;

/// Tasks up to which every level of memory is tried.
const MOST_TASKS: usize = 6000;

/// Wished-for lists, one a rank, together with the strategies under which they are realised best. `ended` is asked, once there
/// is one, whether to leave it at that.
///
/// # Errors
/// [`ScheduleError::Infeasible`] where not even the smallest strategies fit.
pub(crate) fn realise(
    problem: &Problem,
    wishes: &[Vec<Vec<u32>>],
    ended: impl Fn() -> bool,
) -> Result<Solution, ScheduleError> {
    let mut best: Option<Solution> = None;
    let mut failure = None;
    let mut levels = levels(problem);
    if problem.n > MOST_TASKS {
        // Strict lists under back-pressure take long to follow: one try, with what is sure to fit if anything does.
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
        for wish in wishes {
            if best.is_some() && ended() {
                break;
            }
            let order = follow(problem, &costs, &witness, wish);
            let makespan = evaluate::makespan(problem, &costs.dur, &order).unwrap_or(f64::INFINITY);
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

/// Choices from the fastest to the smallest strategies: each pair of a rank that may run out of memory takes the fastest that is
/// within a share of the way from its smallest to its largest.
pub(crate) fn levels(problem: &Problem) -> Vec<Choice> {
    let mut levels = vec![problem.fastest()];
    if problem.has_choice && problem.budget.iter().any(Option::is_some) {
        for share in [0.75, 0.5, 0.35, 0.2, 0.1, 0.0] {
            let limited = |p: usize| {
                let rank = problem.rank[problem.pairs[p].forward.index()] as usize;
                problem.budget[rank].is_some()
            };
            let choice = problem
                .strands
                .iter()
                .enumerate()
                .map(|(p, strands)| {
                    if !limited(p) {
                        return levels[0][p];
                    }
                    let bytes = || strands.iter().map(|s| s.bytes);
                    let (low, high) = (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0));
                    let most = low + ((high - low) as f64 * share) as u64;
                    let within = strands.iter().enumerate().filter(|(_, s)| s.bytes <= most);
                    let time = |s: &crate::problem::Strand| s.forward_s + s.backward_s;
                    within
                        .min_by(|a, b| {
                            time(a.1).total_cmp(&time(b.1)).then(a.1.bytes.cmp(&b.1.bytes))
                        })
                        .map_or(0, |(i, _)| i as u16)
                })
                .collect();
            if levels.last() != Some(&choice) {
                levels.push(choice);
            }
        }
    }
    levels
}

/// Follows wished-for lists as far as dependencies and memory allow.
pub(crate) fn follow(
    problem: &Problem,
    costs: &Costs,
    witness: &[u32],
    wish: &[Vec<u32>],
) -> Vec<Vec<u32>> {
    let mut reserve = Reserve::new(problem, costs, witness);
    let mut waiting: Vec<u32> =
        (0..problem.n).map(|t| problem.preds.of_task(t).len() as u32).collect();
    let mut executed = vec![false; problem.n];
    let mut next = vec![0usize; problem.ranks];
    let mut order: Vec<Vec<u32>> = vec![Vec::new(); problem.ranks];
    let mut done = 0;
    while done < problem.n {
        let mut moved = false;
        for r in 0..problem.ranks {
            while let Some(&t) = wish[r].get(next[r]) {
                let t = t as usize;
                if !executed[t] {
                    if waiting[t] > 0 || !reserve.allows(r, t) {
                        break;
                    }
                    execute(problem, t, &mut waiting, &mut executed, &mut order, &mut reserve);
                    done += 1;
                    moved = true;
                }
                next[r] += 1;
            }
        }
        if moved {
            continue;
        }
        let least = (0..problem.ranks)
            .filter_map(|r| {
                let rest = wish[r][next[r]..].iter().enumerate();
                let mut may = rest.filter(|&(_, &t)| {
                    let t = t as usize;
                    !executed[t] && waiting[t] == 0 && reserve.allows(r, t)
                });
                may.next().map(|(distance, &t)| (distance, r, t))
            })
            .min();
        let Some((_, _, t)) = least else { break };
        execute(problem, t as usize, &mut waiting, &mut executed, &mut order, &mut reserve);
        done += 1;
    }
    order
}

fn execute(
    problem: &Problem,
    t: usize,
    waiting: &mut [u32],
    executed: &mut [bool],
    order: &mut [Vec<u32>],
    reserve: &mut Reserve,
) {
    let rank = problem.rank[t] as usize;
    reserve.run(rank, t);
    executed[t] = true;
    order[rank].push(t as u32);
    for &(s, _) in problem.succs.of_task(t) {
        waiting[s as usize] -= 1;
    }
}
