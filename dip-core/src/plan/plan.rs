//! The execution plan `dip.plan/v1`. The emulator evaluates it and the trainer runs it.

use serde::Serialize;

use crate::plan::graph::{Task, TaskGraph};
use crate::plan::step::StepFigures;
use crate::plan::timeline::{Prediction, Timeline, TimelineError};
use crate::spec::{Bytes, Seconds, TaskId};

/// The schema name of a plan file.
pub const PLAN_SCHEMA: &str = "dip.plan/v1";

/// A task graph with an order for every rank, and the predicted figures of that order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The stages. Each pair has the durations and bytes of its strategy.
    pub graph: TaskGraph,
    /// Name of the schedule that made it.
    pub schedule: String,
    /// The tasks of each rank in the order of execution.
    pub order: Vec<Vec<TaskId>>,
    /// The result of the timeline semantics for this order.
    pub predicted: Prediction,
    /// Proven lower bound: no valid plan of this graph is faster.
    pub lower_bound_s: Seconds,
    /// Number of the next tasks in its order among which a rank may choose while the first of them waits for an input; 1 keeps
    /// the order. The predicted times are those of the order.
    pub window: u32,
    /// The step around the plan, for reports; absent if only the graph is known.
    pub step: Option<StepFigures>,
}

/// Maximum of [`Plan::window`].
pub const MAX_WINDOW: u32 = 1 << 16;

impl Plan {
    /// Makes a plan from an order. Runs the timeline semantics for the predicted figures.
    ///
    /// # Errors
    /// [`TimelineError`] if the order deadlocks or does not cover the graph.
    pub fn new(
        graph: TaskGraph,
        schedule: impl Into<String>,
        order: Vec<Vec<TaskId>>,
        lower_bound_s: Seconds,
    ) -> Result<Self, TimelineError> {
        let predicted = Timeline::evaluate(&graph, &order)?.into_prediction(&graph);
        Ok(Self {
            graph,
            schedule: schedule.into(),
            order,
            predicted,
            lower_bound_s,
            window: 1,
            step: None,
        })
    }

    /// Distance of the makespan from the lower bound, relative to the bound: 0.01 is one per cent.
    pub fn gap(&self) -> f64 {
        let bound = self.lower_bound_s.0;
        if bound > 0.0 { self.predicted.makespan_s.0 / bound - 1.0 } else { 0.0 }
    }

    /// Writes `dip.plan/v1`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&PlanFile {
            schema: PLAN_SCHEMA,
            model: &self.graph.model,
            cluster: &self.graph.cluster,
            schedule: &self.schedule,
            ranks: self.graph.ranks,
            memory_limit_bytes: &self.graph.memory_limit_bytes,
            static_bytes: &self.graph.static_bytes,
            tasks: &self.graph.tasks,
            order: &self.order,
            predicted: &self.predicted,
            lower_bound_s: self.lower_bound_s,
            window: self.window,
            step: self.step,
        })
        .expect("plain data has a JSON form")
    }
}

/// The file of a plan, `dip.plan/v1`.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct PlanFile<'a> {
    /// `dip.plan/v1`.
    schema: &'static str,
    /// Model name, for reports.
    model: &'a str,
    /// Cluster name, for reports.
    cluster: &'a str,
    /// What made the plan.
    schedule: &'a str,
    /// Number of pipeline ranks.
    ranks: u32,
    /// Memory limit of each rank.
    memory_limit_bytes: &'a [Bytes],
    /// Weights, gradients, optimiser state and the largest working set of each rank.
    static_bytes: &'a [Bytes],
    /// The stages; each has its index as its id.
    tasks: &'a [Task],
    /// The tasks of each rank in the order of execution.
    order: &'a [Vec<TaskId>],
    /// The times and the memory of this order.
    predicted: &'a Prediction,
    /// No plan of the graph is faster.
    lower_bound_s: Seconds,
    /// Number of next stages among which a waiting rank may choose; absent for 1.
    #[serde(skip_serializing_if = "is_one")]
    window: u32,
    /// The step around the plan, for reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepFigures>,
}

fn is_one(window: &u32) -> bool {
    *window == 1
}
