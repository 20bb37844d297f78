//! The fields of `dip.graph/v1` and `dip.plan/v1`.

use super::decoder::{Decoder, Field, shortened};
use super::reader::Syntax;
use crate::cost::Strategy;
use crate::plan::draft::{DocumentDraft, ListDraft, PlanDraft, TaskDraft, too_many_tasks};
use crate::plan::graph::{Candidate, Dep, MAX_TASKS, TaskKind};
use crate::plan::violation::ViolationCode;
use crate::spec::{Bytes, MicrobatchId, RankId, Seconds, SegmentId, SubMicrobatchId, TaskId};

const GRAPH: &[Field] = &[
    ("schema", true),
    ("model", true),
    ("cluster", true),
    ("ranks", true),
    ("memory_limit_bytes", true),
    ("static_bytes", true),
    ("tasks", true),
];
const PLAN: &[Field] = &[
    ("schema", true),
    ("model", true),
    ("cluster", true),
    ("schedule", true),
    ("ranks", true),
    ("memory_limit_bytes", true),
    ("static_bytes", true),
    ("tasks", true),
    ("order", true),
    ("predicted", true),
    ("lower_bound_s", true),
];
const TASK: &[Field] = &[
    ("id", true),
    ("rank", true),
    ("kind", true),
    ("module", true),
    ("segment", true),
    ("microbatch", true),
    ("sub_microbatch", true),
    ("duration_s", true),
    ("activation_bytes", true),
    ("strategy", true),
    ("deps", true),
    ("candidates", false),
];
const DEP: &[Field] = &[("task", true), ("comm_s", true)];
const CANDIDATE: &[Field] =
    &[("strategy", true), ("forward_s", true), ("backward_s", true), ("activation_bytes", true)];
const PREDICTED: &[Field] = &[
    ("makespan_s", true),
    ("start_s", true),
    ("end_s", true),
    ("peak_bytes", true),
    ("bubble_ratio", true),
];

/// Which of the two formats is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Graph,
    Plan,
}

/// The schema of a document, where it says one, and what it holds.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    format: Format,
) -> Result<(Option<String>, DocumentDraft), Syntax> {
    let mut schema = None;
    let mut draft = DocumentDraft::default();
    let mut plan = PlanDraft::default();
    let fields = if format == Format::Plan { PLAN } else { GRAPH };
    decoder.object(fields, |d, field| {
        match field {
            "schema" => schema = d.string()?,
            "model" => draft.model = d.string()?,
            "cluster" => draft.cluster = d.string()?,
            "schedule" => plan.schedule = d.string()?,
            "ranks" => draft.ranks = d.integer(u64::MAX)?,
            "memory_limit_bytes" => draft.memory_limit = d.list(bytes)?,
            "static_bytes" => draft.static_bytes = d.list(bytes)?,
            "tasks" => draft.tasks = tasks(d)?,
            "order" => plan.order = d.list(list)?,
            "predicted" => predicted(d, &mut plan)?,
            _ => plan.lower_bound = d.time()?,
        }
        Ok(())
    })?;
    decoder.end()?;
    draft.plan = (format == Format::Plan).then_some(plan);
    Ok((schema, draft))
}

fn bytes(d: &mut Decoder<'_>) -> Result<Option<Bytes>, Syntax> {
    Ok(d.integer(u64::MAX)?.map(Bytes))
}

fn list(d: &mut Decoder<'_>) -> Result<ListDraft, Syntax> {
    let ids = d.list(|d| d.id(TaskId))?;
    Ok(ListDraft { readable: ids.is_some(), ids: ids.unwrap_or_default() })
}

fn predicted(d: &mut Decoder<'_>, plan: &mut PlanDraft) -> Result<(), Syntax> {
    d.object(PREDICTED, |d, field| {
        match field {
            "makespan_s" => plan.makespan = d.time()?,
            "start_s" => plan.start = d.list(Decoder::time)?,
            "end_s" => plan.end = d.list(Decoder::time)?,
            "peak_bytes" => plan.peak = d.list(bytes)?,
            _ => plan.bubble_ratio = d.number()?,
        }
        Ok(())
    })?;
    Ok(())
}

fn tasks(d: &mut Decoder<'_>) -> Result<Option<Vec<TaskDraft>>, Syntax> {
    let (tasks, too_many) = d.array(MAX_TASKS, task)?;
    if too_many {
        too_many_tasks(&mut d.findings);
    }
    Ok(tasks)
}

fn task(d: &mut Decoder<'_>) -> Result<TaskDraft, Syntax> {
    let mut task = TaskDraft::default();
    d.object(TASK, |d, field| {
        match field {
            "id" => task.id = d.id(TaskId)?,
            "rank" => task.rank = d.id(RankId)?,
            "kind" => task.kind = kind(d)?,
            "module" => task.module = d.name()?,
            "segment" => task.segment = d.id(SegmentId)?,
            "microbatch" => task.microbatch = d.id(MicrobatchId)?,
            "sub_microbatch" => task.sub_microbatch = d.id(SubMicrobatchId)?,
            "duration_s" => task.duration = d.time()?,
            "activation_bytes" => task.activation_bytes = bytes(d)?,
            "strategy" => task.strategy = d.string()?.map(Strategy::new),
            "deps" => task.deps = d.list(dep)?.and_then(|deps| deps.into_iter().collect()),
            _ => task.candidates = d.list(candidate)?.and_then(|c| c.into_iter().collect()),
        }
        Ok(())
    })?;
    Ok(task)
}

fn kind(d: &mut Decoder<'_>) -> Result<Option<TaskKind>, Syntax> {
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

fn dep(d: &mut Decoder<'_>) -> Result<Option<Dep>, Syntax> {
    let (mut task, mut comm_s) = (None, f64::NAN);
    d.object(DEP, |d, field| {
        match field {
            "task" => task = d.id(TaskId)?,
            _ => comm_s = d.time()?,
        }
        Ok(())
    })?;
    Ok(task.map(|task| Dep { task, comm_s: Seconds(comm_s) }))
}

fn candidate(d: &mut Decoder<'_>) -> Result<Option<Candidate>, Syntax> {
    let (mut strategy, mut activation_bytes) = (None, None);
    let (mut forward, mut backward) = (f64::NAN, f64::NAN);
    d.object(CANDIDATE, |d, field| {
        match field {
            "strategy" => strategy = d.string()?.map(Strategy::new),
            "forward_s" => forward = d.time()?,
            "backward_s" => backward = d.time()?,
            _ => activation_bytes = bytes(d)?,
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
