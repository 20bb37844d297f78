//! Optimus, coarse-grained: all encoder forwards first, then the backbone interleaved, then all encoder backwards.

use std::collections::{BTreeMap, BTreeSet};

use dip_core::{Environment, Plan, Schedule, ScheduleError, TaskGraph, TaskKind};

use super::{interleaved, plan_wishes};
use crate::problem::Problem;

/// Encoder forwards of the whole batch first, the other modules as interleaved 1F1B, and encoder backwards last. Where memory
/// does not allow that, encoder forwards of a part of the batch first, and the rest as backwards give memory back.
///
/// The backbone is the module with most work among those that take inputs; encoders are what it consumes, directly or not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Optimus;

impl Schedule for Optimus {
    fn name(&self) -> &str {
        "optimus"
    }

    fn description(&self) -> &str {
        "encoder forwards first, encoder backwards last, backbone interleaved"
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_wishes(self.name(), graph, env, |problem| wishes(graph, problem))
    }
}

/// The whole batch first.
pub(super) fn wish(graph: &TaskGraph, problem: &Problem) -> Vec<Vec<u32>> {
    Lanes::new(graph, problem).wish(problem, usize::MAX)
}

/// The whole batch first, and ever smaller parts of it.
fn wishes(graph: &TaskGraph, problem: &Problem) -> Vec<Vec<Vec<u32>>> {
    let lanes = Lanes::new(graph, problem);
    let microbatches = problem.microbatch.iter().max().map_or(0, |&m| m as usize + 1);
    let mut ahead = vec![usize::MAX];
    if problem.budget.iter().any(Option::is_some) {
        let parts = (1..8).rev().map(|eighths| microbatches * eighths / 8);
        ahead.extend(parts.filter(|&part| part >= problem.ranks));
    }
    ahead.into_iter().map(|ahead| lanes.wish(problem, ahead)).collect()
}

/// What encoders do and what the other modules do, rank by rank.
struct Lanes {
    /// Forwards and backwards of the encoders, unit by unit.
    encoders: Vec<[Vec<Vec<u32>>; 2]>,
    rest: Vec<Vec<u32>>,
}

impl Lanes {
    fn new(graph: &TaskGraph, problem: &Problem) -> Self {
        let names = encoders(graph);
        let is_encoder = |&t: &u32| names.contains(&*graph.tasks[t as usize].module);
        let chunks: BTreeSet<u32> =
            (0..problem.n as u32).filter(is_encoder).map(|t| problem.chunk[t as usize]).collect();
        Self {
            encoders: interleaved::passes(problem, &|_, chunk| chunks.contains(&chunk)),
            rest: interleaved::wish(problem, &|_, chunk| !chunks.contains(&chunk)),
        }
    }

    /// Encoder forwards of `ahead` microbatches first. Then, whenever the backward of a microbatch has passed the rest of a
    /// rank, the encoder backward of one that has passed all ranks, and the encoder forward of another.
    fn wish(&self, problem: &Problem, ahead: usize) -> Vec<Vec<u32>> {
        let ranks = self.encoders.iter().zip(&self.rest);
        ranks
            .map(|([forwards, backwards], rest)| {
                let microbatches = problem.microbatch.iter().max().map_or(1, |&m| m as usize + 1);
                let chunks = forwards.len().div_ceil(microbatches);
                let mut last = vec![usize::MAX; microbatches];
                for (i, &t) in rest.iter().enumerate() {
                    last[problem.microbatch[t as usize] as usize] = i;
                }
                let mut forwards = forwards.iter();
                let mut backwards = backwards.iter();
                let mut list = Vec::new();
                let first = ahead.saturating_mul(chunks);
                forwards.by_ref().take(first).for_each(|unit| list.extend(unit));
                let mut passed = 0;
                for (i, &t) in rest.iter().enumerate() {
                    list.push(t);
                    if last[problem.microbatch[t as usize] as usize] != i {
                        continue;
                    }
                    passed += 1;
                    if ahead < microbatches && passed >= problem.ranks {
                        backwards.by_ref().take(chunks).for_each(|unit| list.extend(unit));
                        forwards.by_ref().take(chunks).for_each(|unit| list.extend(unit));
                    }
                }
                forwards.chain(backwards).for_each(|unit| list.extend(unit));
                list
            })
            .collect()
    }
}

/// Modules upstream of the backbone.
fn encoders(graph: &TaskGraph) -> BTreeSet<&str> {
    let inputs = inputs(graph);
    let load = |m: &str| -> f64 {
        graph.tasks.iter().filter(|t| *t.module == *m).map(|t| t.duration_s.0).sum()
    };
    let backbone = inputs.keys().max_by(|a, b| load(a).total_cmp(&load(b)));
    let mut upstream: BTreeSet<&str> = backbone.into_iter().copied().collect();
    loop {
        let more: Vec<&str> = upstream
            .iter()
            .filter_map(|m| inputs.get(m))
            .flatten()
            .filter(|m| !upstream.contains(*m))
            .copied()
            .collect();
        if more.is_empty() {
            break;
        }
        upstream.extend(more);
    }
    if let Some(backbone) = backbone {
        upstream.remove(backbone);
    }
    upstream
}

/// The modules that each module takes inputs from; modules without are left out.
fn inputs(graph: &TaskGraph) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut inputs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for task in graph.tasks.iter().filter(|t| t.kind == TaskKind::Forward) {
        for dep in task.deps.iter().map(|d| &graph.tasks[d.task.index()]) {
            if dep.kind == TaskKind::Forward && dep.module != task.module {
                inputs.entry(&task.module).or_default().insert(&dep.module);
            }
        }
    }
    inputs
}
