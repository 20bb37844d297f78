//! The parts of a flat problem: edges, pairs, a topological order, and numbers for groups of tasks.

use std::collections::HashMap;

use dip_core::{Pair, ScheduleError, TaskGraph, TaskId};

use super::{Edges, NONE, StrategyCost};

/// The index of each task's microbatch among all microbatches of the graph, whose numbers may have gaps.
pub(super) fn microbatch_indices(graph: &TaskGraph) -> Vec<u32> {
    let mut all: Vec<u32> = graph.tasks.iter().map(|t| t.microbatch.0).collect();
    all.sort_unstable();
    all.dedup();
    let place = |m: u32| all.partition_point(|&other| other < m) as u32;
    graph.tasks.iter().map(|t| place(t.microbatch.0)).collect()
}

/// Checks what the other functions rely on; the checker names the first violation.
pub(super) fn validate(graph: &TaskGraph, schedule: &str) -> Result<(), ScheduleError> {
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

/// The pair of each task.
pub(super) fn pair_of_task(
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
            Err(not_applicable(schedule, format!("task {i} is a duplicate or has no forward")))
        }
        (_, Some(w)) => Err(not_applicable(schedule, format!("weight task {w} has no backward"))),
    }
}

/// Dependencies, and the edges inside pairs that the graph does not state: from, to, seconds of communication.
pub(super) fn all_edges(graph: &TaskGraph, pairs: &[Pair]) -> Vec<(u32, u32, f64)> {
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

/// A topological order; ties go to the smaller microbatch, then the smaller id.
pub(super) fn topological(
    graph: &TaskGraph,
    preds: &Edges,
    succs: &Edges,
) -> Result<Vec<u32>, ScheduleError> {
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
    // Every waiting task has a waiting predecessor, so walking backwards ends on a cycle.
    let stuck = |i: &usize| waiting[*i] > 0;
    let mut at = (0..n).find(stuck).unwrap_or(0);
    for _ in 0..n {
        let before = preds.of_task(at).iter().map(|&(p, _)| p as usize).find(stuck);
        at = before.unwrap_or(at);
    }
    Err(ScheduleError::Cycle { task: TaskId::from(at) })
}

/// Numbers the different keys of tasks by first appearance. Returns the number of each task, and how many numbers there are.
pub(super) fn number_tasks<'a>(
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

/// The strategies of a pair; its own duration and bytes if the graph lists no candidates.
pub(super) fn strategy_costs(graph: &TaskGraph, pair: &Pair) -> Vec<StrategyCost> {
    let forward = graph.task(pair.forward);
    let backward_s = pair.backward.map_or(0.0, |b| graph.task(b).duration_s.0);
    if forward.candidates.is_empty() {
        let forward_s = forward.duration_s.0;
        return vec![StrategyCost { forward_s, backward_s, bytes: forward.activation_bytes.0 }];
    }
    let of = |c: &dip_core::Candidate| StrategyCost {
        forward_s: c.forward_s.0,
        backward_s: if pair.backward.is_some() { c.backward_s.0 } else { 0.0 },
        bytes: c.activation_bytes.0,
    };
    forward.candidates.iter().map(of).collect()
}
