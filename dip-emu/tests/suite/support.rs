use dip_core::{
    Bytes, Dep, MicrobatchId, Plan, RankId, Seconds, SegmentId, Strategy, SubMicrobatchId, Task,
    TaskGraph, TaskId, TaskKind,
};
use proptest::prelude::{Strategy as Values, any};

/// A small random number generator, good enough to shuffle.
pub struct Shuffle(u64);

impl Shuffle {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }

    /// A time without an exact binary form.
    pub fn seconds(&mut self) -> Seconds {
        Seconds(self.below(1000) as f64 / 300.0)
    }
}

/// Plans of 1 to 4 ranks and 1 to 5 microbatches with random placement, durations, messages and order. Some microbatches have
/// split weight gradients.
pub fn any_plan() -> impl Values<Value = Plan> {
    (1u32..5, 1u32..6, 1usize..5, any::<u64>()).prop_map(|(ranks, microbatches, chunks, seed)| {
        let mut shuffle = Shuffle::new(seed);
        let graph = any_graph(ranks, microbatches, chunks, &mut shuffle);
        let order = any_order(&graph, &mut shuffle);
        Plan::new(graph, "random", order, Seconds::ZERO).unwrap()
    })
}

fn any_graph(ranks: u32, microbatches: u32, chunks: usize, shuffle: &mut Shuffle) -> TaskGraph {
    let places: Vec<_> = (0..chunks).map(|_| RankId::from(shuffle.below(ranks as usize))).collect();
    let mut tasks: Vec<Task> = Vec::new();
    for k in 0..microbatches {
        let split = shuffle.below(2) == 0;
        let first = tasks.len();
        let mut push = |chunk: usize, kind, from: &[usize], shuffle: &mut Shuffle| {
            let rank = places[chunk];
            let id = tasks.len();
            let dep = |&task: &usize| {
                let same_rank = tasks[task].rank == rank;
                let comm_s = if same_rank { Seconds::ZERO } else { shuffle.seconds() };
                Dep { task: TaskId::from(task), comm_s }
            };
            let deps = from.iter().map(dep).collect();
            let bytes = shuffle.below(100) as u64;
            tasks.push(Task {
                id: TaskId::from(id),
                rank,
                kind,
                module: ["eye & <ear>", "mouth"][chunk % 2].into(),
                segment: SegmentId::from(chunk),
                microbatch: MicrobatchId(k),
                sub_microbatch: SubMicrobatchId(0),
                duration_s: shuffle.seconds(),
                activation_bytes: Bytes(if kind == TaskKind::Forward { bytes } else { 0 }),
                strategy: Strategy::keep(),
                deps,
                candidates: Vec::new(),
            });
            id
        };
        let mut last = None;
        for chunk in 0..chunks {
            last = Some(push(chunk, TaskKind::Forward, &Vec::from_iter(last), shuffle));
        }
        let mut from = None;
        for chunk in (0..chunks).rev() {
            let mut deps = vec![first + chunk];
            deps.extend(from);
            let id = push(chunk, TaskKind::Backward, &deps, shuffle);
            if split {
                push(chunk, TaskKind::Weight, &[id], shuffle);
            }
            from = Some(id);
        }
    }
    TaskGraph {
        model: "m".into(),
        cluster: "c".into(),
        ranks,
        memory_limit_bytes: vec![Bytes::UNLIMITED; ranks as usize],
        static_bytes: vec![Bytes(7); ranks as usize],
        tasks,
    }
}

/// A random topological order, split by rank.
fn any_order(graph: &TaskGraph, shuffle: &mut Shuffle) -> Vec<Vec<TaskId>> {
    let mut order = vec![Vec::new(); graph.ranks as usize];
    let mut done = vec![false; graph.tasks.len()];
    for _ in 0..graph.tasks.len() {
        let free: Vec<_> = graph
            .tasks
            .iter()
            .filter(|t| !done[t.id.index()] && t.deps.iter().all(|d| done[d.task.index()]))
            .collect();
        let task = free[shuffle.below(free.len())];
        done[task.id.index()] = true;
        order[task.rank.index()].push(task.id);
    }
    order
}
