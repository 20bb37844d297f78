//! A graph or plan as far as it could be read. The checker works on drafts of texts and of values in memory.
//!
//! A time that could not be read is NaN. Comparisons with NaN are false, so that one bad value is reported once and the rest
//! of the document is still checked. Any other value that could not be read is `None`.

use std::sync::Arc;

use crate::cost::Strategy;
use crate::plan::findings::Findings;
use crate::plan::graph::{Candidate, Dep, MAX_TASKS, PairKey, Task, TaskGraph, TaskKind};
use crate::plan::plan::Plan;
use crate::plan::step::StepFigures;
use crate::plan::timeline::Prediction;
use crate::plan::violation::ViolationCode;
use crate::spec::{
    Bytes, Flops, MicrobatchId, Parallelism, RankId, Seconds, SegmentId, SubMicrobatchId, TaskId,
};

/// A graph, or a plan if `plan` is present.
#[derive(Debug, Default)]
pub(crate) struct DocumentDraft {
    pub(crate) model: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) ranks: Option<u64>,
    pub(crate) memory_limit: Option<Vec<Option<Bytes>>>,
    pub(crate) static_bytes: Option<Vec<Option<Bytes>>>,
    /// All tasks in document order, or `None` if the list could not be read.
    pub(crate) tasks: Option<Vec<TaskDraft>>,
    pub(crate) plan: Option<PlanDraft>,
}

#[derive(Debug)]
pub(crate) struct PlanDraft {
    pub(crate) schedule: Option<String>,
    pub(crate) order: Option<Vec<ListDraft>>,
    pub(crate) makespan: f64,
    pub(crate) start: Option<Vec<f64>>,
    pub(crate) end: Option<Vec<f64>>,
    pub(crate) peak: Option<Vec<Option<Bytes>>>,
    pub(crate) bubble_ratio: f64,
    pub(crate) lower_bound: f64,
    pub(crate) window: Option<u64>,
    pub(crate) step: Option<StepDraft>,
}

#[derive(Debug, Default)]
pub(crate) struct StepDraft {
    pub(crate) parallel: Option<Parallelism>,
    pub(crate) tokens: Option<u64>,
    pub(crate) flops: f64,
    pub(crate) device_flops_per_s: f64,
    pub(crate) reduction_s: f64,
    pub(crate) update_s: f64,
    pub(crate) gather_s: f64,
}

impl StepDraft {
    fn from_step(step: &StepFigures, findings: &mut Findings) -> Self {
        let mut checked =
            |value: f64, field: &str| findings.duration(value, format_args!("step.{field}"));
        Self {
            parallel: Some(step.parallel),
            tokens: Some(step.tokens),
            flops: checked(step.flops.0, "flops"),
            device_flops_per_s: checked(step.device_flops_per_s, "device_flops_per_s"),
            reduction_s: checked(step.reduction_s.0, "reduction_s"),
            update_s: checked(step.update_s.0, "update_s"),
            gather_s: checked(step.gather_s.0, "gather_s"),
        }
    }

    fn into_step(self) -> Option<StepFigures> {
        Some(StepFigures {
            parallel: self.parallel?,
            tokens: self.tokens?,
            flops: Flops(self.flops),
            device_flops_per_s: self.device_flops_per_s,
            reduction_s: Seconds(self.reduction_s),
            update_s: Seconds(self.update_s),
            gather_s: Seconds(self.gather_s),
        })
    }
}

impl Default for PlanDraft {
    fn default() -> Self {
        Self {
            schedule: None,
            order: None,
            makespan: f64::NAN,
            start: None,
            end: None,
            peak: None,
            bubble_ratio: f64::NAN,
            lower_bound: f64::NAN,
            window: Some(1),
            step: None,
        }
    }
}

