//! 1F1B: a rank keeps as many microbatches in flight as there are ranks from it to the end of the pipeline.

use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::plan_wishes;
use super::units::{rank_positions, units};
use crate::problem::Problem;

/// One forward, one backward (PipeDream-flush): warm-up, steady alternation, cool-down.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneFOneB;

impl Schedule for OneFOneB {
    fn name(&self) -> &str {
        "1f1b"
    }

    fn description(&self) -> &str {
        "one forward, one backward, a stage a rank"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 1 }
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_wishes(self.name(), graph, env, |problem| vec![wish(problem)])
    }
}

pub(super) fn wish(problem: &Problem) -> Vec<Vec<u32>> {
    let positions = rank_positions(problem);
    units(problem, false)
        .iter()
        .zip(positions)
        .map(|(u, position)| {
            let mut list = Vec::new();
            let Some(((forwards, backwards), weights)) =
                u.forwards.first().zip(u.backwards.first()).zip(u.weights.first())
            else {
                return list;
            };
            let ahead = (problem.ranks - position).min(u.microbatches);
            forwards[..ahead].iter().for_each(|f| list.extend(f));
            for k in 0..u.microbatches {
                list.extend(&backwards[k]);
                list.extend(&weights[k]);
                if let Some(f) = forwards.get(k + ahead) {
                    list.extend(f);
                }
            }
            list
        })
        .collect()
}
