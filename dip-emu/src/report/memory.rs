//! The memory of each rank over time (paper section 3).
//!
//! The semantics are those of dip-core's timeline. A pair takes its bytes when its forward starts. It frees them when its last
//! task ends: the weight task, the backward, or in frozen modules the forward itself.

use dip_core::{Bytes, Seconds, TaskGraph, TaskKind, Trace};

/// The memory of one rank over time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemoryCurve {
    /// The bytes that the rank holds from each time on, static bytes included. Times never decrease.
    pub points: Vec<(Seconds, Bytes)>,
    /// The peak, in bytes.
    pub peak: Bytes,
}

impl MemoryCurve {
    /// The mean memory up to `end`. The nearer to the peak, the better the memory is used.
    pub fn mean(&self, end: Seconds) -> Bytes {
        let mut area = 0.0;
        for (i, &(time, bytes)) in self.points.iter().enumerate() {
            let until = self.points.get(i + 1).map_or(end, |p| p.0);
            area += bytes.0 as f64 * (until.0 - time.0).max(0.0);
        }
        if end.0 > 0.0 { Bytes((area / end.0) as u64) } else { self.peak }
    }
}

/// Returns the memory of every rank during `trace`. Spans of tasks that the graph does not have are left out.
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
    // Spans are sorted by rank and then by time, and the tasks of a rank do not overlap.
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
