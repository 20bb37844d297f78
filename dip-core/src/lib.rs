//! The vocabulary of dip: what is trained, what a plan is, and when a plan is right.
//!
//! ```text
//! ModelSpec + ClusterSpec + BatchMeta -> Partition, BatchSplit -> TaskGraph -> Plan -> action lists -> Trace
//! ```
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`CostModel`] | seconds and bytes of a stage | plan for other hardware or another model |
//! | [`Modality`] | instances, work and weights of a module | plan another modality |
//! | [`Schedule`] | a [`Plan`] for a [`TaskGraph`] | compare and run your own schedule |
//! | [`Stage`] | forward and backward of one model chunk | train your own model |
//! | [`PlanSource`] | plans ahead of training | plan elsewhere, or replay plans |
//! | [`RankHost`], [`Link`] | a rank's chunks and clock; how payloads move | add a backend or a transport |
//! | [`Executor`] | a [`Trace`] for a [`Plan`] | run plans elsewhere |
//!
//! This crate has no I/O, no clock, no threads and no random numbers.

mod cost;
mod exec;
pub mod hf;
mod plan;
mod spec;

pub use cost::{
    ChunkQuery, CostError, CostModel, LayerStrategy, OperatorProfile, OperatorShape, OperatorTime,
    StageCost, StageQuery, Strategy,
    profile::{self, Profile},
};
pub use exec::{
    Action, ExecError, Executor, Interpreter, Link, LinkError, Message, Program, RankHost,
    RankProgram, RankProgress, Received, Span, Stage, StageCall, StageError, TaskCall, TaskOutput,
    Trace, TraceError, compile,
};
pub use plan::{
    BatchSplit, Budget, BuildError, Candidate, CheckReport, Chunk, CsvError, Dep, Environment,
    FormatError, GRAPH_SCHEMA, GraphInput, MAX_RANKS, MAX_TASKS, MAX_TEXT_BYTES, MAX_VIOLATIONS,
    ModulePartition, PLAN_SCHEMA, Pair, PairKey, Partition, Placement, Plan, PlanError, PlanSource,
    PlanSummary, PlannedBatch, Prediction, Schedule, ScheduleError, SearchProgress, TOLERANCE,
    Task, TaskGraph, TaskKind, Timeline, TimelineError, Violation, ViolationClass, ViolationCode,
    build_graph, check_graph, check_plan, check_plan_json, order_from_csv, order_to_csv,
};
pub use spec::{
    AUDIO_KERNEL, Activation, AttentionBias, AudioSpec, BatchMeta, Bytes, ClipMeta, ClusterSpec,
    DecoderSpec, DeviceSpec, DitSpec, Factors, FieldError, Filling, Flops, InstanceSpace,
    LayerOptions, LinkSpec, Lora, LoraTarget, MEL_BANDS, MicrobatchId, MicrobatchMeta, Modality,
    ModelSpec, ModuleId, ModuleKind, ModuleParameters, ModuleSlice, ModuleSpec, OtherModality,
    Parallelism, RankId, Rope, RopeScaling, STEP_EMBEDDING, Seconds, SegmentId, SpecError,
    SubMicrobatchId, TaskId, Tower, VitSpec, Workload, causal_block_pairs, causal_blocks,
    from_json, from_toml, presets,
};
