//! V-Half and V-Min (Pipeline Parallelism with Controllable Memory).
//!
//! A building block is the slots of one microbatch on every rank, where each task takes one slot. It repeats every six slots. The
//! number of slots between a forward and its weight gradient, divided by six, is the number of pairs that a rank holds. Repeated
//! blocks leave free slots while the pipeline fills and drains. Tasks move into these slots as long as no rank holds more than the
//! repeated blocks do.

use dip_core::TaskKind::{Backward, Forward, Weight};
use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::step::{Step, index};

/// Slots between two blocks: a forward, a backward and a weight gradient on each visit.
const PERIOD: usize = 6;

/// V-Half: every rank holds about half of the activations of 1F1B; half of its bubble.
#[derive(Debug, Clone, Copy, Default)]
pub struct VHalf;

/// V-Min: every rank holds about a third of the activations of 1F1B; two thirds of its bubble.
#[derive(Debug, Clone, Copy, Default)]
pub struct VMin;

impl Schedule for VHalf {
    fn name(&self) -> &str {
        "v_half"
    }

    fn description(&self) -> &str {
        "half the activations of 1F1B, on a wave of two chunks per rank (V-Half)"
    }

    fn placement(&self) -> Placement {
        super::PLACEMENT
    }

    fn splits_weights(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        super::plan(self.name(), graph, env, half_steps)
    }
}

impl Schedule for VMin {
    fn name(&self) -> &str {
        "v_min"
    }

    fn description(&self) -> &str {
        "a third of the activations of 1F1B, on a wave of two chunks per rank (V-Min)"
    }

    fn placement(&self) -> Placement {
        super::PLACEMENT
    }

    fn splits_weights(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        super::plan(self.name(), graph, env, min_steps)
    }
}

/// The steps of V-Half.
pub(super) fn half_steps(ranks: usize, microbatches: usize) -> Result<Vec<Vec<Step>>, String> {
    // Tasks of two chunks must not share a slot.
    let delay = if ranks.is_multiple_of(2) { 3 } else { 0 };
    Ok(steps(ranks, microbatches, |position| Block {
        forward: [2 * position, 3 * ranks - position - 2],
        backward: [6 * ranks + delay - position - 2, 3 * ranks + delay + 2 * position - 1],
    }))
}

/// The steps of V-Min.
pub(super) fn min_steps(ranks: usize, microbatches: usize) -> Result<Vec<Vec<Step>>, String> {
    let delay = if ranks.is_multiple_of(3) { 2 } else { 0 };
    Ok(steps(ranks, microbatches, |position| Block {
        forward: [position, 2 * ranks - position - 1],
        backward: [4 * ranks + delay - position - 1, 2 * ranks + delay + position],
    }))
}

/// The slots of the first microbatch on one rank, by visit.
struct Block {
    forward: [usize; 2],
    backward: [usize; 2],
}

/// The steps of every rank: repeated blocks, and the same with free slots filled, whichever takes fewer slots.
fn steps(ranks: usize, microbatches: usize, block: impl Fn(usize) -> Block) -> Vec<Vec<Step>> {
    let repeated: Vec<_> = (0..ranks).map(|r| repeat(&block(r), microbatches)).collect();
    let held = repeated.iter().map(|steps| peak(steps)).max().unwrap_or(0);
    let (strict, filled) = (run(&repeated, held, 1), run(&repeated, held, ranks * 4 * PERIOD));
    if filled.slots < strict.slots { filled.steps } else { strict.steps }
}

/// The steps of one rank in the order of their slots. Weight gradients take free slots, in the order of their backwards.
fn repeat(block: &Block, microbatches: usize) -> Vec<Step> {
    let mut slots: Vec<(usize, Step)> = Vec::new();
    for microbatch in 0..microbatches {
        for visit in [0, 1] {
            for (kind, slot) in [(Forward, block.forward[visit]), (Backward, block.backward[visit])]
            {
                slots.push((slot + PERIOD * microbatch, Step { kind, visit, microbatch }));
            }
        }
    }
    slots.sort_unstable_by_key(|&(slot, _)| slot);
    let mut steps = Vec::with_capacity(3 * microbatches);
    let mut waiting = std::collections::VecDeque::new();
    let mut now = 0;
    for (slot, step) in slots {
        while now < slot && !waiting.is_empty() {
            steps.extend(waiting.pop_front());
            now += 1;
        }
        if step.kind == Backward {
            waiting.push_back(Step { kind: Weight, ..step });
        }
        steps.push(step);
        now = slot + 1;
    }
    steps.extend(waiting);
    steps
}

