//! Random graphs that look like multimodal models: several modules, sub-microbatches, segments, frozen parts, weight tasks, candidates
//! and limits.

use dip_core::{
    Bytes, Candidate, Dep, MicrobatchId, RankId, Seconds, SegmentId, Strategy, SubMicrobatchId,
    Task, TaskGraph, TaskId, TaskKind,
};

/// A generator of random numbers (SplitMix64). Equal seeds give equal graphs.
pub struct Generator(pub u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A log-normal number with median 1.
    pub fn log_normal(&mut self, sigma: f64) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (sigma * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()).exp()
    }
}

/// A module of a random model.
pub struct Module {
    pub name: &'static str,
    /// The modules it consumes, by their index.
    pub inputs: Vec<usize>,
    pub segments: usize,
    pub trainable: bool,
}

/// The costs of one stage.
#[derive(Clone)]
pub struct StageSpec {
    pub forward: f64,
    pub backward: f64,
    /// The split weight gradient; `None` for no weight task.
    pub weight: Option<f64>,
    pub bytes: u64,
    /// Forward, backward and bytes of each strategy; empty for no choice.
    pub candidates: Vec<(f64, f64, u64)>,
}

/// A model with its loads: `loads[microbatch][module]` has one entry for each sub-microbatch.
pub struct Model {
    pub ranks: usize,
    pub modules: Vec<Module>,
    pub loads: Vec<Vec<Vec<f64>>>,
    pub comm: f64,
    /// True if odd segments run backwards through the ranks.
    pub vee: bool,
}

/// A stage of a random model.
#[derive(Clone, Copy)]
struct StageId {
    microbatch: usize,
    module: usize,
    slice: usize,
    chunk: usize,
}

impl Model {
    fn rank(&self, chunk: usize) -> usize {
        let (round, at) = (chunk / self.ranks, chunk % self.ranks);
        if self.vee && round % 2 == 1 { self.ranks - 1 - at } else { at }
    }

    /// Builds the graph. `stage` returns the costs for a module, a chunk and a load.
    pub fn graph(&self, mut stage: impl FnMut(usize, usize, f64) -> StageSpec) -> TaskGraph {
        let mut tasks: Vec<Task> = Vec::new();
        let trains = self.trains();
        for (k, loads) in self.loads.iter().enumerate() {
            let mut forwards: Vec<Vec<Vec<usize>>> = Vec::new();
            let mut stages: Vec<Vec<Vec<StageSpec>>> = Vec::new();
            for (m, module) in self.modules.iter().enumerate() {
                let (mut own, mut costs) = (Vec::new(), Vec::new());
                for (s, &load) in loads[m].iter().enumerate() {
                    let mut chain: Vec<usize> = Vec::new();
                    let mut cost: Vec<StageSpec> = Vec::new();
                    for c in 0..module.segments * self.ranks {
                        let before: Vec<usize> = match chain.last() {
                            Some(&last) => vec![last],
                            None => (module.inputs.iter())
                                .flat_map(|&i| {
                                    forwards[i].iter().map(|f: &Vec<usize>| f[f.len() - 1])
                                })
                                .collect(),
                        };
                        let mut of = stage(m, c, load);
                        if !trains[m] {
                            of.candidates.clear();
                        }
                        let id = StageId { microbatch: k, module: m, slice: s, chunk: c };
                        chain.push(self.push(&mut tasks, id, TaskKind::Forward, &of, &before));
                        cost.push(of);
                    }
                    own.push(chain);
                    costs.push(cost);
                }
                forwards.push(own);
                stages.push(costs);
            }
            let mut firsts: Vec<Vec<usize>> = vec![Vec::new(); self.modules.len()];
            for m in (0..self.modules.len()).rev().filter(|&m| trains[m]) {
                for s in 0..loads[m].len() {
                    let consumers = (0..self.modules.len())
                        .filter(|&other| self.modules[other].inputs.contains(&m));
                    let mut after: Vec<usize> =
                        consumers.flat_map(|other| firsts[other].iter().copied()).collect();
                    for c in (0..self.modules[m].segments * self.ranks).rev() {
                        let cost = &stages[m][s][c];
                        after.push(forwards[m][s][c]);
                        let id = StageId { microbatch: k, module: m, slice: s, chunk: c };
                        let b = self.push(&mut tasks, id, TaskKind::Backward, cost, &after);
                        if cost.weight.is_some() && self.modules[m].trainable {
                            self.push(&mut tasks, id, TaskKind::Weight, cost, &[b]);
                        }
                        after = vec![b];
                    }
                    firsts[m].extend(after);
                }
            }
        }
        TaskGraph {
            model: "drawn".into(),
            cluster: "none".into(),
            ranks: self.ranks as u32,
            memory_limit_bytes: vec![Bytes::UNLIMITED; self.ranks],
            static_bytes: vec![Bytes(7); self.ranks],
            tasks,
        }
    }

    /// The modules that have backwards: they train, or a module upstream does.
    fn trains(&self) -> Vec<bool> {
        let mut trains = vec![false; self.modules.len()];
        for (m, module) in self.modules.iter().enumerate() {
            trains[m] = module.trainable || module.inputs.iter().any(|&i| trains[i]);
        }
        trains
    }

