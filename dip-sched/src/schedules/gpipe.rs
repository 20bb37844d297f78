//! GPipe: all forwards, then all backwards.

use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph, TaskKind};

use super::plan_wishes;
use crate::problem::Problem;

/// All forwards of a batch, then all backwards, microbatch by microbatch.
#[derive(Debug, Clone, Copy, Default)]
pub struct GPipe;

impl Schedule for GPipe {
    fn name(&self) -> &str {
        "gpipe"
    }

    fn description(&self) -> &str {
        "all forwards, then all backwards"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 1 }
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_wishes(self.name(), graph, env, |problem| vec![wish(problem)])
    }
}

pub(super) fn wish(problem: &Problem) -> Vec<Vec<u32>> {
    let forwards_first = |tasks: &Vec<u32>| {
        let of = |forward: bool| {
            let kind = move |&&t: &&u32| (problem.kind[t as usize] == TaskKind::Forward) == forward;
            tasks.iter().filter(kind).copied()
        };
        of(true).chain(of(false)).collect()
    };
    problem.by_rank.iter().map(forwards_first).collect()
}
