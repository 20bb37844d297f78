//! Stage pairs: every backward has its forward, every weight task its backward, and their fields agree.

use std::collections::{HashMap, HashSet};

use super::{close, same};
use crate::plan::draft::TaskDraft;
use crate::plan::findings::Findings;
use crate::plan::graph::{Candidate, PairKey, TaskKind};
use crate::plan::violation::ViolationCode;
use crate::spec::RankId;

/// The tasks of one stage pair, as indices.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StagePair {
    pub(super) forward: Option<usize>,
    pub(super) backward: Option<usize>,
    pub(super) weight: Option<usize>,
}

/// The stage pairs of a graph.
pub(super) struct StagePairs {
    /// In the order of their first task.
    pub(super) list: Vec<StagePair>,
    /// For each task, its index in `list`; `None` if its key could not be read.
    pub(super) of_task: Vec<Option<usize>>,
    /// True if all keys could be read. Then the list has all pairs.
    pub(super) complete: bool,
    /// Ranks with duplicate or unpaired stages. Their memory cannot be computed.
    pub(super) unsound: HashSet<RankId>,
}

impl StagePairs {
    pub(super) fn collect(tasks: &[TaskDraft], findings: &mut Findings) -> Self {
        let mut index: HashMap<PairKey, usize> = HashMap::with_capacity(tasks.len());
        let mut stages =
            Self { list: Vec::new(), of_task: Vec::new(), complete: true, unsound: HashSet::new() };
        for (i, task) in tasks.iter().enumerate() {
            let (Some(key), Some(kind)) = (task.pair(), task.kind) else {
                stages.complete = false;
                stages.of_task.push(None);
                continue;
            };
            let at = *index.entry(key).or_insert_with(|| {
                stages.list.push(StagePair::default());
                stages.list.len() - 1
            });
            stages.of_task.push(Some(at));
            let stage = &mut stages.list[at];
            let slot = match kind {
                TaskKind::Forward => &mut stage.forward,
                TaskKind::Backward => &mut stage.backward,
                TaskKind::Weight => &mut stage.weight,
            };
            match *slot {
                None => *slot = Some(i),
                Some(other) => {
                    stages.unsound.extend(task.rank);
                    let message = format!(
                        "{} is the same stage as task {other}; remove one or correct its rank, segment or microbatch",
                        describe(i, task)
                    );
                    findings.add(
                        ViolationCode::DuplicateStage,
                        format_args!("tasks[{i}]"),
                        message,
                    );
                }
            }
        }
        stages
    }

    /// Edges `before -> after` inside the pairs.
    pub(super) fn edges(&self) -> impl Iterator<Item = (u32, u32)> + Clone {
        self.list.iter().flat_map(|s| {
            let pair = |a: Option<usize>, b: Option<usize>| Some((a? as u32, b? as u32));
            [pair(s.forward, s.backward), pair(s.backward, s.weight)].into_iter().flatten()
        })
    }

    pub(super) fn check(&mut self, tasks: &[TaskDraft], findings: &mut Findings) {
        if self.complete {
            self.check_paired(tasks, findings);
        }
        check_forward_fields(tasks, findings);
        for stage in &self.list {
            check_strategies(stage, tasks, findings);
        }
    }

    fn check_paired(&mut self, tasks: &[TaskDraft], findings: &mut Findings) {
        let trained = tasks.iter().filter(|t| t.kind == Some(TaskKind::Backward));
        let trained: HashSet<_> = trained.filter_map(|t| t.module.as_deref()).collect();
        for stage in &self.list {
            let mut lacks = |i: usize, other: &str, remedy: &str| {
                let message = format!("{} has no {other}; {remedy}", describe(i, &tasks[i]));
                findings.add(ViolationCode::UnpairedStage, format_args!("tasks[{i}]"), message);
                self.unsound.extend(tasks[i].rank);
            };
            match (stage.forward, stage.backward, stage.weight) {
                (None, Some(b), _) => lacks(b, "forward", "add it on the same rank"),
                (_, None, Some(w)) => lacks(w, "backward", "add it on the same rank"),
                (Some(f), None, None)
                    if tasks[f].module.as_deref().is_some_and(|m| trained.contains(m)) =>
                {
                    lacks(f, "backward, while its module has others", "add it on the same rank");
                }
                _ => {}
            }
        }
    }

