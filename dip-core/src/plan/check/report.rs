//! The outcome of a check, for people to read.

use std::fmt;

use crate::plan::plan::Plan;
use crate::plan::violation::Violation;
use crate::spec::{Bytes, Seconds};

/// The outcome of checking the text of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckReport {
    /// The figures of the plan, where nothing is wrong with it.
    pub summary: Option<PlanSummary>,
    /// Everything that is wrong with it.
    pub violations: Vec<Violation>,
    /// Whether there are more violations than are listed.
    pub truncated: bool,
}

impl CheckReport {
    /// Whether the plan is right.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

/// The figures of a plan that is right.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSummary {
    /// Model.
    pub model: String,
    /// Cluster.
    pub cluster: String,
    /// Schedule.
    pub schedule: String,
    /// Pipeline ranks.
    pub ranks: u32,
    /// Number of tasks.
    pub tasks: usize,
    /// End of the last task.
    pub makespan: Seconds,
    /// Share of rank time in which nothing runs.
    pub bubble_ratio: f64,
    /// Proven lower bound of the makespan.
    pub lower_bound: Seconds,
    /// The largest peak of all ranks.
    pub peak: Bytes,
}

impl PlanSummary {
    pub(crate) fn of(plan: Plan) -> Self {
        Self {
            ranks: plan.graph.ranks,
            tasks: plan.graph.tasks.len(),
            makespan: plan.predicted.makespan_s,
            bubble_ratio: plan.predicted.bubble_ratio,
            lower_bound: plan.lower_bound_s,
            peak: plan.predicted.peak_bytes.into_iter().max().unwrap_or_default(),
            model: plan.graph.model,
            cluster: plan.graph.cluster,
            schedule: plan.schedule,
        }
    }
}

impl fmt::Display for PlanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, cluster, schedule, ranks, tasks, .. } = self;
        write!(f, "{schedule} plan of {model} on {cluster}: {tasks} tasks on {ranks} ranks, ")?;
        write!(f, "makespan {} (bound {}), ", self.makespan, self.lower_bound)?;
        write!(f, "bubble {:.1} %, peak {}", 100.0 * self.bubble_ratio, self.peak)
    }
}

/// One violation a line, or one line that begins with `OK: `.
impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(summary) = &self.summary {
            return write!(f, "OK: {summary}");
        }
        for (i, violation) in self.violations.iter().enumerate() {
            write!(f, "{}{violation}", if i == 0 { "" } else { "\n" })?;
        }
        if self.truncated { write!(f, "\nand more, which are not listed") } else { Ok(()) }
    }
}
