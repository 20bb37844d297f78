//! The memory of every rank, task by task.

use std::collections::HashSet;

use super::pairs::StagePairs;
use crate::plan::draft::{DocumentDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::graph::TaskKind;
use crate::plan::violation::ViolationCode;
use crate::spec::Bytes;

/// Checks that the static bytes fit. Returns the ranks on which they do not.
pub(super) fn check_static(draft: &DocumentDraft, findings: &mut Findings) -> HashSet<usize> {
    let (Some(limits), Some(fixed)) = (&draft.memory_limit, &draft.static_bytes) else {
        return HashSet::new();
    };
    let mut over = HashSet::new();
    for (r, (limit, fixed)) in limits.iter().zip(fixed).enumerate() {
        if let (Some(limit), Some(fixed)) = (limit, fixed)
            && fixed > limit
        {
            let message = format!(
                "{} ({fixed}) are above memory_limit_bytes[{r}] = {} ({limit}); use more ranks or raise the limit",
                fixed.0, limit.0
            );
            findings.add(
                ViolationCode::StaticOverLimit,
                format_args!("static_bytes[{r}]"),
                message,
            );
            over.insert(r);
        }
    }
    over
}

/// The peak of one rank and the task at whose start the rank first reaches it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peak {
    /// Bytes; they may be more than [`Bytes`] can hold.
    pub(super) bytes: u128,
    pub(super) at: Option<u32>,
}

/// The peak of a rank that runs `list`, or `None` if a size could not be read.
pub(super) fn peak(
    tasks: &[TaskDraft],
    list: &[u32],
    stages: &StagePairs,
    static_bytes: Bytes,
) -> Option<Peak> {
    // No sum of `u64` over at most `MAX_TASKS` tasks exceeds a `u128`.
    let mut live = u128::from(static_bytes.0);
    let mut peak = Peak { bytes: live, at: None };
    for &id in list {
        let i = id as usize;
        let stage = &stages.list[stages.of_task[i]?];
        if tasks[i].kind? == TaskKind::Forward {
            live += u128::from(tasks[i].activation_bytes?.0);
            if live > peak.bytes {
                peak = Peak { bytes: live, at: Some(id) };
            }
        }
        let last = stage.weight.or(stage.backward).or(stage.forward);
        if let (true, Some(forward)) = (last == Some(i), stage.forward) {
            // A backward may run before its forward in an order that is refused elsewhere.
            live = live.saturating_sub(tasks[forward].activation_bytes?.0.into());
        }
    }
    Some(peak)
}

/// Checks the peak of one rank against its limit and against the prediction.
pub(super) fn check_peak(
    rank: usize,
    peak: Peak,
    limit: Option<Bytes>,
    predicted: Option<Bytes>,
    findings: &mut Findings,
) {
    let Ok(bytes) = u64::try_from(peak.bytes).map(Bytes) else {
        let message = format!(
            "rank {rank} peaks at {} bytes, above 2^64 - 1, the greatest number of bytes; correct activation_bytes",
            peak.bytes
        );
        return findings.add(
            ViolationCode::MemoryOverLimit,
            format_args!("order[{rank}]"),
            message,
        );
    };
    if let (Some(limit), Some(at)) = (limit.filter(|&limit| bytes > limit), peak.at) {
        let message = format!(
            "rank {rank} peaks at {} bytes ({bytes}) at the start of task {at}, above its limit of {} bytes ({limit}); \
             choose a smaller strategy, start fewer forwards before it or raise the limit",
            bytes.0, limit.0
        );
        findings.add(ViolationCode::MemoryOverLimit, format_args!("order[{rank}]"), message);
    }
    if let Some(predicted) = predicted.filter(|&p| p != bytes) {
        let message = format!(
            "{} ({predicted}), but the order peaks at {} ({bytes}); recompute the plan",
            predicted.0, bytes.0
        );
        let path = format_args!("predicted.peak_bytes[{rank}]");
        findings.add(ViolationCode::PeakMismatch, path, message);
    }
}
