//! The result of a check in readable form.

use std::fmt;

use crate::plan::plan::Plan;
use crate::plan::violation::Violation;
use crate::spec::{Bytes, Seconds};

/// The result of checking the text of a plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CheckReport {
    /// The figures of the plan, if it has no violations.
    pub summary: Option<PlanSummary>,
    /// The violations.
    pub violations: Vec<Violation>,
    /// True if there are more violations than are listed.
    pub truncated: bool,
}

impl CheckReport {
    /// True if the plan has no violations.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

/// The figures of a valid plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlanSummary {
    /// Name of the model.
    pub model: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the schedule.
    pub schedule: String,
    /// Number of pipeline ranks.
    pub ranks: u32,
    /// Number of tasks.
    pub tasks: usize,
    /// End of the last task.
    pub makespan: Seconds,
    /// Share of rank time in which no stage runs.
    pub bubble_ratio: f64,
    /// Proven lower bound on the makespan.
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

/// One violation per line, or one line that starts with `OK: `.
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