/// The largest number of pairs that a rank holds.
fn peak(steps: &[Step]) -> usize {
    let mut held = 0;
    let counts = steps.iter().map(|step| {
        held += usize::from(step.kind == Forward);
        let now = held;
        held -= usize::from(step.kind == Weight);
        now
    });
    counts.max().unwrap_or(0)
}

/// The steps that a run in slots gives, and how many slots it takes.
struct Run {
    steps: Vec<Vec<Step>>,
    slots: usize,
}

/// Runs the steps in slots. A rank that would wait takes the first of its next `window` steps that can run, a weight gradient only
/// if nothing else can. A forward runs early only if the rank then never holds more than `most` pairs.
fn run(repeated: &[Vec<Step>], most: usize, window: usize) -> Run {
    let ranks = repeated.len();
    let mut left: Vec<std::collections::VecDeque<Step>> =
        repeated.iter().map(|steps| steps.iter().copied().collect()).collect();
    let mut ends = Ends::new(repeated);
    let mut held = vec![0; ranks];
    let mut steps = vec![Vec::new(); ranks];
    let mut slots = 0;
    while left.iter().any(|steps| !steps.is_empty()) {
        for r in 0..ranks {
            let (mut level, mut high) = (held[r], held[r]);
            let (mut chosen, mut weight) = (None, None);
            for (i, &step) in left[r].iter().take(window).enumerate() {
                let ready = ends.ready(r, step, slots);
                match step.kind {
                    Forward if ready && high < most => chosen = Some(i),
                    Forward => level += 1,
                    Backward if ready => chosen = Some(i),
                    Backward => {}
                    Weight => {
                        weight = weight.or(ready.then_some(i));
                        level -= 1;
                    }
                }
                high = high.max(level);
                if chosen.is_some() {
                    break;
                }
            }
            if let Some(step) = chosen.or(weight).and_then(|i| left[r].remove(i)) {
                ends.set(r, step, slots + 1);
                held[r] += usize::from(step.kind == Forward);
                held[r] -= usize::from(step.kind == Weight);
                steps[r].push(step);
            }
        }
        slots += 1;
    }
    Run { steps, slots }
}

/// The end of every step of an ideal wave; `usize::MAX` before it has run.
struct Ends {
    ranks: usize,
    /// `of[position][visit][kind][microbatch]`.
    of: Vec<[[Vec<usize>; 3]; 2]>,
}

impl Ends {
    fn new(repeated: &[Vec<Step>]) -> Self {
        let of_rank = |steps: &Vec<Step>| {
            let microbatches = steps.iter().map(|s| s.microbatch + 1).max().unwrap_or(0);
            let kinds = || std::array::from_fn(|_| vec![usize::MAX; microbatches]);
            [kinds(), kinds()]
        };
        Self { ranks: repeated.len(), of: repeated.iter().map(of_rank).collect() }
    }

    fn set(&mut self, rank: usize, step: Step, end: usize) {
        self.of[rank][step.visit][index(step.kind)][step.microbatch] = end;
    }

    /// True if the steps before this one have ended by `slot`.
    fn ready(&self, rank: usize, step: Step, slot: usize) -> bool {
        let Step { kind, visit, microbatch } = step;
        let ended =
            |rank: usize, kind, visit: usize| self.of[rank][visit][index(kind)][microbatch] <= slot;
        // Forwards of the first visit and backwards of the second go down the ranks; the others come back.
        let down = (kind == Forward) == (visit == 0);
        let turn = if down { 0 } else { self.ranks - 1 };
        let before = if down { rank.wrapping_sub(1) } else { rank + 1 };
        match kind {
            Forward if rank != turn => ended(before, Forward, visit),
            Forward => visit == 0 || ended(rank, Forward, 0),
            Backward if rank != turn => {
                ended(before, Backward, visit) && ended(rank, Forward, visit)
            }
            Backward if visit == 0 => ended(rank, Backward, 1),
            Backward => ended(rank, Forward, 1),
            Weight => ended(rank, Backward, visit),
        }
    }
}
