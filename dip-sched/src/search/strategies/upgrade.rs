//! Faster memory strategies for a given order, wherever the live pairs leave room (paper section 2, phase 3).

use super::select::{Item, select};
use crate::problem::Problem;
use crate::problem::Solution;
use crate::problem::evaluate;

/// Chooses the strategies of every rank anew for the order of a solution; keeps them where the makespan is no longer.
pub(in crate::search) fn upgrade(problem: &Problem, solution: &mut Solution) {
    if !problem.has_choice {
        return;
    }
    let mut choice = solution.choice.clone();
    for rank in 0..problem.ranks {
        choose_rank(problem, &solution.order[rank], rank, &mut choice);
    }
    let costs = problem.costs(&choice);
    if let Some(makespan) = evaluate::makespan(problem, &costs.dur, &solution.order)
        && makespan <= solution.makespan * 1.05
    {
        (solution.choice, solution.makespan) = (choice, makespan);
    }
}

/// The strategies of one rank. Memory only ever runs out where a forward starts, so these are the moments.
fn choose_rank(problem: &Problem, order: &[u32], rank: usize, choice: &mut [u16]) {
    let (mut pairs, mut items): (Vec<usize>, Vec<Item>) = (Vec::new(), Vec::new());
    let mut at: Vec<(usize, usize)> = Vec::new();
    for &t in order {
        let pair = problem.pair[t as usize] as usize;
        let p = &problem.pairs[pair];
        if p.forward.0 == t {
            let strands = problem.strands[pair].iter();
            let options = strands.map(|s| (s.forward_s + s.backward_s, s.bytes)).collect();
            items.push(Item { span: (pairs.len(), pairs.len()), options });
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
            items[at[i].1].span.1 = started - 1;
        }
    }
    let now: Vec<u16> = pairs.iter().map(|&p| choice[p]).collect();
    let budget = problem.budget[rank].unwrap_or(u64::MAX);
    let chosen = select(&items, pairs.len(), budget, &now);
    for (&pair, c) in pairs.iter().zip(chosen) {
        choice[pair] = c;
    }
}
