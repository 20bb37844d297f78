//! Optimus, coarse-grained: all encoder forwards first, then the backbone interleaved, then all encoder backwards.

use std::collections::BTreeSet;

use dip_core::{Environment, Plan, Schedule, ScheduleError, TaskGraph, TaskKind};

use super::{interleaved, plan_wishes};
use crate::problem::Problem;

/// Encoder forwards of the whole batch first, as far as memory allows, the other modules as interleaved 1F1B, and encoder
/// backwards last. Encoders are the modules that the one with most work consumes, directly or not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Optimus;

impl Schedule for Optimus {
    fn name(&self) -> &str {
        "optimus"
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_wishes(self.name(), graph, env, |problem| vec![wish(graph, problem)])
    }
}

pub(super) fn wish(graph: &TaskGraph, problem: &Problem) -> Vec<Vec<u32>> {
    let encoders = encoders(graph);
    let is_encoder = |t: u32| encoders.contains(&*graph.tasks[t as usize].module);
    let encoder_chunks: BTreeSet<u32> = (0..problem.n as u32)
        .filter(|&t| is_encoder(t))
        .map(|t| problem.chunk[t as usize])
        .collect();
    let rest = interleaved::wish(problem, &|_, chunk| !encoder_chunks.contains(&chunk));
    let ranks = problem.by_rank.iter().zip(rest);
    ranks
        .map(|(tasks, rest)| {
            let of = |forward: bool| {
                let wanted = move |&&t: &&u32| {
                    is_encoder(t) && (problem.kind[t as usize] == TaskKind::Forward) == forward
                };
                tasks.iter().filter(wanted).copied()
            };
            of(true).chain(rest).chain(of(false)).collect()
        })
        .collect()
}

/// Modules upstream of the one with most work.
fn encoders(graph: &TaskGraph) -> BTreeSet<&str> {
    let modules: BTreeSet<&str> = graph.tasks.iter().map(|t| &*t.module).collect();
    let load = |m: &str| -> f64 {
        graph.tasks.iter().filter(|t| *t.module == *m).map(|t| t.duration_s.0).sum()
    };
    let heaviest = modules.iter().max_by(|a, b| load(a).total_cmp(&load(b)));
    let mut upstream: BTreeSet<&str> = heaviest.iter().map(|m| **m).collect();
    loop {
        let forwards = graph.tasks.iter().filter(|t| t.kind == TaskKind::Forward);
        let more: BTreeSet<&str> = forwards
            .filter(|t| upstream.contains(&*t.module))
            .flat_map(|t| t.deps.iter().map(|d| &graph.tasks[d.task.index()]))
            .filter(|d| d.kind == TaskKind::Forward)
            .map(|d| &*d.module)
            .filter(|m| !upstream.contains(m))
            .collect();
        if more.is_empty() {
            break;
        }
        upstream.extend(more);
    }
    if let Some(heaviest) = heaviest {
        upstream.remove(heaviest);
    }
    upstream
}
