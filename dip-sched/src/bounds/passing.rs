//! How long one microbatch must wait for the others.
//!
//! Take a chain of tasks of a microbatch `k`, such as all its forwards and backwards, and the equal chain of every other microbatch:
//! same ranks, chunks and kinds. Let `k` run `t_1 .. t_L` and another one `u_1 .. u_L`. One of these holds:
//!
//! 1. `u_1` runs before `t_1`, so `t_1` waits for it;
//! 2. `u_L` runs after `t_L`, so the end waits for it;
//! 3. neither: at some `i`, `u_i` runs after `t_i` but `u_(i+1)` before `t_(i+1)`. Both run between the end of `t_i` and the start of
//!    `t_(i+1)`, so `k` waits for them there.
//!
//! Tasks of several microbatches on one rank do not overlap, so these waits add up, and `k` waits for each other microbatch at least as
//! long as in the best of its cases. In case 3, `k` waits at least for all `u_i` of these microbatches, and at least for all
//! `u_(i+1)`; so at least for the means of both, and on one rank for both. The makespan is at least the chain of `k` with these waits,
//! after the earliest head of its first tasks and before the shortest tail of its last tasks. Every part of a chain is a chain.

use std::collections::BTreeSet;

use dip_core::TaskKind;

use super::TaskTimes;
use crate::problem::Problem;

/// Maximum number of different chains.
const MAX_CHAINS: usize = 8;
/// Maximum product of microbatches and parts of a chain for which all parts are tried; otherwise only parts around the middle.
const MAX_PARTS: usize = 1_000_000;

/// The bound of all chains.
pub(super) fn bound(problem: &Problem, times: &TaskTimes) -> f64 {
    let microbatches = by_microbatch(problem);
    let mut seen: BTreeSet<Vec<Place>> = BTreeSet::new();
    let mut best = 0.0f64;
    for tasks in &microbatches {
        let places = longest_chain(problem, times, tasks);
        if places.len() < 2 || seen.len() >= MAX_CHAINS || !seen.insert(places.clone()) {
            continue;
        }
        best = best.max(Chains::new(problem, times, &microbatches, &places).bound());
    }
    best
}

/// What is equal in equal chains: rank, chunk and kind.
type Place = (u32, u32, TaskKind);

fn place(problem: &Problem, t: usize) -> Place {
    (problem.rank[t], problem.chunk[t], problem.kind[t])
}

/// The tasks of each microbatch except weight gradients, in topological order.
fn by_microbatch(problem: &Problem) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new(); problem.microbatches()];
    for &t in problem.topo.iter().filter(|&&t| problem.kind[t as usize] != TaskKind::Weight) {
        all[problem.microbatch[t as usize] as usize].push(t);
    }
    all
}

/// The places of the longest chain of one microbatch.
fn longest_chain(
    problem: &Problem,
    TaskTimes { dur, .. }: &TaskTimes,
    tasks: &[u32],
) -> Vec<Place> {
    let index: std::collections::HashMap<u32, usize> =
        tasks.iter().enumerate().map(|(i, &t)| (t, i)).collect();
    let mut end = vec![0.0f64; tasks.len()];
    let mut before = vec![usize::MAX; tasks.len()];
    for (i, &t) in tasks.iter().enumerate() {
        let mut start = 0.0;
        for &(p, comm) in problem.preds.of_task(t as usize) {
            if let Some(&p) = index.get(&p).filter(|&&p| end[p] + comm > start) {
                (start, before[i]) = (end[p] + comm, p);
            }
        }
        end[i] = start + dur[t as usize];
    }
    let last = (0..tasks.len()).max_by(|&a, &b| end[a].total_cmp(&end[b]));
    let mut chain = Vec::new();
    let mut at = last.unwrap_or(usize::MAX);
    while let Some(&t) = tasks.get(at) {
        chain.push(place(problem, t as usize));
        at = before[at];
    }
    chain.reverse();
    chain
}

/// Equal chains of several microbatches.
struct Chains {
    /// The seconds of each task, by microbatch and position.
    seconds: Vec<Vec<f64>>,
    /// The seconds of the weight gradients that follow each task on its rank, by microbatch and position.
    follow: Vec<Vec<f64>>,
    /// The least communication before each position.
    comm: Vec<f64>,
    /// The least head of each position.
    head: Vec<f64>,
    /// The least tail of each position, and of what follows it.
    tail: Vec<f64>,
    tail_of_follow: Vec<f64>,
    /// True if the task at a position and the one before are on one rank.
    same_rank: Vec<bool>,
}

