//! A task graph as flat arrays: what every schedule and search works on.
//!
//! Tasks keep their ids. Edges are compressed rows in both directions; the order inside a stage pair (forward, backward,
//! weight) is an edge as well, also where the graph does not say so. The memory strategy of a pair is a [`Choice`], so that a
//! search can change durations and bytes without touching the graph.

use std::collections::HashMap;

use dip_core::{Pair, RankId, ScheduleError, TaskGraph, TaskId, TaskKind};

/// Marks the absence of a task.
pub(crate) const NONE: u32 = u32::MAX;

/// Compressed rows of edges with their communication times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edges {
    offsets: Vec<u32>,
    items: Vec<(u32, f64)>,
}

impl Edges {
    fn of(n: usize, edges: impl Iterator<Item = (u32, u32, f64)> + Clone) -> Self {
        let mut offsets = vec![0u32; n + 1];
        for (from, _, _) in edges.clone() {
            offsets[from as usize + 1] += 1;
        }
        for i in 0..n {
            offsets[i + 1] += offsets[i];
        }
        let mut cursor = offsets.clone();
        let mut items = vec![(0, 0.0); offsets[n] as usize];
        for (from, to, comm) in edges {
            let slot = &mut cursor[from as usize];
            items[*slot as usize] = (to, comm);
            *slot += 1;
        }
        Self { offsets, items }
    }

    /// The edges of one task.
    #[inline]
    pub(crate) fn of_task(&self, task: usize) -> &[(u32, f64)] {
        &self.items[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }
}

/// One memory strategy of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Strand {
    /// Duration of the forward.
    pub(crate) forward_s: f64,
    /// Duration of the backward task.
    pub(crate) backward_s: f64,
    /// Bytes of the pair.
    pub(crate) bytes: u64,
}

/// The candidate chosen for each pair, by its index.
pub(crate) type Choice = Vec<u16>;

/// The flat form of a task graph.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) n: usize,
    pub(crate) ranks: usize,
    pub(crate) rank: Vec<u32>,
    pub(crate) kind: Vec<TaskKind>,
    pub(crate) microbatch: Vec<u32>,
    /// Segment group of each task: the segments of one module of one microbatch.
    pub(crate) group: Vec<u32>,
    pub(crate) groups: usize,
    /// Slice of each task: the segments of one sub-microbatch of a group.
    pub(crate) slice: Vec<u32>,
    pub(crate) slices: usize,
    /// Model chunk of each task: its module and segment.
    pub(crate) chunk: Vec<u32>,
    pub(crate) chunks: usize,
    /// The pair of each task.
    pub(crate) pair: Vec<u32>,
    pub(crate) pairs: Vec<Pair>,
    /// The strategies of each pair: at least one.
    pub(crate) strands: Vec<Vec<Strand>>,
    /// Whether any pair has more than one strategy.
    pub(crate) has_choice: bool,
    /// Duration of every weight task and of every task without a choice.
    base_s: Vec<f64>,
    pub(crate) preds: Edges,
    pub(crate) succs: Edges,
    /// A topological order, smaller microbatches and ids first.
    pub(crate) topo: Vec<u32>,
    /// Tasks of each rank.
    pub(crate) by_rank: Vec<Vec<u32>>,
    /// Memory limit less static bytes; `None` where every pair fits at once whatever is chosen.
    pub(crate) budget: Vec<Option<u64>>,
    /// Static bytes, for messages.
    pub(crate) static_bytes: Vec<u64>,
    /// Memory limits, for messages.
    pub(crate) limit: Vec<u64>,
}

