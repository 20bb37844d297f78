//! What each rank holds over time: the memory timeline of a trace (paper section 3).
//!
//! The semantics are those of dip-core's timeline: a pair takes its bytes at the start of its forward and gives them back
//! at the end of its backward, or of its weight task, or of the forward itself in a frozen module.

use dip_core::{Bytes, Seconds, TaskGraph, TaskKind, Trace};

/// What one rank holds over time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemoryCurve {
    /// From each point in time on, the rank holds so much, static bytes included. Times do not fall.
    pub points: Vec<(Seconds, Bytes)>,
    /// Most that it held at once.
    pub peak: Bytes,
}

impl MemoryCurve {
    /// Mean over time up to `end`, which a planner would like to be near the peak.
    pub fn mean(&self, end: Seconds) -> Bytes {
        let mut area = 0.0;
        for (i, &(time, bytes)) in self.points.iter().enumerate() {
            let until = self.points.get(i + 1).map_or(end, |p| p.0);
            area += bytes.0 as f64 * (until.0 - time.0).max(0.0);
        }
        if end.0 > 0.0 { Bytes((area / end.0) as u64) } else { self.peak }
    }
}

/// The memory of every rank while `trace` ran. Spans of tasks that the graph does not have are left out.
pub fn memory(graph: &TaskGraph, trace: &Trace) -> Vec<MemoryCurve> {
    let mut released = vec![Bytes::ZERO; graph.tasks.len()];
    for pair in graph.pairs() {
        released[pair.release().index()] += graph.task(pair.forward).activation_bytes;
    }
    let mut curves: Vec<MemoryCurve> = (0..graph.ranks as usize)
        .map(|rank| {
            let bytes = graph.static_bytes.get(rank).copied().unwrap_or_default();
            MemoryCurve { points: vec![(Seconds::ZERO, bytes)], peak: bytes }
        })
        .collect();
    // Spans come rank by rank in the order of execution, and the tasks of a rank do not overlap.
    for span in &trace.spans {
        let Some(task) = graph.tasks.get(span.task.index()) else { continue };
        let Some(curve) = curves.get_mut(span.rank.index()) else { continue };
        let mut live = curve.points.last().map_or(Bytes::ZERO, |p| p.1);
        if task.kind == TaskKind::Forward && task.activation_bytes > Bytes::ZERO {
            live += task.activation_bytes;
            curve.points.push((span.start, live));
            curve.peak = curve.peak.max(live);
        }
        let back = released[span.task.index()];
        if back > Bytes::ZERO {
            live -= back;
            curve.points.push((span.end, live));
        }
    }
    curves
}
