//! Random valid graphs and orders. They have trained and frozen modules, segments, sub-microbatches, split backwards,
//! edges across microbatches, zero durations, and ids in random order.

use dip_core::{
    Bytes, Candidate, Dep, MicrobatchId, Plan, RankId, Seconds, SegmentId, Strategy,
    SubMicrobatchId, Task, TaskGraph, TaskId, TaskKind,
};

/// A small random number generator (SplitMix64). Equal seeds give equal graphs.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A duration from 0 to minutes.
    fn seconds(&mut self) -> Seconds {
        let scale = [0.0, 1e-6, 1e-3, 1.0][self.below(4)];
        Seconds(scale * (1 + self.below(1000)) as f64 / 7.0)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The largest sizes of a random graph.
#[derive(Clone, Copy)]
pub struct Size {
    pub ranks: usize,
    pub modules: usize,
    pub segments: usize,
    pub microbatches: usize,
    pub slices: usize,
    /// Percentage of tasks that also depend on a random earlier task.
    pub cross: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { ranks: 5, modules: 3, segments: 3, microbatches: 5, slices: 3, cross: 20 }
    }
}

/// A random graph.
pub fn graph(random: &mut Random, size: Size) -> TaskGraph {
    let ranks = 1 + random.below(size.ranks);
    let mut tasks: Vec<Task> = Vec::new();
    let modules: Vec<(String, usize, bool)> = (0..1 + random.below(size.modules))
        .map(|m| (format!("module-{m}"), 1 + random.below(size.segments), random.chance(70)))
        .collect();
    for microbatch in 0..random.below(size.microbatches + 1) {
        let mut last: Option<TaskId> = None;
        let mut pairs = Vec::new();
        for (module, segments, trained) in &modules {
            for slice in 0..random.below(size.slices + 1) {
                for chunk in 0..segments * ranks {
                    let task = Task {
                        id: TaskId::from(tasks.len()),
                        rank: RankId::from(chunk % ranks),
                        kind: TaskKind::Forward,
                        module: module.as_str().into(),
                        segment: SegmentId::from(chunk / ranks),
                        microbatch: MicrobatchId::from(microbatch),
                        sub_microbatch: SubMicrobatchId::from(slice),
                        duration_s: random.seconds(),
                        activation_bytes: Bytes(random.below(1000) as u64),
                        strategy: Strategy::keep(),
                        deps: deps(random, last, tasks.len(), size.cross),
                        candidates: Vec::new(),
                    };
                    last = Some(task.id);
                    if *trained {
                        pairs.push(task.id);
                    }
                    tasks.push(task);
                }
            }
        }
        for forward in pairs.into_iter().rev() {
            backward(random, forward, &mut last, size.cross, &mut tasks);
        }
    }
    renumber(random, &mut tasks);
    TaskGraph {
        model: "random \"model\"".into(),
        cluster: "random\tcluster".into(),
        ranks: ranks as u32,
        memory_limit_bytes: vec![Bytes::UNLIMITED; ranks],
        static_bytes: (0..ranks).map(|_| Bytes(random.below(500) as u64)).collect(),
        tasks,
    }
}

/// Edges from the previous stage and sometimes from a random earlier task.
fn deps(random: &mut Random, last: Option<TaskId>, n: usize, cross: usize) -> Vec<Dep> {
    let mut deps: Vec<Dep> =
        last.iter().map(|&task| Dep { task, comm_s: random.seconds() }).collect();
    if n > 0 && random.chance(cross) {
        let earlier = Dep { task: TaskId::from(random.below(n)), comm_s: random.seconds() };
        add_new(&mut deps, earlier);
    }
    deps
}

/// Adds an edge unless there is one from the same task.
fn add_new(deps: &mut Vec<Dep>, new: Dep) {
    if deps.iter().all(|dep| dep.task != new.task) {
        deps.push(new);
    }
}

fn backward(
    random: &mut Random,
    forward: TaskId,
    last: &mut Option<TaskId>,
    cross: usize,
    tasks: &mut Vec<Task>,
) {
    let mut own = vec![Dep { task: forward, comm_s: Seconds::ZERO }];
    for dep in deps(random, *last, tasks.len(), cross) {
        add_new(&mut own, dep);
    }
    let mut task = Task {
        id: TaskId::from(tasks.len()),
        kind: TaskKind::Backward,
        duration_s: random.seconds(),
        activation_bytes: Bytes::ZERO,
        deps: own,
        ..tasks[forward.index()].clone()
    };
    *last = Some(task.id);
    tasks.push(task.clone());
    if random.chance(30) {
        let keep = Candidate {
            strategy: Strategy::keep(),
            forward_s: tasks[forward.index()].duration_s,
            backward_s: task.duration_s,
            activation_bytes: tasks[forward.index()].activation_bytes,
        };
        tasks[forward.index()].candidates = vec![keep];
    }
    if random.chance(40) {
        task.deps = vec![Dep { task: task.id, comm_s: Seconds::ZERO }];
        task.id = TaskId::from(tasks.len());
        task.kind = TaskKind::Weight;
        task.duration_s = random.seconds();
        tasks.push(task);
    }
}

/// Gives the tasks random ids.
fn renumber(random: &mut Random, tasks: &mut [Task]) {
    let mut ids: Vec<u32> = (0..tasks.len() as u32).collect();
    random.shuffle(&mut ids);
    for task in tasks.iter_mut() {
        task.id = TaskId(ids[task.id.index()]);
        for dep in &mut task.deps {
            dep.task = TaskId(ids[dep.task.index()]);
        }
    }
    tasks.sort_by_key(|t| t.id);
}

/// A random order that the dependencies allow.
pub fn order(random: &mut Random, graph: &TaskGraph) -> Vec<Vec<TaskId>> {
    let mut waiting: Vec<usize> = graph.tasks.iter().map(|t| t.deps.len()).collect();
    let mut dependents = vec![Vec::new(); graph.tasks.len()];
    for task in &graph.tasks {
        for dep in &task.deps {
            dependents[dep.task.index()].push(task.id);
        }
    }
    let ready = graph.tasks.iter().filter(|t| t.deps.is_empty());
    let mut ready: Vec<TaskId> = ready.map(|t| t.id).collect();
    let mut order = vec![Vec::new(); graph.ranks as usize];
    while !ready.is_empty() {
        let id = ready.swap_remove(random.below(ready.len()));
        order[graph.task(id).rank.index()].push(id);
        for &next in &dependents[id.index()] {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.push(next);
            }
        }
    }
    order
}

/// A random valid plan.
pub fn plan(seed: u64, size: Size) -> Plan {
    let mut random = Random(seed);
    let graph = graph(&mut random, size);
    let order = order(&mut random, &graph);
    Plan::new(graph, "random", order, Seconds::ZERO).expect("a topological order has a timeline")
}
