//! A task graph as flat arrays. All schedules and searches work on this form.
//!
//! Tasks keep their ids. Edges are stored as compressed rows in both directions. The order inside a stage pair (forward,
//! backward, weight) is an edge too, even if the graph does not state it. The memory strategies of all pairs are a [`Choice`], so
//! a search changes durations and bytes without touching the graph.

mod edges;
pub(crate) mod evaluate;
mod flatten;
mod solution;

pub(crate) use edges::Edges;
pub(crate) use solution::Solution;

use dip_core::{Pair, RankId, ScheduleError, TaskGraph, TaskKind};

use flatten::{
    all_edges, microbatch_indices, number_tasks, pair_of_task, strategy_costs, topological,
    validate,
};

/// No task.
pub(crate) const NONE: u32 = u32::MAX;

/// Seconds and bytes of a stage pair under one memory strategy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StrategyCost {
    /// Duration of the forward.
    pub(crate) forward_s: f64,
    /// Duration of the backward task.
    pub(crate) backward_s: f64,
    /// Activation bytes that the pair holds.
    pub(crate) bytes: u64,
}

/// The tasks of each rank, in the order in which the rank runs them.
pub(crate) type Order = Vec<Vec<u32>>;

/// The index of the strategy of each pair.
pub(crate) type Choice = Vec<u16>;

/// The flat form of a task graph.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) n: usize,
    pub(crate) ranks: usize,
    pub(crate) rank: Vec<u32>,
    pub(crate) kind: Vec<TaskKind>,
    pub(crate) microbatch: Vec<u32>,
    /// Segment group of each task: all segments of one module for one microbatch.
    pub(crate) group: Vec<u32>,
    pub(crate) groups: usize,
    /// Slice of each task: the part of its group that belongs to one sub-microbatch.
    pub(crate) slice: Vec<u32>,
    pub(crate) slices: usize,
    /// Model chunk of each task: a module and a segment.
    pub(crate) chunk: Vec<u32>,
    pub(crate) chunks: usize,
    /// The pair of each task.
    pub(crate) pair: Vec<u32>,
    pub(crate) pairs: Vec<Pair>,
    /// The strategies of each pair, at least one.
    pub(crate) strategies: Vec<Vec<StrategyCost>>,
    /// True if any pair has more than one strategy.
    pub(crate) has_choice: bool,
    /// Duration of each task in the graph; holds for weight tasks, which no strategy changes.
    base_s: Vec<f64>,
    pub(crate) preds: Edges,
    pub(crate) succs: Edges,
    /// A topological order; ties go to the smaller microbatch, then the smaller id.
    pub(crate) topo: Vec<u32>,
    /// Tasks of each rank, in topological order.
    pub(crate) by_rank: Vec<Vec<u32>>,
    /// Memory limit minus static bytes. `None` if all pairs of the rank fit at once under any choice.
    pub(crate) budget: Vec<Option<u64>>,
    /// Static bytes, for messages.
    pub(crate) static_bytes: Vec<u64>,
    /// Memory limits, for messages.
    pub(crate) limit: Vec<u64>,
}

/// Durations and bytes of every task under one choice.
#[derive(Debug, Clone)]
pub(crate) struct TaskCosts {
    /// Duration of each task.
    pub(crate) dur: Vec<f64>,
    /// Bytes taken at the start of each task.
    pub(crate) acquire: Vec<u64>,
    /// Bytes given back at the end of each task.
    pub(crate) release: Vec<u64>,
}

impl Problem {
    /// Flattens a graph.
    ///
    /// # Errors
    /// [`ScheduleError::Cycle`]; [`ScheduleError::Infeasible`] if static bytes exceed a limit;
    /// [`ScheduleError::NotApplicable`] if the checker would refuse the graph.
    pub(crate) fn new(graph: &TaskGraph, schedule: &str) -> Result<Self, ScheduleError> {
        validate(graph, schedule)?;
        let n = graph.tasks.len();
        let ranks = graph.ranks as usize;
        let pairs = graph.pairs();
        let pair = pair_of_task(graph, &pairs, schedule)?;
        let edges = all_edges(graph, &pairs);
        let succs = Edges::new(n, edges.iter().copied());
        let preds = Edges::new(n, edges.iter().map(|&(a, b, c)| (b, a, c)));
        let topo = topological(graph, &preds, &succs)?;
        let mut by_rank = vec![Vec::new(); ranks];
        for &t in &topo {
            by_rank[graph.tasks[t as usize].rank.index()].push(t);
        }
        let (group, groups) = number_tasks(graph, |t| (&*t.module, t.microbatch.0, 0));
        let (slice, slices) =
            number_tasks(graph, |t| (&*t.module, t.microbatch.0, t.sub_microbatch.0));
        let (chunk, chunks) = number_tasks(graph, |t| (&*t.module, t.segment.0, 0));
        let strategies: Vec<_> = pairs.iter().map(|p| strategy_costs(graph, p)).collect();
        let mut problem = Self {
            n,
            ranks,
            rank: graph.tasks.iter().map(|t| t.rank.0).collect(),
            kind: graph.tasks.iter().map(|t| t.kind).collect(),
            microbatch: microbatch_indices(graph),
            group,
            groups,
            slice,
            slices,
            chunk,
            chunks,
            pair,
            pairs,
            has_choice: strategies.iter().any(|s| s.len() > 1),
            strategies,
            base_s: graph.tasks.iter().map(|t| t.duration_s.0).collect(),
            preds,
            succs,
            topo,
            by_rank,
            budget: Vec::new(),
            static_bytes: graph.static_bytes.iter().map(|b| b.0).collect(),
            limit: graph.memory_limit_bytes.iter().map(|b| b.0).collect(),
        };
        problem.budget = problem.budgets()?;
        Ok(problem)
    }