/// The order of one rank.
#[derive(Debug, Default)]
pub(crate) struct ListDraft {
    /// Its entries; `None` for an entry that could not be read.
    pub(crate) ids: Vec<Option<TaskId>>,
    /// False if it is not a list.
    pub(crate) readable: bool,
}

#[derive(Debug)]
pub(crate) struct TaskDraft {
    pub(crate) id: Option<TaskId>,
    pub(crate) rank: Option<RankId>,
    pub(crate) kind: Option<TaskKind>,
    pub(crate) module: Option<Arc<str>>,
    pub(crate) segment: Option<SegmentId>,
    pub(crate) microbatch: Option<MicrobatchId>,
    pub(crate) sub_microbatch: Option<SubMicrobatchId>,
    pub(crate) duration: f64,
    pub(crate) activation_bytes: Option<Bytes>,
    pub(crate) strategy: Option<Strategy>,
    /// The dependencies, or `None` if one of them could not be read.
    pub(crate) deps: Option<Vec<Dep>>,
    /// The candidates, or `None` if one of them could not be read.
    pub(crate) candidates: Option<Vec<Candidate>>,
}

impl Default for TaskDraft {
    fn default() -> Self {
        Self {
            id: None,
            rank: None,
            kind: None,
            module: None,
            segment: None,
            microbatch: None,
            sub_microbatch: None,
            duration: f64::NAN,
            activation_bytes: None,
            strategy: None,
            deps: None,
            candidates: Some(Vec::new()),
        }
    }
}

impl TaskDraft {
    /// The key of its stage pair, if all of it could be read.
    pub(crate) fn pair(&self) -> Option<PairKey> {
        Some(PairKey {
            rank: self.rank?,
            module: self.module.clone()?,
            segment: self.segment?,
            microbatch: self.microbatch?,
            sub_microbatch: self.sub_microbatch?,
        })
    }

    /// Its dependencies; empty if they could not be read.
    pub(crate) fn known_deps(&self) -> &[Dep] {
        self.deps.as_deref().unwrap_or_default()
    }

    fn from_task(i: usize, task: &Task, findings: &mut Findings) -> Self {
        let mut deps = task.deps.clone();
        for (d, dep) in deps.iter_mut().enumerate() {
            let path = format_args!("tasks[{i}].deps[{d}].comm_s");
            dep.comm_s = Seconds(findings.duration(dep.comm_s.0, path));
        }
        let mut candidates = task.candidates.clone();
        for (c, candidate) in candidates.iter_mut().enumerate() {
            let Candidate { forward_s, backward_s, .. } = candidate;
            for (name, time) in [("forward_s", forward_s), ("backward_s", backward_s)] {
                let path = format_args!("tasks[{i}].candidates[{c}].{name}");
                *time = Seconds(findings.duration(time.0, path));
            }
        }
        Self {
            id: Some(task.id),
            rank: Some(task.rank),
            kind: Some(task.kind),
            module: Some(task.module.clone()),
            segment: Some(task.segment),
            microbatch: Some(task.microbatch),
            sub_microbatch: Some(task.sub_microbatch),
            duration: findings.duration(task.duration_s.0, format_args!("tasks[{i}].duration_s")),
            activation_bytes: Some(task.activation_bytes),
            strategy: Some(task.strategy.clone()),
            deps: Some(deps),
            candidates: Some(candidates),
        }
    }

    fn into_task(self) -> Option<Task> {
        Some(Task {
            id: self.id?,
            rank: self.rank?,
            kind: self.kind?,
            module: self.module?,
            segment: self.segment?,
            microbatch: self.microbatch?,
            sub_microbatch: self.sub_microbatch?,
            duration_s: Seconds(self.duration),
            activation_bytes: self.activation_bytes?,
            strategy: self.strategy?,
            deps: self.deps?,
            candidates: self.candidates?,
        })
    }
}