    fn push(
        &self,
        tasks: &mut Vec<Task>,
        id: StageId,
        kind: TaskKind,
        cost: &StageSpec,
        before: &[usize],
    ) -> usize {
        let rank = self.rank(id.chunk);
        let comm = |b: &usize| if tasks[*b].rank.index() == rank { 0.0 } else { self.comm };
        let deps: Vec<Dep> = before
            .iter()
            .map(|b| Dep { task: TaskId::from(*b), comm_s: Seconds(comm(b)) })
            .collect();
        let forward = kind == TaskKind::Forward;
        let candidate = |&(f, b, bytes): &(f64, f64, u64)| Candidate {
            strategy: Strategy::keep(),
            forward_s: Seconds(f),
            backward_s: Seconds(b),
            activation_bytes: Bytes(bytes),
        };
        tasks.push(Task {
            id: TaskId::from(tasks.len()),
            rank: RankId::from(rank),
            kind,
            module: self.modules[id.module].name.into(),
            segment: SegmentId::from(id.chunk / self.ranks),
            microbatch: MicrobatchId::from(id.microbatch),
            sub_microbatch: SubMicrobatchId::from(id.slice),
            duration_s: Seconds(match kind {
                TaskKind::Forward => cost.forward,
                TaskKind::Backward => cost.backward,
                TaskKind::Weight => cost.weight.unwrap_or(0.0),
            }),
            activation_bytes: Bytes(if forward { cost.bytes } else { 0 }),
            strategy: Strategy::keep(),
            deps,
            candidates: if forward {
                cost.candidates.iter().map(candidate).collect()
            } else {
                vec![]
            },
        });
        tasks.len() - 1
    }
}

/// The memory of the ranks of a random graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MemoryLimit {
    Unlimited,
    /// A multiple of the bytes that the largest microbatch holds under its smallest strategies.
    Microbatches(f64),
}

/// Limits the memory of every rank.
pub fn limit(graph: &mut TaskGraph, memory: MemoryLimit) {
    let MemoryLimit::Microbatches(share) = memory else { return };
    for r in 0..graph.ranks as usize {
        let mut held: std::collections::BTreeMap<u32, u64> = Default::default();
        for task in graph.tasks.iter().filter(|t| t.rank.index() == r) {
            let smallest = task.candidates.iter().map(|c| c.activation_bytes.0).min();
            *held.entry(task.microbatch.0).or_default() +=
                smallest.unwrap_or(task.activation_bytes.0);
        }
        let largest = held.values().copied().max().unwrap_or(0);
        graph.memory_limit_bytes[r] =
            Bytes(graph.static_bytes[r].0 + (largest as f64 * share) as u64);
    }
}

/// Upper limits of the features of small random graphs.
#[derive(Debug, Clone, Copy)]
pub struct GraphShape {
    pub ranks: usize,
    pub microbatches: usize,
    pub modules: usize,
    pub segments: usize,
    pub slices: usize,
    pub candidates: bool,
}

/// A small random heterogeneous graph.
pub fn small(seed: u64, shape: GraphShape) -> TaskGraph {
    let mut random = Generator(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let count = 1 + random.below(shape.modules);
    let names = ["vision", "audio", "language", "diffusion"];
    let modules: Vec<Module> = (0..count)
        .map(|m| Module {
            name: names[m],
            // Parallel encoders before one backbone, or a chain of modules.
            inputs: if m == 0 {
                vec![]
            } else if m + 1 == count && random.chance(50) {
                (0..m).collect()
            } else if random.chance(50) {
                vec![m - 1]
            } else {
                vec![]
            },
            segments: 1 + random.below(shape.segments),
            trainable: m + 1 == count || random.chance(75),
        })
        .collect();
    let ranks = 2 + random.below(shape.ranks - 1);
    let microbatches = 2 + random.below(shape.microbatches - 1);
    let loads = (0..microbatches)
        .map(|_| {
            (0..count)
                .map(|m| {
                    let absent = m + 1 < count && random.chance(20);
                    let slices = if absent { 0 } else { 1 + random.below(shape.slices) };
                    let load = random.log_normal(0.6);
                    vec![load; slices]
                })
                .collect()
        })
        .collect();
    let split = random.chance(50);
    let comm = [0.0, 1.0, 3.0][random.below(3)];
    let vee = random.chance(25);
    // Small whole durations and sizes cause many ties and tight fits. Every chunk has a load of its own.
    let chunk: Vec<f64> = (0..64).map(|_| 4.0 + random.below(12) as f64).collect();
    let ratio = 1.0 + random.unit();
    let model = Model { ranks, modules, loads, comm, vee };
    model.graph(|m, c, load| {
        let base = chunk[(m * 16 + c) % 64] * load;
        let (forward, backward) = (base.round(), (base * ratio).round());
        let bytes = 1 + (base * 1.5) as u64;
        let small = (forward, (backward + forward).round(), 1 + bytes / 5);
        let middle = (forward, (backward + 0.3 * forward).round(), 1 + bytes / 2);
        StageSpec {
            forward,
            backward,
            weight: split.then(|| (base * 0.9).round()),
            bytes,
            candidates: if shape.candidates {
                vec![(forward, backward, bytes), middle, small]
            } else {
                vec![]
            },
        }
    })
}

/// Two chunks per rank. Each takes 500 s forward, 500 s backward and 500 s for the weight gradient.
pub fn two_chunks(ranks: usize, microbatches: usize, vee: bool, split: bool) -> TaskGraph {
    let module = Module { name: "m", inputs: vec![], segments: 2, trainable: true };
    let loads = vec![vec![vec![1.0]]; microbatches];
    let model = Model { ranks, modules: vec![module], loads, comm: 0.0, vee };
    let stage = StageSpec {
        forward: 500.0,
        backward: if split { 500.0 } else { 1000.0 },
        weight: split.then_some(500.0),
        bytes: 1,
        candidates: vec![],
    };
    let mut graph = model.graph(|_, _, _| stage.clone());
    if split {
        // The bytes that 1F1B holds on its first rank: `ranks` microbatches of two chunks.
        let limit = |fixed: &Bytes| Bytes(fixed.0 + 2 * ranks as u64);
        graph.memory_limit_bytes = graph.static_bytes.iter().map(limit).collect();
    }
    graph
}