    /// The same problem with longer messages between ranks: each takes `share` of the time of its sender longer, with the fastest
    /// strategies.
    pub(crate) fn with_slack(&self, share: f64) -> Self {
        let dur = self.costs(&self.fastest()).dur;
        let extra = |from: usize, to: usize| {
            if self.rank[from] == self.rank[to] { 0.0 } else { share * dur[from] }
        };
        let succs = self.succs.with_comm(|from, to, comm| comm + extra(from, to));
        let preds = self.preds.with_comm(|to, from, comm| comm + extra(from, to));
        Self { succs, preds, ..self.clone() }
    }

    /// Bytes left for activations on each rank that may run out of memory.
    fn budgets(&self) -> Result<Vec<Option<u64>>, ScheduleError> {
        let mut all_pairs = vec![0u64; self.ranks];
        for (pair, strategies) in self.pairs.iter().zip(&self.strategies) {
            let largest = strategies.iter().map(|s| s.bytes).max().unwrap_or(0);
            let total = &mut all_pairs[self.rank[pair.forward.index()] as usize];
            *total = total.saturating_add(largest);
        }
        (0..self.ranks)
            .map(|r| {
                let left = self.limit[r]
                    .checked_sub(self.static_bytes[r])
                    .ok_or_else(|| self.infeasible(r, self.static_bytes[r]))?;
                Ok((all_pairs[r] > left && self.limit[r] != u64::MAX).then_some(left))
            })
            .collect()
    }

    /// The number of microbatches.
    pub(crate) fn microbatches(&self) -> usize {
        self.microbatch.iter().max().map_or(0, |&m| m as usize + 1)
    }

    /// True if any rank may run out of memory.
    pub(crate) fn is_limited(&self) -> bool {
        self.budget.iter().any(Option::is_some)
    }

    /// The number of predecessors of each task.
    pub(crate) fn in_degrees(&self) -> Vec<u32> {
        (0..self.n).map(|t| self.preds.of_task(t).len() as u32).collect()
    }

    /// The error for a rank that needs `needed` bytes, including static ones.
    pub(crate) fn infeasible(&self, rank: usize, needed: u64) -> ScheduleError {
        ScheduleError::Infeasible {
            rank: RankId::from(rank),
            needed: dip_core::Bytes(needed),
            limit: dip_core::Bytes(self.limit[rank]),
        }
    }

    /// The fastest strategy of every pair.
    pub(crate) fn fastest(&self) -> Choice {
        self.choose(|s| (s.forward_s + s.backward_s, s.bytes as f64))
    }

    /// The strategy with the least key for every pair; the first one on ties.
    pub(crate) fn choose(&self, key: impl Fn(&StrategyCost) -> (f64, f64)) -> Choice {
        let least = |strategies: &Vec<StrategyCost>| {
            let mut best = 0;
            for (i, s) in strategies.iter().enumerate().skip(1) {
                if key(s) < key(&strategies[best]) {
                    best = i;
                }
            }
            best as u16
        };
        self.strategies.iter().map(least).collect()
    }

    /// Durations and bytes under a choice.
    pub(crate) fn costs(&self, choice: &[u16]) -> TaskCosts {
        let mut costs = TaskCosts {
            dur: self.base_s.clone(),
            acquire: vec![0; self.n],
            release: vec![0; self.n],
        };
        for (p, &c) in choice.iter().enumerate() {
            self.set_costs(&mut costs, p, c);
        }
        costs
    }

    /// Updates `costs` for one pair that takes strategy `choice`.
    pub(crate) fn set_costs(&self, costs: &mut TaskCosts, pair: usize, choice: u16) {
        let (p, s) = (&self.pairs[pair], &self.strategies[pair][choice as usize]);
        costs.dur[p.forward.index()] = s.forward_s;
        if let Some(b) = p.backward {
            costs.dur[b.index()] = s.backward_s;
        }
        costs.acquire[p.forward.index()] = s.bytes;
        costs.release[p.release().index()] = s.bytes;
    }

    /// Longest path from the end of each task to the end of the iteration.
    pub(crate) fn tails(&self, dur: &[f64]) -> Vec<f64> {
        let mut tail = vec![0.0f64; self.n];
        for &t in self.topo.iter().rev() {
            let t = t as usize;
            for &(s, comm) in self.succs.of_task(t) {
                tail[t] = tail[t].max(comm + dur[s as usize] + tail[s as usize]);
            }
        }
        tail
    }

    /// Longest path from the start of the iteration to the start of each task.
    pub(crate) fn heads(&self, dur: &[f64]) -> Vec<f64> {
        let mut head = vec![0.0f64; self.n];
        for &t in &self.topo {
            let t = t as usize;
            for &(p, comm) in self.preds.of_task(t) {
                head[t] = head[t].max(head[p as usize] + dur[p as usize] + comm);
            }
        }
        head
    }
}
