//! The fields of `dip.graph/v1` and `dip.plan/v1`.

use super::decoder::{Array, DocumentDecoder, Field, shortened};
use super::reader::Syntax;
use crate::cost::Strategy;
use crate::plan::draft::{
    DocumentDraft, ListDraft, PlanDraft, StepDraft, TaskDraft, too_many_tasks,
};
use crate::plan::graph::{Candidate, Dep, MAX_TASKS, TaskKind};
use crate::plan::violation::ViolationCode;
use crate::spec::{
    Bytes, MicrobatchId, Parallelism, RankId, Seconds, SegmentId, SubMicrobatchId, TaskId,
};

/// Declares the fields of an object as an enum, so that every field is matched by name.
macro_rules! fields {
    ($(#[$doc:meta])+ $name:ident { $($variant:ident = $text:literal, $presence:ident;)+ }) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum $name {
            $($variant,)+
        }

        impl $name {
            const FIELDS: &[Field<Self>] = &[
                $(Field { field: Self::$variant, name: $text, required: fields!($presence) },)+
            ];
        }
    };
    (required) => { true };
    (optional) => { false };
}

fields! {
    /// Fields of a plan. A graph has those of [`DocumentField::in_graph`].
    DocumentField {
        Schema = "schema", required;
        Model = "model", required;
        Cluster = "cluster", required;
        Schedule = "schedule", required;
        Ranks = "ranks", required;
        MemoryLimit = "memory_limit_bytes", required;
        StaticBytes = "static_bytes", required;
        Tasks = "tasks", required;
        Order = "order", required;
        Predicted = "predicted", required;
        LowerBound = "lower_bound_s", required;
        Window = "window", optional;
        Step = "step", optional;
    }
}

fields! {
    /// Fields of a task.
    TaskField {
        Id = "id", required;
        Rank = "rank", required;
        Kind = "kind", required;
        Module = "module", required;
        Segment = "segment", required;
        Microbatch = "microbatch", required;
        SubMicrobatch = "sub_microbatch", required;
        Duration = "duration_s", required;
        ActivationBytes = "activation_bytes", required;
        Strategy = "strategy", required;
        Deps = "deps", required;
        Candidates = "candidates", optional;
    }
}

fields! {
    /// Fields of a dependency.
    DepField {
        Task = "task", required;
        Comm = "comm_s", required;
    }
}

fields! {
    /// Fields of a candidate strategy.
    CandidateField {
        Strategy = "strategy", required;
        Forward = "forward_s", required;
        Backward = "backward_s", required;
        ActivationBytes = "activation_bytes", required;
    }
}

fields! {
    /// Fields of the prediction.
    PredictedField {
        Makespan = "makespan_s", required;
        Start = "start_s", required;
        End = "end_s", required;
        PeakBytes = "peak_bytes", required;
        BubbleRatio = "bubble_ratio", required;
    }
}

fields! {
    /// Fields of the step.
    StepField {
        Parallel = "parallel", required;
        Tokens = "tokens", required;
        Flops = "flops", required;
        DeviceFlops = "device_flops_per_s", required;
        Reduction = "reduction_s", required;
        Update = "update_s", required;
        Gather = "gather_s", required;
    }
}

fields! {
    /// Fields of the degrees of parallelism.
    ParallelField {
        Data = "data", required;
        Tensor = "tensor", required;
        Pipeline = "pipeline", required;
    }
}

impl DocumentField {
    /// True if a graph has this field. Optional fields of a plan are skipped in a graph, so that a plan without its order and
    /// figures is a graph.
    fn in_graph(self) -> bool {
        !matches!(self, Self::Schedule | Self::Order | Self::Predicted | Self::LowerBound)
    }
}

/// The two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Graph,
    Plan,
}

/// A document as far as it could be read.
pub(super) struct Decoded {
    /// Its schema, if it has one.
    pub(super) schema: Option<String>,
    pub(super) draft: DocumentDraft,
}

/// Reads a document of this format.
pub(super) fn decode(decoder: &mut DocumentDecoder<'_>, format: Format) -> Result<Decoded, Syntax> {
    let mut schema = None;
    let mut draft = DocumentDraft::default();
    let mut plan = PlanDraft::default();
    let mut fields = DocumentField::FIELDS.to_vec();
    fields.retain(|f| format == Format::Plan || f.field.in_graph());
    decoder.object(&fields, |d, field| {
        match field {
            DocumentField::Schema => schema = d.string()?,
            DocumentField::Model => draft.model = d.string()?,
            DocumentField::Cluster => draft.cluster = d.string()?,
            DocumentField::Schedule => plan.schedule = d.string()?,
            DocumentField::Ranks => draft.ranks = d.integer(u64::MAX)?,
            DocumentField::MemoryLimit => draft.memory_limit = d.list(bytes)?,
            DocumentField::StaticBytes => draft.static_bytes = d.list(bytes)?,
            DocumentField::Tasks => draft.tasks = tasks(d)?,
            DocumentField::Order => plan.order = d.list(list)?,
            DocumentField::Predicted => predicted(d, &mut plan)?,
            DocumentField::LowerBound => plan.lower_bound = d.time()?,
            DocumentField::Window => plan.window = d.integer(u64::MAX)?,
            DocumentField::Step => plan.step = Some(step(d)?),
        }
        Ok(())
    })?;
    decoder.end()?;
    draft.plan = (format == Format::Plan).then_some(plan);
    Ok(Decoded { schema, draft })
}

fn bytes(d: &mut DocumentDecoder<'_>) -> Result<Option<Bytes>, Syntax> {
    Ok(d.integer(u64::MAX)?.map(Bytes))
}

