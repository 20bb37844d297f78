//! Plans: partitions, task graphs, schedules, timelines, the checker, and the files that hold them.
//!
//! ```text
//! Partition + BatchSplit -> TaskGraph -> Schedule -> Plan -> Timeline, checker, JSON, CSV
//! ```

mod build;
mod check;
mod csv;
mod graph;
mod partition;
#[expect(clippy::module_inception, reason = "the room is named for its main type")]
mod plan;
mod schedule;
mod source;
mod timeline;
mod wire;

pub use build::{BuildError, GraphInput, build_graph};
pub use check::{
    CheckReport, MAX_VIOLATIONS, PlanSummary, TOLERANCE, Violation, ViolationClass, ViolationCode,
    check_graph, check_plan, check_plan_json,
};
pub use csv::{CsvError, order_from_csv, order_to_csv};
pub use graph::{
    Candidate, Dep, GRAPH_SCHEMA, MAX_RANKS, MAX_TASKS, Pair, PairKey, Task, TaskGraph, TaskKind,
};
pub use partition::{BatchSplit, Chunk, ModulePartition, Partition, Placement};
pub use plan::{PLAN_SCHEMA, Plan, Prediction};
pub use schedule::{Budget, Environment, Progress, Schedule, ScheduleError};
pub use source::{PlanError, PlanSource, PlannedBatch};
pub use timeline::{Timeline, TimelineError};
pub use wire::{FormatError, MAX_TEXT_BYTES};
