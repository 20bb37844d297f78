//! Where the time of a run goes: by module and kind, by the causes of bubbles, and along the critical path.

use dip_core::{Seconds, TaskKind};

use super::bubbles::{BubbleCause, bubbles};
use super::colours::shade;
use super::critical::critical_path;
use super::run::{TimelineRun, modules};

/// The parts of a time, by module and kind.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleTime {
    /// The module.
    pub module: String,
    /// Forward, backward and weight gradient.
    pub kinds: [Seconds; 3],
}

/// Where the time of a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Breakdown {
    /// The end of the last stage.
    pub makespan: Seconds,
    /// The time of all ranks: their number times the makespan. `busy` and `waits` add up to it.
    pub total: Seconds,
    /// The time in which ranks compute.
    pub busy: Vec<ModuleTime>,
    /// The time in which ranks wait, by cause; causes without time are left out.
    pub waits: Vec<(BubbleCause, Seconds)>,
    /// The critical path: its stages, of which the makespan consists, with the next two.
    pub critical: Vec<ModuleTime>,
    /// Time on the critical path in which a message is on its way.
    pub messages: Seconds,
    /// Time on the critical path in which nothing happens: the runtime's own time.
    pub idle: Seconds,
    /// Number of stages on the critical path.
    pub critical_stages: usize,
}

/// Breaks a run down.
pub fn breakdown(run: &TimelineRun<'_>) -> Breakdown {
    let graph = &run.plan.graph;
    let names = modules(&[*run]);
    let none = || names.iter().map(|name| ModuleTime::none(name)).collect::<Vec<_>>();
    let (mut busy, mut critical) = (none(), none());
    let mut spans = vec![None; graph.tasks.len()];
    for span in &run.trace.spans {
        let Some(task) = graph.tasks.get(span.task.index()) else { continue };
        let module = names.iter().position(|name| *name == &*task.module).unwrap_or(0);
        busy[module].add(task.kind, span.end - span.start);
        spans[span.task.index()] = Some((module, *span));
    }
    let path = critical_path(run.plan, run.trace);
    let (mut messages, mut idle, mut at) = (Seconds::ZERO, Seconds::ZERO, Seconds::ZERO);
    for (i, &id) in path.iter().enumerate() {
        let Some((module, span)) = spans[id.index()] else { continue };
        let task = graph.task(id);
        critical[module].add(task.kind, span.end - span.start);
        let before = i.checked_sub(1).map(|before| path[before]);
        let dep = task.deps.iter().find(|dep| Some(dep.task) == before);
        let waited = (span.start - at).max(Seconds::ZERO);
        let message = dep.map_or(Seconds::ZERO, |dep| dep.comm_s).min(waited);
        messages += message;
        idle += waited - message;
        at = span.end;
    }
    let all = bubbles(run.plan, run.trace);
    let time = |cause| {
        let of_cause = all.iter().flatten().filter(|bubble| bubble.cause == cause);
        of_cause.map(|bubble| bubble.end - bubble.start).sum::<Seconds>()
    };
    let waits = BubbleCause::ALL.map(|cause| (cause, time(cause)));
    let makespan = run.last_end();
    Breakdown {
        makespan,
        total: makespan * f64::from(graph.ranks),
        busy,
        waits: waits.into_iter().filter(|(_, time)| time.0 > 0.0).collect(),
        critical,
        messages,
        idle,
        critical_stages: path.len(),
    }
}

impl ModuleTime {
    fn none(module: &str) -> Self {
        Self { module: module.to_owned(), kinds: [Seconds::ZERO; 3] }
    }

    fn add(&mut self, kind: TaskKind, time: Seconds) {
        self.kinds[shade(kind)] += time;
    }

    /// The sum of its kinds.
    pub fn sum(&self) -> Seconds {
        self.kinds.iter().copied().sum()
    }
}
