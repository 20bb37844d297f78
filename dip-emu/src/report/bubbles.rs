//! Why ranks wait: every gap between two stages of a rank, split by its causes.
//!
//! ```text
//! stage | waits for a stage of another rank | result on its way | inputs are there | stage
//!         dependency, late, order, memory     communication       runtime
//! ```

use std::fmt;

use dip_core::{Bytes, Plan, RankId, Seconds, Span, TaskId, TaskKind, Trace};

use super::memory::{MemoryCurve, memory};

/// Number of later stages of a rank that are tried in a gap. It bounds the time for plans of very many stages.
const TRIED: usize = 256;

/// Why a rank waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BubbleCause {
    /// The input of the next stage is still computed on another rank, and no other stage of this rank could run.
    Dependency,
    /// The input of the next stage is on its way.
    Communication,
    /// A forward is ready, but its activations do not fit in the memory limit.
    Memory,
    /// Another stage of the rank is ready and fits, but the plan has it later.
    Order,
    /// The input is later than planned: a stage of another rank took longer or began later. Measured runs only.
    Late,
    /// All inputs are there, and the stage has not begun: the runtime's own time. Measured runs only.
    Runtime,
    /// The rank has no work left while others still run.
    Imbalance,
}

impl BubbleCause {
    /// All causes, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Dependency,
        Self::Communication,
        Self::Memory,
        Self::Order,
        Self::Late,
        Self::Runtime,
        Self::Imbalance,
    ];

    /// What the cause means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Dependency => "the input is still computed on another rank",
            Self::Communication => "the input is on its way",
            Self::Memory => "a forward is ready, but does not fit in memory",
            Self::Order => "another stage is ready, but planned later",
            Self::Late => "the input is later than planned",
            Self::Runtime => "the inputs are there, the stage has not begun",
            Self::Imbalance => "no work left on this rank",
        }
    }
}

impl fmt::Display for BubbleCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dependency => "dependency",
            Self::Communication => "communication",
            Self::Memory => "memory",
            Self::Order => "order",
            Self::Late => "late input",
            Self::Runtime => "runtime",
            Self::Imbalance => "imbalance",
        })
    }
}

/// A time in which a rank waits for one reason.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bubble {
    /// The rank that waits.
    pub rank: RankId,
    /// Since the start of the iteration.
    pub start: Seconds,
    /// Its end.
    pub end: Seconds,
    /// The reason.
    pub cause: BubbleCause,
    /// The stage that the rank waits for; `None` after its last one.
    pub next: Option<TaskId>,
}

/// Returns the bubbles of every rank in order of time. With the stages of the rank they fill the time from 0 to the last end of
/// `trace`. Spans of tasks that the plan does not have are left out.
pub fn bubbles(plan: &Plan, trace: &Trace) -> Vec<Vec<Bubble>> {
    let run = Run::of(plan, trace);
    let end = trace.spans.iter().map(|s| s.end).fold(Seconds::ZERO, Seconds::max);
    (0..run.spans.len()).map(|rank| run.bubbles_of(rank, end)).collect()
}

/// A trace by rank and by task.
struct Run<'a> {
    plan: &'a Plan,
    /// The spans of every rank in order of time.
    spans: Vec<Vec<Span>>,
    memory: Vec<MemoryCurve>,
    /// The end of every task; `None` if it did not run.
    ends: Vec<Option<Seconds>>,
}

/// The inputs of a stage.
struct Inputs {
    /// The end of the last stage that it needs.
    made: Seconds,
    /// The arrival of the last result.
    arrived: Seconds,
}

impl<'a> Run<'a> {
    fn of(plan: &'a Plan, trace: &Trace) -> Self {
        let graph = &plan.graph;
        let mut spans = vec![Vec::new(); graph.ranks as usize];
        let mut ends = vec![None; graph.tasks.len()];
        for &span in &trace.spans {
            let known = ends.get_mut(span.task.index());
            if let (Some(end), Some(rank)) = (known, spans.get_mut(span.rank.index())) {
                *end = Some(span.end);
                rank.push(span);
            }
        }
        Self { plan, spans, memory: memory(graph, trace), ends }
    }