/// Durations and bytes of every task under one choice.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
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
    /// [`ScheduleError::Cycle`], [`ScheduleError::Infeasible`] where static bytes exceed a limit, and
    /// [`ScheduleError::NotApplicable`] for a graph that the checker would refuse.
    pub(crate) fn new(graph: &TaskGraph, schedule: &str) -> Result<Self, ScheduleError> {
        validate(graph, schedule)?;
        let n = graph.tasks.len();
        let ranks = graph.ranks as usize;
        let pairs = graph.pairs();
        let pair = pair_of_task(graph, &pairs, schedule)?;
        let edges = all_edges(graph, &pairs);
        let succs = Edges::of(n, edges.iter().copied());
        let preds = Edges::of(n, edges.iter().map(|&(a, b, c)| (b, a, c)));
        let topo = topological(graph, &preds, &succs)?;
        let mut by_rank = vec![Vec::new(); ranks];
        for &t in &topo {
            by_rank[graph.tasks[t as usize].rank.index()].push(t);
        }
        let (group, groups) = numbered(graph, |t| (&*t.module, t.microbatch.0, 0));
        let (slice, slices) = numbered(graph, |t| (&*t.module, t.microbatch.0, t.sub_microbatch.0));
        let (chunk, chunks) = numbered(graph, |t| (&*t.module, t.segment.0, 0));
        let strands: Vec<_> = pairs.iter().map(|p| strands(graph, p)).collect();
        let mut problem = Self {
            n,
            ranks,
            rank: graph.tasks.iter().map(|t| t.rank.0).collect(),
            kind: graph.tasks.iter().map(|t| t.kind).collect(),
            microbatch: microbatches(graph),
            group,
            groups,
            slice,
            slices,
            chunk,
            chunks,
            pair,
            pairs,
            has_choice: strands.iter().any(|s| s.len() > 1),
            strands,
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

    /// Memory left beside the static bytes on every rank where it may run out.
    fn budgets(&self) -> Result<Vec<Option<u64>>, ScheduleError> {
        let mut most = vec![0u64; self.ranks];
        for (pair, strands) in self.pairs.iter().zip(&self.strands) {
            let largest = strands.iter().map(|s| s.bytes).max().unwrap_or(0);
            let total = &mut most[self.rank[pair.forward.index()] as usize];
            *total = total.saturating_add(largest);
        }
        (0..self.ranks)
            .map(|r| {
                let left = self.limit[r]
                    .checked_sub(self.static_bytes[r])
                    .ok_or_else(|| self.infeasible(r, self.static_bytes[r]))?;
                Ok((most[r] > left && self.limit[r] != u64::MAX).then_some(left))
            })
            .collect()
    }

    /// The error for a rank that needs `needed` bytes, static ones included.
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

    /// The strategy of least key for every pair; the first of equals.
    pub(crate) fn choose(&self, key: impl Fn(&Strand) -> (f64, f64)) -> Choice {
        let least = |strands: &Vec<Strand>| {
            let mut best = 0;
            for (i, s) in strands.iter().enumerate().skip(1) {
                if key(s) < key(&strands[best]) {
                    best = i;
                }
            }
            best as u16
        };
        self.strands.iter().map(least).collect()
    }

    /// Durations and bytes under a choice.
    pub(crate) fn costs(&self, choice: &[u16]) -> Costs {
        let mut costs =
            Costs { dur: self.base_s.clone(), acquire: vec![0; self.n], release: vec![0; self.n] };
        for (p, &c) in choice.iter().enumerate() {
            self.set_costs(&mut costs, p, c);
        }
        costs
    }

    /// Gives one pair another strategy.
    pub(crate) fn set_costs(&self, costs: &mut Costs, pair: usize, choice: u16) {
        let (p, s) = (&self.pairs[pair], &self.strands[pair][choice as usize]);
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

/// The place of each task's microbatch among those of the graph: their numbers may leave any out.
fn microbatches(graph: &TaskGraph) -> Vec<u32> {
    let mut all: Vec<u32> = graph.tasks.iter().map(|t| t.microbatch.0).collect();
    all.sort_unstable();
    all.dedup();
    let place = |m: u32| all.partition_point(|&other| other < m) as u32;
    graph.tasks.iter().map(|t| place(t.microbatch.0)).collect()
}

fn validate(graph: &TaskGraph, schedule: &str) -> Result<(), ScheduleError> {
    let ranks = graph.ranks as usize;
    let sound = ranks > 0
        && graph.memory_limit_bytes.len() == ranks
        && graph.static_bytes.len() == ranks
        && graph.tasks.iter().enumerate().all(|(i, t)| {
            t.id.index() == i
                && t.rank.index() < ranks
                && is_time(t.duration_s.0)
                && t.deps.iter().all(|d| d.task.index() < graph.tasks.len() && is_time(d.comm_s.0))
                && t.candidates.iter().all(|c| is_time(c.forward_s.0) && is_time(c.backward_s.0))
                && t.candidates.len() <= usize::from(u16::MAX)
        });
    if sound {
        return Ok(());
    }
    let first = dip_core::check_graph(graph).first().map(ToString::to_string);
    Err(not_applicable(schedule, first.unwrap_or_else(|| "the graph is malformed".into())))
}

fn is_time(seconds: f64) -> bool {
    seconds.is_finite() && seconds >= 0.0
}

fn not_applicable(schedule: &str, what: String) -> ScheduleError {
    let reason = format!("{what}; run `dip check` on the graph and correct it");
    ScheduleError::NotApplicable { schedule: schedule.into(), reason }
}

fn pair_of_task(
    graph: &TaskGraph,
    pairs: &[Pair],
    schedule: &str,
) -> Result<Vec<u32>, ScheduleError> {
    let mut pair = vec![NONE; graph.tasks.len()];
    for (i, p) in pairs.iter().enumerate() {
        for id in [Some(p.forward), p.backward, p.weight].into_iter().flatten() {
            pair[id.index()] = i as u32;
        }
    }
    let lost = pair.iter().position(|&p| p == NONE);
    let half = pairs.iter().find(|p| p.weight.is_some() && p.backward.is_none());
    match (lost, half.and_then(|p| p.weight)) {
        (None, None) => Ok(pair),
        (Some(i), _) => {
            Err(not_applicable(schedule, format!("task {i} belongs to no stage pair of its own")))
        }
        (_, Some(w)) => Err(not_applicable(schedule, format!("weight task {w} has no backward"))),
    }
}

fn all_edges(graph: &TaskGraph, pairs: &[Pair]) -> Vec<(u32, u32, f64)> {
    let mut edges: Vec<(u32, u32, f64)> = Vec::new();
    for task in &graph.tasks {
        edges.extend(task.deps.iter().map(|d| (d.task.0, task.id.0, d.comm_s.0)));
    }
    let mut inside = |before: Option<TaskId>, after: Option<TaskId>| {
        if let (Some(a), Some(b)) = (before, after)
            && graph.task(b).deps.iter().all(|d| d.task != a)
        {
            edges.push((a.0, b.0, 0.0));
        }
    };
    for p in pairs {
        inside(Some(p.forward), p.backward);
        inside(p.backward, p.weight);
    }
    edges
}

fn topological(graph: &TaskGraph, preds: &Edges, succs: &Edges) -> Result<Vec<u32>, ScheduleError> {
    let n = graph.tasks.len();
    let mut waiting: Vec<u32> = (0..n).map(|i| preds.of_task(i).len() as u32).collect();
    let key = |i: usize| std::cmp::Reverse((graph.tasks[i].microbatch.0, i as u32));
    let ready = (0..n).filter(|&i| waiting[i] == 0).map(key);
    let mut ready: std::collections::BinaryHeap<_> = ready.collect();
    let mut topo = Vec::with_capacity(n);
    while let Some(std::cmp::Reverse((_, i))) = ready.pop() {
        topo.push(i);
        for &(s, _) in succs.of_task(i as usize) {
            waiting[s as usize] -= 1;
            if waiting[s as usize] == 0 {
                ready.push(key(s as usize));
            }
        }
    }
    if topo.len() == n {
        return Ok(topo);
    }
    // Walking backwards from a task that waits only ever meets tasks that wait, and so ends on a cycle.
    let stuck = |i: &usize| waiting[*i] > 0;
    let mut at = (0..n).find(stuck).unwrap_or(0);
    for _ in 0..n {
        let before = preds.of_task(at).iter().map(|&(p, _)| p as usize).find(stuck);
        at = before.unwrap_or(at);
    }
    Err(ScheduleError::Cycle { task: TaskId::from(at) })
}

/// Numbers the keys of tasks in the order in which they first come; gives the number of each task and how many there are.
fn numbered<'a>(
    graph: &'a TaskGraph,
    key: impl Fn(&'a dip_core::Task) -> (&'a str, u32, u32),
) -> (Vec<u32>, usize) {
    let mut index: HashMap<(&str, u32, u32), u32> = HashMap::new();
    let mut number = |t: &'a dip_core::Task| {
        let next = index.len() as u32;
        *index.entry(key(t)).or_insert(next)
    };
    let numbers = graph.tasks.iter().map(&mut number).collect();
    (numbers, index.len())
}

fn strands(graph: &TaskGraph, pair: &Pair) -> Vec<Strand> {
    let forward = graph.task(pair.forward);
    let backward_s = pair.backward.map_or(0.0, |b| graph.task(b).duration_s.0);
    if forward.candidates.is_empty() {
        let forward_s = forward.duration_s.0;
        return vec![Strand { forward_s, backward_s, bytes: forward.activation_bytes.0 }];
    }
    let of = |c: &dip_core::Candidate| Strand {
        forward_s: c.forward_s.0,
        backward_s: if pair.backward.is_some() { c.backward_s.0 } else { 0.0 },
        bytes: c.activation_bytes.0,
    };
    forward.candidates.iter().map(of).collect()
}
