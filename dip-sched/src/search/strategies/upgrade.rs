//! Faster memory strategies for a given order, wherever memory leaves room (paper section 2, phase 3).

use super::select::{KnapsackItem, KnapsackOption, select};
use crate::problem::{Problem, Solution, StrategyCost, evaluate};

/// The makespan of a new choice may be at most this many times the old one. The new tasks take less time in total, so later moves
/// can make up for it.
const ACCEPTED: f64 = 1.05;

/// Chooses the strategies of every rank again for the order of a solution. Keeps them unless the makespan gets too long. `ended` can stop
/// the work, with the strategies so far.
pub(in crate::search) fn upgrade(
    problem: &Problem,
    solution: &mut Solution,
    ended: &mut dyn FnMut() -> bool,
) {
    if !problem.has_choice {
        return;
    }
    let mut choice = solution.choice.clone();
    for rank in 0..problem.ranks {
        if ended() {
            break;
        }
        choose_rank(problem, &solution.order[rank], &mut choice, ended);
    }
    let costs = problem.costs(&choice);
    if let Some(makespan) = evaluate::makespan(problem, &costs.dur, &solution.order)
        && makespan <= solution.makespan * ACCEPTED
    {
        (solution.choice, solution.makespan) = (choice, makespan);
    }
}

/// Chooses the strategies of one rank. Memory can only run out at the start of a forward, so these starts are the moments.
fn choose_rank(
    problem: &Problem,
    order: &[u32],
    choice: &mut [u16],
    ended: &mut dyn FnMut() -> bool,
) {
    let Some(&first) = order.first() else { return };
    let rank = problem.rank[first as usize] as usize;
    let (mut pairs, mut items): (Vec<usize>, Vec<KnapsackItem>) = (Vec::new(), Vec::new());
    // Each pair with the index of its item.
    let mut at: Vec<(usize, usize)> = Vec::new();
    for &t in order {
        let pair = problem.pair[t as usize] as usize;
        let p = &problem.pairs[pair];
        if p.forward.0 == t {
            let strategies = problem.strategies[pair].iter();
            let option = |s: &StrategyCost| KnapsackOption {
                seconds: s.forward_s + s.backward_s,
                bytes: s.bytes,
            };
            let span = pairs.len()..=pairs.len();
            items.push(KnapsackItem { span, options: strategies.map(option).collect() });
            at.push((pair, pairs.len()));
            pairs.push(pair);
        }
    }
    at.sort_unstable();
    let mut started = 0;
    for &t in order {
        let pair = problem.pair[t as usize] as usize;
        started += usize::from(problem.pairs[pair].forward.0 == t);
        if problem.pairs[pair].release().0 == t
            && let Ok(i) = at.binary_search_by_key(&pair, |&(pair, _)| pair)
        {
            let item = &mut items[at[i].1];
            item.span = *item.span.start()..=started - 1;
        }
    }
    let now: Vec<u16> = pairs.iter().map(|&p| choice[p]).collect();
    let budget = problem.budget[rank].unwrap_or(u64::MAX);
    let chosen = select(&items, pairs.len(), budget, &now, ended);
    for (&pair, c) in pairs.iter().zip(chosen) {
        choice[pair] = c;
    }
}
