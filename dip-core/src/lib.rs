//! The vocabulary of dip: what is trained, what a plan is, and when a plan is right.
//!
//! ```text
//! ModelSpec + ClusterSpec + BatchMeta -> Partition, BatchSplit -> TaskGraph -> Plan -> action lists -> Trace
//! ```
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`CostModel`] | seconds and bytes of a stage | plan for other hardware or another model |
//! | [`Schedule`] | a [`Plan`] for a [`TaskGraph`] | compare and run your own schedule |
//! | [`Stage`] | forward and backward of one model chunk | train your own model |
//! | [`PlanSource`] | plans ahead of training | plan elsewhere, or replay plans |
//! | [`RankHost`], [`Link`] | a rank's chunks and clock; how payloads move | add a backend or a transport |
//! | [`Executor`] | a [`Trace`] for a [`Plan`] | run plans elsewhere |
//!
//! This crate has no I/O, no clock, no threads and no random numbers.

pub mod batch;
pub mod build;
pub mod check;
pub mod cluster;
pub mod cost;
pub mod csv;
pub mod error;
pub mod exec;
pub mod graph;
pub mod hf;
pub mod ids;
pub mod model;
pub mod operator;
pub mod parameters;
pub mod partition;
pub mod plan;
pub mod presets;
pub mod profile;
pub mod schedule;
pub mod source;
pub mod timeline;
pub mod trace;
pub mod units;
pub mod wire;
pub mod workload;

pub use batch::{BatchMeta, ClipMeta, MicrobatchMeta};
pub use build::{BuildError, GraphInput, build_graph};
pub use check::{CheckReport, Violation, ViolationCode, check_graph, check_plan, check_plan_json};
pub use cluster::{ClusterSpec, DeviceSpec, Factors, LinkSpec};
pub use cost::{ChunkQuery, CostError, CostModel, LayerStrategy, StageCost, StageQuery, Strategy};
pub use csv::{CsvError, order_from_csv, order_to_csv};
pub use error::SpecError;
pub use exec::{
    Action, ExecError, Executor, Interpreter, Link, LinkError, Message, Program, RankHost,
    Received, Stage, StageCall, StageError, compile,
};
pub use graph::{Candidate, Dep, Pair, PairKey, Task, TaskGraph, TaskKind};
pub use ids::{MicrobatchId, ModuleId, RankId, SegmentId, SubMicrobatchId, TaskId};
pub use model::{
    Activation, AttentionBias, LayerOptions, Lora, LoraTarget, ModelSpec, ModuleKind, ModuleSpec,
    Parallelism, Rope, RopeStretch, Tower,
};
pub use operator::{OperatorProfile, OperatorShape, OperatorTime};
pub use parameters::ModuleParameters;
pub use partition::{BatchSplit, Chunk, ModulePartition, Partition};
pub use plan::{Plan, Prediction};
pub use profile::Profile;
pub use schedule::{Budget, Environment, Progress, Schedule, ScheduleError};
pub use source::{PlanError, PlanSource, PlannedBatch};
pub use timeline::{Timeline, TimelineError};
pub use trace::{Span, Trace};
pub use units::{Bytes, Flops, Seconds};
pub use wire::FormatError;
pub use workload::{InstanceSpace, Workload, causal_block_pairs, causal_blocks};
