//! The runs that reports show.

use dip_core::{Plan, Seconds, Trace};

/// A plan and one run of it, as a report shows it.
#[derive(Debug, Clone, Copy)]
pub struct TimelineRun<'a> {
    /// What it is, such as `planned` or `measured`.
    pub label: &'a str,
    /// The plan.
    pub plan: &'a Plan,
    /// Its run, in virtual or in real time.
    pub trace: &'a Trace,
    /// When the iteration ended, gradient sums and optimiser included; `None` if that is not known.
    pub end: Option<Seconds>,
}

impl TimelineRun<'_> {
    /// The end of the last stage.
    pub(super) fn last_end(&self) -> Seconds {
        self.trace.spans.iter().map(|s| s.end).fold(Seconds::ZERO, Seconds::max)
    }
}

/// The names of the modules of all runs, in order of appearance.
pub fn modules<'a>(runs: &[TimelineRun<'a>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for task in runs.iter().flat_map(|run| &run.plan.graph.tasks) {
        if !names.contains(&&*task.module) {
            names.push(&task.module);
        }
    }
    names
}
