//! Schedules by name.

use dip_core::Schedule;

use crate::partition::Placement;
use crate::schedules::{Dip, Exact, GPipe, Interleaved, OneFOneB, Optimus, Reordered, ZeroBubble};

/// Name and one-line description of every schedule.
const SCHEDULES: &[(&str, &str)] = &[
    (
        "dip",
        "searched for every batch: priorities, dual-queue interleaving, memory strategies; the default",
    ),
    ("exact", "branch and bound, proven optimal for a few dozen tasks"),
    ("dip-mcts", "the paper's search: Monte-Carlo tree search over segment groups"),
    ("dip-local", "the paper's search with local search in place of the tree"),
    ("dip-random", "the paper's search with random sequences"),
    ("dip-dfs", "the paper's search with sequences in depth-first order"),
    ("gpipe", "all forwards, then all backwards"),
    ("1f1b", "one forward, one backward, a stage a rank"),
    ("interleaved", "1F1B over several chunks a rank (virtual pipeline)"),
    ("zero_bubble", "1F1B with weight gradients put off (ZB-H1)"),
    ("optimus", "encoder forwards first, encoder backwards last, backbone interleaved"),
];

/// The schedule of that name.
///
/// ```
/// let schedule = dip_sched::schedule_by_name("1f1b").unwrap();
/// assert_eq!(schedule.name(), "1f1b");
/// assert!(dip_sched::schedule_by_name("2f2b").is_none());
/// ```
pub fn schedule_by_name(name: &str) -> Option<Box<dyn Schedule>> {
    Some(match name {
        "dip" => Box::new(Dip),
        "exact" => Box::new(Exact),
        "dip-mcts" => Box::new(Reordered::Mcts),
        "dip-local" => Box::new(Reordered::Local),
        "dip-random" => Box::new(Reordered::Random),
        "dip-dfs" => Box::new(Reordered::DepthFirst),
        "gpipe" => Box::new(GPipe),
        "1f1b" => Box::new(OneFOneB),
        "interleaved" => Box::new(Interleaved),
        "zero_bubble" => Box::new(ZeroBubble),
        "optimus" => Box::new(Optimus),
        _ => return None,
    })
}

/// The placement of layers that a schedule is meant for: the baselines cut the model into contiguous runs.
pub fn placement(schedule: &str) -> Placement {
    match schedule {
        "gpipe" | "1f1b" | "zero_bubble" => Placement::Contiguous { runs_per_rank: 1 },
        "interleaved" => Placement::Contiguous { runs_per_rank: 2 },
        _ => Placement::ModalityAware,
    }
}

/// Whether a schedule searches plans of a whole run's batches, so that how the model is cut may follow what it finds.
pub(crate) fn searches(schedule: &str) -> bool {
    schedule.starts_with("dip")
}

/// Whether a schedule places weight gradients freely, so that splitting them off the backward can pay.
pub fn splits_weights(schedule: &str) -> bool {
    matches!(schedule, "zero_bubble" | "exact") || searches(schedule)
}

/// How many times the segments of the paper's rule a schedule does best with, unless batches tell otherwise: with twice as many
/// the pipeline fills and drains in half the time, and a search makes shorter plans of them on most models of the paper, longer
/// ones on none. `exact` is for few tasks and keeps to the rule.
pub fn finer_segments(schedule: &str) -> u32 {
    if searches(schedule) { 2 } else { 1 }
}

/// Names of all schedules, the default first.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCHEDULES.iter().map(|s| s.0)
}

/// Name and one-line description of all schedules, the default first.
pub fn descriptions() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCHEDULES.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_schedule_is_there_under_its_own_name() {
        for name in names() {
            let schedule = schedule_by_name(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(schedule.name(), name);
        }
    }
}
