//! Optimus, coarse-grained: all encoder forwards first, then the backbone interleaved, then all encoder backwards.

use std::collections::{BTreeMap, BTreeSet};

use dip_core::{Environment, Plan, Schedule, ScheduleError, TaskGraph, TaskKind};

use super::interleaved::{self, Passes};
use super::plan_target_orders;
use crate::problem::{Order, Problem};

/// Encoder forwards of the whole batch first, the other modules as interleaved 1F1B, and encoder backwards last. Where memory
/// does not allow that, only part of the batch runs its encoder forwards first; the rest follow as backwards free memory.
///
/// The backbone is the module with most work among the modules that take inputs. Encoders are the modules it consumes, directly
/// or through others.
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
        plan_target_orders(self.name(), graph, env, |problem| target_orders(graph, problem))
    }
}

/// The target order that runs all encoder forwards first.
pub(super) fn target_order(graph: &TaskGraph, problem: &Problem) -> Order {
    EncoderSplit::new(graph, problem).target_order(problem, usize::MAX)
}

/// Target orders that run the encoder forwards of the whole batch first, then of ever smaller parts of it.
fn target_orders(graph: &TaskGraph, problem: &Problem) -> Vec<Order> {
    let split = EncoderSplit::new(graph, problem);
    let microbatches = problem.microbatches();
    let mut ahead = vec![usize::MAX];
    if problem.is_limited() {
        let parts = (1..8).rev().map(|eighths| microbatches * eighths / 8);
        ahead.extend(parts.filter(|&part| part >= problem.ranks));
    }
    ahead.into_iter().map(|ahead| split.target_order(problem, ahead)).collect()
}

/// The work of the encoders and of the other modules on every rank.
struct EncoderSplit {
    encoders: Vec<Passes>,
    rest: Order,
}

impl EncoderSplit {
    fn new(graph: &TaskGraph, problem: &Problem) -> Self {
        let names = encoders(graph);
        let is_encoder = |&t: &u32| names.contains(&*graph.tasks[t as usize].module);
        let chunks: BTreeSet<u32> =
            (0..problem.n as u32).filter(is_encoder).map(|t| problem.chunk[t as usize]).collect();
        Self {
            encoders: interleaved::passes(problem, &|chunk| chunks.contains(&chunk)),
            rest: interleaved::target_order(problem, &|chunk| !chunks.contains(&chunk)),
        }
    }

    /// Starts with the encoder forwards of `ahead` microbatches. Whenever a rank has finished another microbatch in the other modules,
    /// one encoder backward and one more encoder forward follow.
    fn target_order(&self, problem: &Problem, ahead: usize) -> Order {
        let ranks = self.encoders.iter().zip(&self.rest);
        ranks.map(|(encoders, rest)| rank_order(problem, encoders, rest, ahead)).collect()
    }
}

fn rank_order(problem: &Problem, encoders: &Passes, rest: &[u32], ahead: usize) -> Vec<u32> {
    let microbatches = problem.microbatches().max(1);
    let microbatch_of = |t: u32| problem.microbatch[t as usize] as usize;
    let chunks = encoders.forwards.len().div_ceil(microbatches);
    let mut last = vec![usize::MAX; microbatches];
    for (i, &t) in rest.iter().enumerate() {
        last[microbatch_of(t)] = i;
    }
    let mut forwards = encoders.forwards.iter();
    let mut backwards = encoders.backwards.iter();
    let mut list = Vec::new();
    let first = ahead.saturating_mul(chunks);
    list.extend(forwards.by_ref().take(first).flatten());
    let mut passed = 0;
    for (i, &t) in rest.iter().enumerate() {
        list.push(t);
        if last[microbatch_of(t)] != i {
            continue;
        }
        passed += 1;
        if ahead < microbatches && passed >= problem.ranks {
            list.extend(backwards.by_ref().take(chunks).flatten());
            list.extend(forwards.by_ref().take(chunks).flatten());
        }
    }
    list.extend(forwards.chain(backwards).flatten());
    list
}

/// The modules upstream of the backbone.
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

/// The input modules of each module that has any.
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
