//! The vocabulary of dip: specifications, costs, plans, the checker and the interpreter of plans.
//!
//! ```text
//! ModelSpec + ClusterSpec + BatchMeta -> Partition, BatchSplit -> TaskGraph -> Plan -> action lists -> Trace
//! ```
//!
//! | module | holds | uses |
//! |---|---|---|
//! | `spec` | ids, units, models, clusters, batches, presets | |
//! | `cost` | the cost model, memory strategies, measured profiles | `spec` |
//! | `plan` | partition, task graph, schedule, plan, timeline, checker, JSON and CSV files | `cost` |
//! | `exec` | action lists, their interpreter, traces | `plan` |
//! | [`hf`] | models from a `config.json` of Hugging Face | `spec` |
//!
//! Everything else is re-exported here by name. Implement these traits to extend dip:
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`CostModel`] | seconds and bytes of a stage | plan for other hardware or another model |
//! | [`Modality`] | instances, work and weights of a module | plan another modality |
//! | [`Schedule`] | a [`Plan`] for a [`TaskGraph`] | compare and run your own schedule |
//! | [`Stage`] | forward and backward of one model chunk | train your own kernels |
//! | [`PlanSource`] | plans of coming batches | plan in another process, or replay plans |
//! | [`PlanJudge`] | the expected makespan of a plan | have a search keep plans that are best in practice |
//! | [`RankHost`], [`Link`] | the chunks and clock of a rank; a transport between ranks | add a backend or a transport |
//! | [`Executor`] | a [`Trace`] for a [`Plan`] | run plans on another system |
//!
//! [`check_plan`] lists every violation of a plan, and [`compile`] turns a valid plan into action lists that an
//! [`Interpreter`] runs. This crate has no I/O, no clock, no threads and no random numbers.

mod cost;
mod exec;
pub mod hf;
mod plan;
#[cfg(feature = "schema")]
pub mod schema;
mod spec;

pub use cost::{
    ChunkQuery, CostError, CostModel, LayerStrategy, OperatorProfile, OperatorShape, OperatorTime,
    StageCost, StageQuery, Strategy,
    profile::{self, Profile},
};
pub use exec::{
    Action, ExecError, Executor, Interpreter, Link, LinkError, MeasuredIteration, Message,
    PlanError, PlanSource, PlannedBatch, Program, RankHost, RankProgram, RankProgress, Received,
    Span, Stage, StageCall, StageError, TRACE_SCHEMA, TaskCall, TaskOutput, Trace, TraceError,
    TraceFile, TraceFileError, compile,
};
pub use plan::{
    BatchSplit, Budget, BuildError, Candidate, CheckReport, Chunk, CsvError, CsvOrder, Dep,
    Environment, FormatError, ForwardInput, GRAPH_SCHEMA, GraphInput, MAX_RANKS, MAX_TASKS,
    MAX_TEXT_BYTES, MAX_VIOLATIONS, MAX_WINDOW, ModulePartition, PLAN_SCHEMA, Pair, PairKey,
    Partition, Placement, Plan, PlanJudge, PlanSummary, Prediction, Route, Schedule, ScheduleError,
    SearchProgress, StepFigures, TOLERANCE, Task, TaskGraph, TaskKind, Timeline, TimelineError,
    Violation, ViolationClass, ViolationCode, build_graph, check_graph, check_plan,
    check_plan_json, forward_plan, order_from_csv, order_to_csv,
};
pub use spec::{
    AUDIO_KERNEL, Activation, AttentionBias, AttentionWindow, AudioProjector, AudioSpec, BatchMeta,
    Bytes, ClipMeta, ClusterSpec, DecoderSpec, DeviceSpec, DitSpec, Factors, FieldError, Filling,
    Flops, ImageSize, Images, InstanceLoads, InstanceSpace, LayerOptions, LinkSpec, Lora,
    LoraTarget, MicrobatchId, MicrobatchMeta, Modality, ModelSpec, ModuleId, ModuleKind,
    ModuleParameters, ModuleSlice, ModuleSpec, NormKind, OtherModality, Parallelism, PixelRange,
    QueryKeyNorm, RankId, Rope, RopeScaling, STEP_EMBEDDING, Seconds, SegmentId, SpecError,
    SubMicrobatchId, T5Spec, TaskId, TileSpec, Tower, VitSpec, WanSpec, WindowSpec, Workload,
    YarnScaling, causal_block_pairs, causal_blocks, closest, did_you_mean, from_json, from_toml,
    name_covers, part_covers, presets,
};

/// The Rust of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
