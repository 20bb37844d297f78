//! ZB-V (Zero Bubble Pipeline Parallelism, section 6).

use dip_core::TaskKind::{Backward, Forward, Weight};
use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::step::{Step, StepWriter};

/// ZB-V: if forwards, backwards and weight gradients take equally long, ranks wait only while the pipeline fills. Every rank holds
/// at most as many microbatches as there are ranks, as the first rank does under 1F1B.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zbv;

impl Schedule for Zbv {
    fn name(&self) -> &str {
        "zbv"
    }

    fn description(&self) -> &str {
        "zero bubble on a wave of two chunks per rank (ZB-V)"
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

/// The steps of every rank. With fewer microbatches than fill the pipeline, the missing ones are left out.
pub(super) fn steps(ranks: usize, microbatches: usize) -> Result<Vec<Vec<Step>>, String> {
    let filled = microbatches.max(2 * ranks - 1);
    let of_rank = |position: usize| {
        let mut steps = rank_steps(ranks, position, filled);
        steps.retain(|step| step.microbatch < microbatches);
        steps
    };
    Ok((0..ranks).map(of_rank).collect())
}

fn rank_steps(ranks: usize, position: usize, microbatches: usize) -> Vec<Step> {
    let (before, from_here) = (position, ranks - position);
    let mut steps = StepWriter::default();
    // Forwards until the first microbatch comes back.
    for _ in 0..2 * from_here - 1 {
        steps.push(Forward, 0);
    }
    for _ in 0..before {
        steps.push(Forward, 1);
        steps.push(Forward, 0);
    }
    for _ in 0..from_here {
        steps.push(Forward, 1);
        steps.whole_backward(1);
    }
    // One forward, one backward, in turn on both visits.
    while steps.count(Forward, 1) < microbatches {
        if steps.count(Forward, 0) < microbatches {
            steps.push(Forward, 0);
        }
        steps.whole_backward(0);
        steps.push(Forward, 1);
        steps.whole_backward(1);
    }
    // Weight gradients wait until ranks before this one have their backwards.
    for _ in 0..before {
        steps.push(Backward, 0);
        steps.push(Backward, 1);
    }
    for _ in 0..from_here {
        steps.whole_backward(0);
    }
    for visit in [1, 0] {
        while steps.count(Weight, visit) < microbatches {
            steps.push(Weight, visit);
        }
    }
    steps.steps
}