    fn inputs(&self, task: TaskId) -> Inputs {
        let mut inputs = Inputs { made: Seconds::ZERO, arrived: Seconds::ZERO };
        for dep in &self.plan.graph.task(task).deps {
            let Some(end) = self.ends[dep.task.index()] else { continue };
            inputs.made = inputs.made.max(end);
            inputs.arrived = inputs.arrived.max(end + dep.comm_s);
        }
        inputs
    }

    fn bubbles_of(&self, rank: usize, end: Seconds) -> Vec<Bubble> {
        let rank_id = RankId::from(rank);
        let mut parts = Parts { rank: rank_id, bubbles: Vec::new(), at: Seconds::ZERO, next: None };
        for (place, span) in self.spans[rank].iter().enumerate() {
            parts.next = Some(span.task);
            let inputs = self.inputs(span.task);
            if span.start > parts.at {
                self.waits(rank, place, inputs.made.min(span.start), &mut parts);
                parts.until(inputs.arrived.min(span.start), BubbleCause::Communication);
                parts.until(span.start, BubbleCause::Runtime);
            }
            parts.at = parts.at.max(span.end);
        }
        parts.next = None;
        parts.until(end, BubbleCause::Imbalance);
        parts.bubbles
    }

    /// Splits the time until the input of the stage at `place` is made.
    fn waits(&self, rank: usize, place: usize, made: Seconds, parts: &mut Parts) {
        let next = self.spans[rank][place].task;
        let planned = self.plan.predicted.start_s.get(next.index()).copied();
        let on_time = planned.map_or(made, |planned| planned.min(made));
        if on_time > parts.at {
            let (ready, cause) = self.other_work(rank, place, parts.at, on_time);
            parts.until(ready, BubbleCause::Dependency);
            parts.until(on_time, cause);
        }
        parts.until(made, BubbleCause::Late);
    }

    /// When another stage of the rank is first ready between `from` and `until`, and why it did not run.
    fn other_work(
        &self,
        rank: usize,
        place: usize,
        from: Seconds,
        until: Seconds,
    ) -> (Seconds, BubbleCause) {
        let graph = &self.plan.graph;
        let points = &self.memory[rank].points;
        let held = points.partition_point(|p| p.0 <= from).checked_sub(1);
        let held = held.map_or(Bytes::ZERO, |i| points[i].1);
        let limit = graph.memory_limit_bytes.get(rank).copied().unwrap_or(Bytes::UNLIMITED);
        let mut found = (until, BubbleCause::Dependency);
        for span in self.spans[rank].iter().skip(place + 1).take(TRIED) {
            let task = graph.task(span.task);
            let ready = self.inputs(span.task).arrived.max(from);
            if ready >= until {
                continue;
            }
            let bytes =
                if task.kind == TaskKind::Forward { task.activation_bytes } else { Bytes::ZERO };
            let fits = held.0.saturating_add(bytes.0) <= limit.0;
            let cause = if fits { BubbleCause::Order } else { BubbleCause::Memory };
            // A stage that fits explains more than one that does not.
            if (fits && found.1 != BubbleCause::Order)
                || (found.1 == cause && ready < found.0)
                || found.0 == until
            {
                found = (ready, cause);
            }
        }
        found
    }
}

/// The bubbles of one rank so far.
struct Parts {
    rank: RankId,
    bubbles: Vec<Bubble>,
    /// Up to here all time is explained.
    at: Seconds,
    next: Option<TaskId>,
}

impl Parts {
    fn until(&mut self, end: Seconds, cause: BubbleCause) {
        if end > self.at {
            let (rank, start, next) = (self.rank, self.at, self.next);
            self.bubbles.push(Bubble { rank, start, end, cause, next });
            self.at = end;
        }
    }
}
