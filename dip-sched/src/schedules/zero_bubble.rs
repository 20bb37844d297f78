//! Zero bubble (ZB-H1): weight gradients are split off and run later, where the pipeline would wait.

use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::plan_wishes;
use super::units::{rank_positions, units};
use crate::problem::Problem;

/// ZB-H1: 1F1B whose weight tasks are put off by as many microbatches as there are ranks before, so that every rank holds
/// as many as the first one does under 1F1B. Without weight tasks in the graph it is 1F1B.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroBubble;

impl Schedule for ZeroBubble {
    fn name(&self) -> &str {
        "zero_bubble"
    }

    fn description(&self) -> &str {
        "1F1B with weight gradients put off (ZB-H1)"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 1 }
    }

    fn splits_weights(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_wishes(self.name(), graph, env, wishes)
    }
}

/// Weight tasks put off, and not.
pub(super) fn wishes(problem: &Problem) -> Vec<Vec<Vec<u32>>> {
    vec![wish(problem, true), wish(problem, false)]
}

/// The wish of every rank, with weight tasks put off or not.
fn wish(problem: &Problem, put_off: bool) -> Vec<Vec<u32>> {
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
            let delay = if put_off { position } else { 0 };
            forwards[..ahead].iter().for_each(|f| list.extend(f));
            for (k, backward) in backwards.iter().enumerate() {
                list.extend(backward);
                if let Some(w) = k.checked_sub(delay).and_then(|k| weights.get(k)) {
                    list.extend(w);
                }
                if let Some(f) = forwards.get(k + ahead) {
                    list.extend(f);
                }
            }
            weights[u.microbatches.saturating_sub(delay)..].iter().for_each(|w| list.extend(w));
            list
        })
        .collect()
}
