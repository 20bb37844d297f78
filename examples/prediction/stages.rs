//! Times of single stages: they show where a wrong prediction comes from.

use std::collections::BTreeMap;

use dip::emulate::Trace;
use dip::plan::{TaskGraph, TaskKind};
use dip::prelude::*;

use crate::undisturbed;

/// Seconds of every task of a plan, by round.
#[derive(Clone, Default)]
pub struct Stages(Vec<Vec<f64>>);

impl Stages {
    /// Adds one round.
    pub fn add(&mut self, trace: &Trace) {
        for span in &trace.spans {
            let task = span.task.index();
            self.0.resize(self.0.len().max(task + 1), Vec::new());
            self.0[task].push((span.end - span.start).0);
        }
    }

    /// Seconds of every task in an undisturbed round.
    pub fn undisturbed(&self) -> Vec<f64> {
        self.0.iter().map(|seconds| undisturbed(&mut seconds.clone())).collect()
    }
}

/// Seconds of all stages of a kind, predicted and measured.
#[derive(Default)]
pub struct ByKind(BTreeMap<String, [f64; 3]>);

impl ByKind {
    /// Adds the stages of a plan.
    pub fn add(
        &mut self,
        graph: &TaskGraph,
        partition: &Partition,
        model: &ModelSpec,
        measured: &[f64],
    ) {
        let splits = graph.tasks.iter().any(|t| t.kind == TaskKind::Weight);
        for (task, measured) in graph.tasks.iter().zip(measured) {
            let m = model.modules.iter().position(|m| *m.name == *task.module).unwrap_or(0);
            let chunks = &partition.modules[m].chunks;
            let chunk = chunks.iter().find(|c| c.rank == task.rank && c.segment == task.segment);
            let layers = chunk.map_or(0..0, |c| c.layers.clone());
            let kind = format!(
                "{} {layers:?} {:?} {}{}",
                task.module,
                task.kind,
                task.strategy,
                if splits { " split" } else { "" }
            );
            let sums = self.0.entry(kind).or_default();
            sums[0] += task.duration_s.0;
            sums[1] += measured;
            sums[2] += 1.0;
        }
    }

    /// Prints one line for each kind.
    pub fn print(&self) {
        for (kind, [predicted, measured, count]) in &self.0 {
            println!(
                "  {kind:44} {count:>5} x {:>8.3} ms {:>8.3} ms {:>+6.1} %",
                1e3 * measured / count,
                1e3 * predicted / count,
                100.0 * (predicted / measured - 1.0)
            );
        }
    }
}