fn list(d: &mut DocumentDecoder<'_>) -> Result<ListDraft, Syntax> {
    let ids = d.list(|d| d.id(TaskId))?;
    Ok(ListDraft { readable: ids.is_some(), ids: ids.unwrap_or_default() })
}

fn predicted(d: &mut DocumentDecoder<'_>, plan: &mut PlanDraft) -> Result<(), Syntax> {
    d.object(PredictedField::FIELDS, |d, field| {
        match field {
            PredictedField::Makespan => plan.makespan = d.time()?,
            PredictedField::Start => plan.start = d.list(DocumentDecoder::time)?,
            PredictedField::End => plan.end = d.list(DocumentDecoder::time)?,
            PredictedField::PeakBytes => plan.peak = d.list(bytes)?,
            PredictedField::BubbleRatio => plan.bubble_ratio = d.number()?,
        }
        Ok(())
    })
}

fn step(d: &mut DocumentDecoder<'_>) -> Result<StepDraft, Syntax> {
    let mut step = StepDraft::default();
    d.object(StepField::FIELDS, |d, field| {
        match field {
            StepField::Parallel => step.parallel = parallel(d)?,
            StepField::Tokens => step.tokens = d.integer(u64::MAX)?,
            StepField::Flops => step.flops = d.time()?,
            StepField::DeviceFlops => step.device_flops_per_s = d.time()?,
            StepField::Reduction => step.reduction_s = d.time()?,
            StepField::Update => step.update_s = d.time()?,
            StepField::Gather => step.gather_s = d.time()?,
        }
        Ok(())
    })?;
    Ok(step)
}

fn parallel(d: &mut DocumentDecoder<'_>) -> Result<Option<Parallelism>, Syntax> {
    let (mut data, mut tensor, mut pipeline) = (None, None, None);
    d.object(ParallelField::FIELDS, |d, field| {
        match field {
            ParallelField::Data => data = d.id(|n| n)?,
            ParallelField::Tensor => tensor = d.id(|n| n)?,
            ParallelField::Pipeline => pipeline = d.id(|n| n)?,
        }
        Ok(())
    })?;
    let degrees = data.zip(tensor).zip(pipeline);
    Ok(degrees.map(|((data, tensor), pipeline)| Parallelism { data, tensor, pipeline }))
}

fn tasks(d: &mut DocumentDecoder<'_>) -> Result<Option<Vec<TaskDraft>>, Syntax> {
    match d.array(MAX_TASKS, task)? {
        Array::Items(tasks) => return Ok(Some(tasks)),
        Array::TooLong => too_many_tasks(&mut d.findings),
        Array::Unreadable => {}
    }
    Ok(None)
}

fn task(d: &mut DocumentDecoder<'_>) -> Result<TaskDraft, Syntax> {
    let mut task = TaskDraft::default();
    d.object(TaskField::FIELDS, |d, field| {
        match field {
            TaskField::Id => task.id = d.id(TaskId)?,
            TaskField::Rank => task.rank = d.id(RankId)?,
            TaskField::Kind => task.kind = kind(d)?,
            TaskField::Module => task.module = d.name()?,
            TaskField::Segment => task.segment = d.id(SegmentId)?,
            TaskField::Microbatch => task.microbatch = d.id(MicrobatchId)?,
            TaskField::SubMicrobatch => task.sub_microbatch = d.id(SubMicrobatchId)?,
            TaskField::Duration => task.duration = d.time()?,
            TaskField::ActivationBytes => task.activation_bytes = bytes(d)?,
            TaskField::Strategy => task.strategy = d.string()?.map(Strategy::new),
            TaskField::Deps => task.deps = d.list(dep)?.and_then(|deps| deps.into_iter().collect()),
            TaskField::Candidates => {
                task.candidates = d.list(candidate)?.and_then(|c| c.into_iter().collect())
            }
        }
        Ok(())
    })?;
    Ok(task)
}

fn kind(d: &mut DocumentDecoder<'_>) -> Result<Option<TaskKind>, Syntax> {
    let Some(text) = d.string()? else { return Ok(None) };
    let kind = match text.as_str() {
        "forward" => Some(TaskKind::Forward),
        "backward" => Some(TaskKind::Backward),
        "weight" => Some(TaskKind::Weight),
        _ => None,
    };
    if kind.is_none() {
        let text = shortened(&text);
        let message =
            format!("{text:?}, but must be `forward`, `backward` or `weight`; correct it");
        d.report(ViolationCode::UnknownKind, message);
    }
    Ok(kind)
}

fn dep(d: &mut DocumentDecoder<'_>) -> Result<Option<Dep>, Syntax> {
    let (mut task, mut comm_s) = (None, f64::NAN);
    d.object(DepField::FIELDS, |d, field| {
        match field {
            DepField::Task => task = d.id(TaskId)?,
            DepField::Comm => comm_s = d.time()?,
        }
        Ok(())
    })?;
    Ok(task.map(|task| Dep { task, comm_s: Seconds(comm_s) }))
}

fn candidate(d: &mut DocumentDecoder<'_>) -> Result<Option<Candidate>, Syntax> {
    let (mut strategy, mut activation_bytes) = (None, None);
    let (mut forward, mut backward) = (f64::NAN, f64::NAN);
    d.object(CandidateField::FIELDS, |d, field| {
        match field {
            CandidateField::Strategy => strategy = d.string()?.map(Strategy::new),
            CandidateField::Forward => forward = d.time()?,
            CandidateField::Backward => backward = d.time()?,
            CandidateField::ActivationBytes => activation_bytes = bytes(d)?,
        }
        Ok(())
    })?;
    Ok(strategy.zip(activation_bytes).map(|(strategy, activation_bytes)| Candidate {
        strategy,
        forward_s: Seconds(forward),
        backward_s: Seconds(backward),
        activation_bytes,
    }))
}
