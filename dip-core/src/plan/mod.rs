//! Plans: partitions, task graphs, schedules, timelines, the checker, and the files that hold them.
//!
//! ```text
//! Partition + BatchSplit -> TaskGraph -> Schedule -> Plan -> Timeline, checker, JSON, CSV
//! ```

mod build;
mod check;
mod csv;
mod draft;
mod findings;
mod forward;
mod graph;
mod judge;
mod partition;
#[expect(clippy::module_inception, reason = "the room is named for its main type")]
mod plan;
mod schedule;
mod step;
mod timeline;
mod violation;
mod wire;

pub use build::{BuildError, GraphInput, build_graph};
pub use check::{CheckReport, PlanSummary, TOLERANCE, check_graph, check_plan};
pub use csv::{CsvError, CsvOrder, order_from_csv, order_to_csv};
pub use forward::{ForwardInput, forward_plan};
#[cfg(feature = "schema")]
pub(crate) use graph::GraphFile;
pub use graph::{
    Candidate, Dep, GRAPH_SCHEMA, MAX_RANKS, MAX_TASKS, Pair, PairKey, Task, TaskGraph, TaskKind,
};
pub use judge::PlanJudge;
pub use partition::{BatchSplit, Chunk, ModulePartition, Partition, Placement, Route};
#[cfg(feature = "schema")]
pub(crate) use plan::PlanFile;
pub use plan::{MAX_WINDOW, PLAN_SCHEMA, Plan};
pub use schedule::{Budget, Environment, Schedule, ScheduleError, SearchProgress};
pub use step::StepFigures;
pub use timeline::{Prediction, Timeline, TimelineError};
pub use violation::{MAX_VIOLATIONS, Violation, ViolationClass, ViolationCode};
pub use wire::{FormatError, MAX_TEXT_BYTES, check_plan_json};
