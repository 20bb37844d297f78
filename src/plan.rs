//! Everything for planning: models, clusters and batches, and plans for them. It needs no Burn and no GPU.

#[cfg(feature = "schema")]
pub use dip_core::schema;
pub use dip_core::{
    Activation, AttentionBias, AudioProjector, AudioSpec, BatchMeta, BatchSplit, Budget,
    BuildError, Bytes, Candidate, CheckReport, Chunk, ChunkQuery, ClipMeta, ClusterSpec, CostError,
    CostModel, CsvError, CsvOrder, DecoderSpec, Dep, DeviceSpec, DitSpec, Environment, Factors,
    FieldError, Flops, FormatError, GraphInput, InstanceSpace, LayerOptions, LayerStrategy,
    LinkSpec, Lora, LoraTarget, MAX_WINDOW, MicrobatchId, MicrobatchMeta, Modality, ModelSpec,
    ModuleId, ModuleKind, ModuleParameters, ModulePartition, ModuleSlice, ModuleSpec,
    OperatorProfile, OperatorShape, OperatorTime, OtherModality, Pair, PairKey, Parallelism,
    Partition, Placement, Plan, PlanError, PlanJudge, PlanSource, PlanSummary, PlannedBatch,
    Prediction, Profile, QueryKeyNorm, RankId, Rope, RopeScaling, Route, Schedule, ScheduleError,
    SearchProgress, Seconds, SegmentId, SpecError, StageCost, StageQuery, StepFigures, Strategy,
    SubMicrobatchId, T5Spec, Task, TaskGraph, TaskId, TaskKind, Timeline, TimelineError, Tower,
    Violation, ViolationCode, VitSpec, WanSpec, Workload, build_graph, check_graph, check_plan,
    check_plan_json, closest, did_you_mean, hf, order_from_csv, order_to_csv, presets, profile,
};
pub use dip_sched::{
    BatchPlanner, Dip, DynaPipe, Exact, GPipe, Interleaved, MicrobatchLoads, OneFOneB, Optimus,
    PartitionError, Partitioner, PlacementError, PlacementSearch, PlannerConfig, PlannerStats,
    Planning, Reordered, ZeroBubble, assign_microbatches, fastest_planning, follow_order,
    lower_bound, routed_partitions, schedule_by_name, schedule_names, schedules, split_batch,
    systems, validate_partition,
};