impl Chains {
    /// The chains of all microbatches that have tasks at these places.
    fn new(
        problem: &Problem,
        times: &TaskTimes,
        microbatches: &[Vec<u32>],
        places: &[Place],
    ) -> Self {
        let TaskTimes { dur, head, tail } = times;
        let length = places.len();
        let same_rank = (0..length).map(|i| i > 0 && places[i].0 == places[i - 1].0).collect();
        let infinite = || vec![f64::INFINITY; length];
        let mut chains = Self {
            seconds: Vec::new(),
            follow: Vec::new(),
            comm: infinite(),
            head: infinite(),
            tail: infinite(),
            tail_of_follow: infinite(),
            same_rank,
        };
        let numbers: std::collections::HashMap<Place, usize> =
            places.iter().enumerate().map(|(i, &p)| (p, i)).collect();
        for tasks in microbatches {
            let Some(chain) = chain_at(problem, dur, tasks, &numbers) else { continue };
            for (i, &(t, comm)) in chain.iter().enumerate() {
                chains.comm[i] = chains.comm[i].min(comm);
                chains.head[i] = chains.head[i].min(head[t]);
                chains.tail[i] = chains.tail[i].min(tail[t]);
                let weight = problem.pairs[problem.pair[t] as usize].weight;
                let last = weight.filter(|_| problem.kind[t] == TaskKind::Backward);
                let last = last.map_or(t, |w| w.index());
                chains.tail_of_follow[i] = chains.tail_of_follow[i].min(tail[last]);
            }
            let follow = |&(t, _): &(usize, f64)| {
                let weight = problem.pairs[problem.pair[t] as usize].weight;
                let weight = weight.filter(|_| problem.kind[t] == TaskKind::Backward);
                weight.map_or(0.0, |w| dur[w.index()])
            };
            chains.follow.push(chain.iter().map(follow).collect());
            chains.seconds.push(chain.iter().map(|&(t, _)| dur[t]).collect());
        }
        chains
    }

    /// The largest bound over all parts of the chains.
    fn bound(&self) -> f64 {
        let length = self.comm.len();
        let all = self.seconds.len().saturating_mul(length * length) <= MAX_PARTS;
        let mut best = 0.0f64;
        // The least wait of case 3 between the first position of the part and the last.
        let mut crossing = vec![f64::INFINITY; self.seconds.len()];
        for first in 0..length {
            crossing.fill(f64::INFINITY);
            let mut chain: Vec<f64> = self.seconds.iter().map(|s| s[first]).collect();
            for last in first + 1..length {
                for (k, seconds) in self.seconds.iter().enumerate() {
                    let both = seconds[last - 1] + seconds[last];
                    let share =
                        if self.same_rank[last] && self.comm[last] == 0.0 { 1.0 } else { 0.5 };
                    crossing[k] = crossing[k].min(share * both);
                    chain[k] += self.comm[last] + seconds[last];
                }
                if all || first + last + 1 == length {
                    best = best.max(self.part(first, last, &chain, &crossing));
                }
            }
        }
        best
    }

    /// The bound of the part from `first` to `last`.
    fn part(&self, first: usize, last: usize, chain: &[f64], crossing: &[f64]) -> f64 {
        let of = |with_follow: bool| {
            let follow = |k: usize| if with_follow { self.follow[k][last] } else { 0.0 };
            let wait = |k: usize| {
                let seconds = &self.seconds[k];
                crossing[k].min(seconds[first]).min(seconds[last] + follow(k))
            };
            let all: f64 = (0..chain.len()).map(wait).sum();
            let longest = (0..chain.len()).map(|k| chain[k] + follow(k) - wait(k));
            let tail = if with_follow { &self.tail_of_follow } else { &self.tail };
            self.head[first] + all + longest.fold(0.0, f64::max) + tail[last]
        };
        if chain.is_empty() { 0.0 } else { of(false).max(of(true)) }
    }
}

/// The longest chain of a microbatch through these places, each task with the communication before it. `None` if it has none.
fn chain_at(
    problem: &Problem,
    dur: &[f64],
    tasks: &[u32],
    numbers: &std::collections::HashMap<Place, usize>,
) -> Option<Vec<(usize, f64)>> {
    // For each task of the places, the longest chain from the first place, and the task and communication before it.
    let mut best: std::collections::HashMap<u32, (f64, u32, f64)> = Default::default();
    let mut last: Option<(f64, u32)> = None;
    for &t in tasks {
        let Some(&at) = numbers.get(&place(problem, t as usize)) else { continue };
        let before = |&(p, comm): &(u32, f64)| {
            let is_before = numbers.get(&place(problem, p as usize)).is_some_and(|n| n + 1 == at);
            let &(length, ..) = best.get(&p).filter(|_| is_before)?;
            Some((length + comm, p, comm))
        };
        let preds = problem.preds.of_task(t as usize).iter();
        let longest = preds.filter_map(before).max_by(|a, b| a.0.total_cmp(&b.0));
        let (length, p, comm) = match longest {
            Some(found) => found,
            None if at == 0 => (0.0, t, 0.0),
            None => continue,
        };
        let length = length + dur[t as usize];
        best.insert(t, (length, p, comm));
        if at + 1 == numbers.len() && last.is_none_or(|(l, _)| length > l) {
            last = Some((length, t));
        }
    }
    let (_, mut t) = last?;
    let mut chain = Vec::with_capacity(numbers.len());
    loop {
        let &(_, before, comm) = best.get(&t)?;
        chain.push((t as usize, comm));
        if before == t {
            break;
        }
        t = before;
    }
    chain.reverse();
    (chain.len() == numbers.len()).then_some(chain)
}