impl DocumentDraft {
    pub(crate) fn from_graph(graph: &TaskGraph, findings: &mut Findings) -> Self {
        let tasks = graph.tasks.iter().enumerate();
        Self {
            model: Some(graph.model.clone()),
            cluster: Some(graph.cluster.clone()),
            ranks: Some(graph.ranks.into()),
            memory_limit: Some(graph.memory_limit_bytes.iter().copied().map(Some).collect()),
            static_bytes: Some(graph.static_bytes.iter().copied().map(Some).collect()),
            tasks: if graph.tasks.len() > MAX_TASKS {
                too_many_tasks(findings);
                None
            } else {
                Some(tasks.map(|(i, t)| TaskDraft::from_task(i, t, findings)).collect())
            },
            plan: None,
        }
    }

    pub(crate) fn from_plan(plan: &Plan, findings: &mut Findings) -> Self {
        let mut draft = Self::from_graph(&plan.graph, findings);
        let p = &plan.predicted;
        let mut times = |name: &str, times: &[Seconds]| {
            let times = times.iter().enumerate();
            let checked =
                |(i, t): (usize, &Seconds)| findings.duration(t.0, format_args!("{name}[{i}]"));
            Some(times.map(checked).collect())
        };
        draft.plan = Some(PlanDraft {
            schedule: Some(plan.schedule.clone()),
            order: Some(
                plan.order
                    .iter()
                    .map(|list| ListDraft {
                        ids: list.iter().copied().map(Some).collect(),
                        readable: true,
                    })
                    .collect(),
            ),
            start: times("predicted.start_s", &p.start_s),
            end: times("predicted.end_s", &p.end_s),
            peak: Some(p.peak_bytes.iter().copied().map(Some).collect()),
            makespan: findings.duration(p.makespan_s.0, "predicted.makespan_s"),
            bubble_ratio: findings.finite(p.bubble_ratio, "predicted.bubble_ratio"),
            lower_bound: findings.duration(plan.lower_bound_s.0, "lower_bound_s"),
            window: Some(plan.window.into()),
            step: plan.step.as_ref().map(|step| StepDraft::from_step(step, findings)),
        });
        draft
    }

    /// The graph, or `None` if a part of it could not be read.
    pub(crate) fn into_graph(self) -> Option<TaskGraph> {
        Some(TaskGraph {
            model: self.model?,
            cluster: self.cluster?,
            ranks: u32::try_from(self.ranks?).ok()?,
            memory_limit_bytes: self.memory_limit?.into_iter().collect::<Option<_>>()?,
            static_bytes: self.static_bytes?.into_iter().collect::<Option<_>>()?,
            tasks: self.tasks?.into_iter().map(TaskDraft::into_task).collect::<Option<_>>()?,
        })
    }

    /// The plan, or `None` if a part of it could not be read.
    pub(crate) fn into_plan(mut self) -> Option<Plan> {
        let plan = self.plan.take()?;
        let list = |list: ListDraft| list.ids.into_iter().collect::<Option<Vec<_>>>();
        let seconds = |times: Vec<f64>| times.into_iter().map(Seconds).collect();
        Some(Plan {
            graph: self.into_graph()?,
            schedule: plan.schedule?,
            order: plan.order?.into_iter().map(list).collect::<Option<_>>()?,
            predicted: Prediction {
                makespan_s: Seconds(plan.makespan),
                start_s: seconds(plan.start?),
                end_s: seconds(plan.end?),
                peak_bytes: plan.peak?.into_iter().collect::<Option<_>>()?,
                bubble_ratio: plan.bubble_ratio,
            },
            lower_bound_s: Seconds(plan.lower_bound),
            window: u32::try_from(plan.window?).ok()?,
            step: match plan.step {
                Some(step) => Some(step.into_step()?),
                None => None,
            },
        })
    }
}

pub(crate) fn too_many_tasks(findings: &mut Findings) {
    let message = format!("more than {MAX_TASKS} tasks; plan fewer microbatches at a time");
    findings.add(ViolationCode::TooMany, "tasks", message);
}