    /// Checks that each pair uses one of its candidates.
    pub(super) fn check_choices(&self, tasks: &[TaskDraft], findings: &mut Findings) {
        for stage in &self.list {
            let Some(f) = stage.forward else { continue };
            let offers = tasks[f].candidates.as_deref().unwrap_or_default();
            if let Some(strategy) = &tasks[f].strategy
                && !offers.is_empty()
                && !offers.iter().any(|c| chosen(c, stage, tasks))
            {
                let message = format!(
                    "strategy `{strategy}` with these durations and bytes is not one of the {} candidates of its pair; \
                     copy the figures of one candidate",
                    offers.len()
                );
                findings.add(ViolationCode::NotACandidate, format_args!("tasks[{f}]"), message);
            }
        }
    }
}

/// True if a pair uses a candidate. Values that could not be read count as equal.
fn chosen(candidate: &Candidate, stage: &StagePair, tasks: &[TaskDraft]) -> bool {
    let duration = |i: Option<usize>| i.map_or(0.0, |i| tasks[i].duration);
    let (backward, weight) = (duration(stage.backward), duration(stage.weight));
    let Some(forward) = stage.forward.map(|f| &tasks[f]) else { return true };
    forward.strategy.as_ref() == Some(&candidate.strategy)
        && forward.activation_bytes.is_none_or(|b| b == candidate.activation_bytes)
        && same(forward.duration, candidate.forward_s.0)
        && (stage.backward.is_none()
            || same(backward, candidate.backward_s.0)
            || close(backward + weight, candidate.backward_s.0, 0.0))
}

fn check_forward_fields(tasks: &[TaskDraft], findings: &mut Findings) {
    let others = tasks.iter().enumerate();
    let others = others.filter(|(_, t)| t.kind.is_some_and(|k| k != TaskKind::Forward));
    for (i, task) in others {
        if let Some(bytes) = task.activation_bytes.filter(|b| b.0 > 0) {
            let message = format!("{}, but must be 0: the forward of the pair holds them", bytes.0);
            let path = format_args!("tasks[{i}].activation_bytes");
            findings.add(ViolationCode::ActivationOnNonForward, path, message);
        }
        if task.candidates.as_ref().is_some_and(|c| !c.is_empty()) {
            let message = "candidates belong on the forward of the pair; move them there";
            let path = format_args!("tasks[{i}].candidates");
            findings.add(ViolationCode::CandidatesOnNonForward, path, message);
        }
    }
}

fn check_strategies(stage: &StagePair, tasks: &[TaskDraft], findings: &mut Findings) {
    let Some(f) = stage.forward else { return };
    for i in [stage.backward, stage.weight].into_iter().flatten() {
        if let (Some(own), Some(forward)) = (&tasks[i].strategy, &tasks[f].strategy)
            && own != forward
        {
            let message = format!(
                "`{own}`, but the forward of the pair, task {f}, has `{forward}`; give both the same"
            );
            let path = format_args!("tasks[{i}].strategy");
            findings.add(ViolationCode::StrategyMismatch, path, message);
        }
    }
}

/// Describes a task for a message.
pub(super) fn describe(i: usize, task: &TaskDraft) -> String {
    let kind = match task.kind {
        Some(TaskKind::Forward) => "forward",
        Some(TaskKind::Backward) => "backward",
        Some(TaskKind::Weight) => "weight task",
        None => "task",
    };
    match task.pair() {
        Some(p) => format!(
            "task {i} ({kind} of {}, segment {}, microbatch {}.{}, rank {})",
            p.module, p.segment, p.microbatch, p.sub_microbatch, p.rank
        ),
        None => format!("task {i}"),
    }
}
