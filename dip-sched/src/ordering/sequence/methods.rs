//! Three methods that complete a sequence within memory.

use std::collections::HashSet;

use super::partial::{PartialSequence, Stuck};
use crate::problem::Problem;

/// Number of states after which the search for a sequence gives up.
const MAX_STATES: usize = 30_000;

/// Runs the ready task with the least key first.
pub(super) fn by_key(mut run: PartialSequence<'_>, keys: &[f64]) -> Result<Vec<u32>, Stuck> {
    loop {
        run.drain();
        if run.done() {
            return Ok(run.sequence);
        }
        let fitting = (0..run.ready.len()).filter(|&i| run.fits(run.ready[i] as usize));
        let key = |i: usize| keys[run.ready[i] as usize];
        let first = fitting
            .min_by(|&a, &b| key(a).total_cmp(&key(b)).then(run.ready[a].cmp(&run.ready[b])));
        let Some(i) = first else { return Err(run.stuck()) };
        let t = run.ready.swap_remove(i);
        run.execute(t as usize);
    }
}

/// Takes the tasks that free memory in topological order. Runs the remaining ancestors of each, then the task itself.
pub(super) fn on_demand(mut run: PartialSequence<'_>) -> Result<Vec<u32>, Stuck> {
    let problem = run.problem;
    let mut position = vec![0u32; problem.n];
    for (i, &t) in problem.topo.iter().enumerate() {
        position[t as usize] = i as u32;
    }
    let mut executed = vec![false; problem.n];
    let mut seen = 0;
    for &goal in &problem.topo {
        if run.costs.release[goal as usize] == 0 {
            continue;
        }
        loop {
            run.drain();
            for &t in &run.sequence[seen..] {
                executed[t as usize] = true;
            }
            seen = run.sequence.len();
            if executed[goal as usize] {
                break;
            }
            let needed = ancestors(problem, goal as usize, &executed);
            let fitting = (0..run.ready.len())
                .filter(|&i| needed[run.ready[i] as usize] && run.fits(run.ready[i] as usize));
            let Some(i) = fitting.min_by_key(|&i| position[run.ready[i] as usize]) else {
                return Err(run.stuck());
            };
            let t = run.ready.swap_remove(i);
            run.execute(t as usize);
        }
    }
    run.drain();
    while let Some(t) = run.ready.pop() {
        run.execute(t as usize);
        run.drain();
    }
    if run.done() { Ok(run.sequence) } else { Err(run.stuck()) }
}

/// Marks a task and its ancestors that have not run.
fn ancestors(problem: &Problem, goal: usize, executed: &[bool]) -> Vec<bool> {
    let mut needed = vec![false; problem.n];
    let mut stack = vec![goal];
    needed[goal] = true;
    while let Some(t) = stack.pop() {
        for &(p, _) in problem.preds.of_task(t) {
            if !needed[p as usize] && !executed[p as usize] {
                needed[p as usize] = true;
                stack.push(p as usize);
            }
        }
    }
    needed
}

/// Depth-first search over the forwards that hold bytes. The search never backtracks past a state that holds no bytes.
pub(super) fn search(mut run: PartialSequence<'_>) -> Option<Vec<u32>> {
    run.drain();
    let mut failed: HashSet<u64> = HashSet::new();
    let mut stack = vec![run];
    while let Some(run) = stack.pop() {
        if run.done() {
            return Some(run.sequence);
        }
        if !failed.insert(run.hash) || failed.len() > MAX_STATES {
            continue;
        }
        if run.live.iter().all(|&l| l == 0) {
            stack.clear();
        }
        let mut choices: Vec<u32> = run.ready.clone();
        choices.retain(|&t| run.fits(t as usize));
        choices.sort_by_key(|&t| std::cmp::Reverse((run.problem.microbatch[t as usize], t)));
        for t in choices {
            let mut next = run.clone();
            next.ready.retain(|&other| other != t);
            next.execute(t as usize);
            next.drain();
            stack.push(next);
        }
    }
    None
}
