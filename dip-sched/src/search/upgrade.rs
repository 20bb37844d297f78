//! Faster memory strategies for a given order, wherever the live pairs leave room (paper section 2, phase 3).

use crate::evaluate;
use crate::finish::Solution;
use crate::problem::Problem;

/// Takes, for each pair on its rank, the strategy that saves most seconds and fits; pairs that save most a byte go first.
pub(crate) fn upgrade(problem: &Problem, solution: &mut Solution) {
    if !problem.has_choice {
        return;
    }
    let mut costs = problem.costs(&solution.choice);
    let mut swaps: Vec<(f64, usize, u16)> = Vec::new();
    for (p, strands) in problem.strands.iter().enumerate() {
        let now = strands[solution.choice[p] as usize];
        for (i, s) in strands.iter().enumerate() {
            let saved = now.forward_s + now.backward_s - s.forward_s - s.backward_s;
            if saved > 0.0 {
                let bytes = s.bytes.saturating_sub(now.bytes).max(1) as f64;
                swaps.push((saved / bytes, p, i as u16));
            }
        }
    }
    swaps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let total = |p: usize, choice: u16| {
        let s = problem.strands[p][choice as usize];
        s.forward_s + s.backward_s
    };
    for (_, p, choice) in swaps {
        let old = solution.choice[p];
        if total(p, choice) >= total(p, old) {
            continue;
        }
        let rank = problem.rank[problem.pairs[p].forward.index()] as usize;
        problem.set_costs(&mut costs, p, choice);
        let list = solution.order[rank].iter().copied();
        if evaluate::rank_fits(problem, &costs, rank, list) {
            solution.choice[p] = choice;
        } else {
            problem.set_costs(&mut costs, p, old);
        }
    }
    if let Some(makespan) = evaluate::makespan(problem, &costs.dur, &solution.order) {
        solution.makespan = makespan;
    }
}
