//! DualPipeV: DeepSeek's DualPipe, cut in half so that no parameters are held twice.

use std::collections::VecDeque;

use dip_core::TaskKind::{Backward, Forward, Weight};
use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::step::{Step, StepWriter};

/// DualPipeV, for at least twice as many microbatches as ranks. A forward and the backward that DualPipe overlaps with it run one
/// after the other, because a rank runs one task at a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct DualPipeV;

impl Schedule for DualPipeV {
    fn name(&self) -> &str {
        "dualpipe_v"
    }

    fn description(&self) -> &str {
        "DualPipe cut in half: a wave of two chunks per rank"
    }

    fn placement(&self) -> Placement {
        super::PLACEMENT
    }

    fn splits_weights(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        super::plan(self.name(), graph, env, steps)
    }
}

/// The steps of every rank.
pub(super) fn steps(ranks: usize, microbatches: usize) -> Result<Vec<Vec<Step>>, String> {
    if microbatches < 2 * ranks {
        return Err(format!(
            "{microbatches} microbatches are fewer than two for each of {ranks} ranks"
        ));
    }
    Ok((0..ranks).map(|position| rank_steps(ranks, position, microbatches)).collect())
}

fn rank_steps(ranks: usize, position: usize, microbatches: usize) -> Vec<Step> {
    let (until_here, after) = (position + 1, ranks - 1 - position);
    let mut steps = StepWriter::default();
    // Visits whose weight gradients wait.
    let mut waiting = VecDeque::new();
    for _ in 0..2 * after {
        steps.push(Forward, 0);
    }
    for _ in 0..until_here {
        steps.push(Forward, 0);
        steps.push(Forward, 1);
    }
    for _ in 0..after {
        steps.whole_backward(1);
        steps.push(Forward, 1);
    }
    for _ in 0..microbatches - 2 * ranks + until_here {
        steps.push(Forward, 0);
        steps.whole_backward(1);
        steps.push(Forward, 1);
        steps.whole_backward(0);
    }
    for _ in 0..after {
        steps.whole_backward(1);
        steps.push(Forward, 1);
        steps.whole_backward(0);
    }
    // The second half of the last backwards comes without weight gradients, from the middle of a pair on odd ranks.
    for pair in 0..until_here {
        for visit in [1, 0] {
            let half = 2 * (until_here / 2) + usize::from(position.is_multiple_of(2));
            let delayed = 2 * pair + 1 - visit >= half;
            steps.push(Backward, visit);
            if delayed {
                waiting.push_back(visit);
            } else {
                steps.push(Weight, visit);
            }
        }
    }
    for _ in 0..after {
        if let Some(visit) = waiting.pop_front() {
            steps.push(Weight, visit);
        }
        steps.push(Backward, 0);
        waiting.push_back(0);
    }
    for visit in waiting {
        steps.push(Weight, visit);
    }
    steps.steps
}
