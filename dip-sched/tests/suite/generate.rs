//! Generator graphs that look like multimodal models: several modules, sub-microbatches, segments, frozen parts, weight tasks,
//! candidates and limits.

use dip_core::{
    Bytes, Candidate, Dep, MicrobatchId, RankId, Seconds, SegmentId, Strategy, SubMicrobatchId,
    Task, TaskGraph, TaskId, TaskKind,
};

/// A small generator of random numbers (SplitMix64); equal seeds give equal graphs.
pub struct Generator(pub u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number around 1 with a long tail.
    pub fn log_normal(&mut self, sigma: f64) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (sigma * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()).exp()
    }
}

/// A module of a drawn model.
pub struct Module {
    pub name: &'static str,
    /// Modules it consumes, by their place in the list.
    pub inputs: Vec<usize>,
    pub segments: usize,
    pub trainable: bool,
}

/// What one stage costs.
#[derive(Clone)]
pub struct StageSpec {
    pub forward: f64,
    pub backward: f64,
    /// Weight gradient apart from the backward; `None` for no weight task.
    pub weight: Option<f64>,
    pub bytes: u64,
    pub candidates: Vec<(f64, f64, u64)>,
}

/// A model with its loads: `loads[microbatch][module]` has one entry a sub-microbatch.
pub struct Model {
    pub ranks: usize,
    pub modules: Vec<Module>,
    pub loads: Vec<Vec<Vec<f64>>>,
    pub comm: f64,
    /// Chunks run down and up the ranks in turn, instead of round.
    pub vee: bool,
}

impl Model {
    fn rank(&self, chunk: usize) -> usize {
        let (round, at) = (chunk / self.ranks, chunk % self.ranks);
        if self.vee && round % 2 == 1 { self.ranks - 1 - at } else { at }
    }

    /// Builds the graph; `stage` gives the cost of (module, chunk, load).
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
                        let id = (k, m, s, c);
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
                        let id = (k, m, s, c);
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

    /// Modules that have backwards: they train, or something upstream does.
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
        (k, m, s, c): (usize, usize, usize, usize),
        kind: TaskKind,
        cost: &StageSpec,
        before: &[usize],
    ) -> usize {
        let rank = self.rank(c);
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
            module: self.modules[m].name.into(),
            segment: SegmentId::from(c / self.ranks),
            microbatch: MicrobatchId::from(k),
            sub_microbatch: SubMicrobatchId::from(s),
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

/// How much memory the ranks of a drawn graph have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MemoryLimit {
    Unlimited,
    /// So many times what the largest microbatch holds in its smallest strategies.
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
        let most = held.values().copied().max().unwrap_or(0);
        graph.memory_limit_bytes[r] = Bytes(graph.static_bytes[r].0 + (most as f64 * share) as u64);
    }
}

/// Which features small random graphs have.
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
            // One backbone behind encoders side by side, or a chain of modules.
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
    // Small whole durations and sizes make many ties and tight fits; every chunk has its own weight.
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

/// Which kind of paper-size model to draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// An image encoder with log-normal load in sub-microbatches, and a language model of constant load.
    Vlm,
    /// A text encoder of constant load, and a diffusion model whose loads vary fourfold.
    T2v,
}

/// A paper-size model.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    pub kind: Kind,
    pub ranks: usize,
    pub microbatches: usize,
    /// Segments of the heavier module.
    pub segments: usize,
    pub split: bool,
    pub candidates: bool,
    /// Limit in full microbatches; 0 for none.
    pub memory: f64,
}

/// Draws a paper-size model.
pub fn paper(seed: u64, of: Paper) -> TaskGraph {
    let mut random = Generator(seed ^ 0x5eed);
    let module = |name, inputs, segments| Module { name, inputs, segments, trainable: true };
    let (first, second) = match of.kind {
        Kind::Vlm => ("vit", "lm"),
        Kind::T2v => ("lm", "dit"),
    };
    let modules = vec![module(first, vec![], 1), module(second, vec![0], of.segments)];
    let heavy = of.segments as f64;
    let loads = (0..of.microbatches)
        .map(|_| match of.kind {
            Kind::Vlm => {
                let images = ((12.0 * random.log_normal(0.9)) as usize).min(48);
                let slices = images.div_ceil(12);
                let share = |s: usize| (images * (s + 1) / slices - images * s / slices) as f64;
                vec![(0..slices).map(|s| share(s) / 12.0).collect(), vec![heavy]]
            }
            Kind::T2v => {
                let seconds = 4.0 + 12.0 * random.unit();
                let slices = 1 + (seconds / 6.0) as usize;
                let text = 0.5 + 0.5 * random.unit();
                vec![vec![text], vec![heavy * seconds / 10.0 / slices as f64; slices]]
            }
        })
        .collect();
    let model = Model { ranks: of.ranks, modules, loads, comm: 0.4, vee: false };
    let uneven: Vec<f64> = (0..2 * 8 * of.ranks).map(|_| 0.97 + 0.06 * random.unit()).collect();
    let mut graph = model.graph(|m, c, load| {
        let segments = if m == 0 { 1.0 } else { heavy };
        let base = 10.0 * load / segments * uneven[m * 8 * of.ranks + c % (8 * of.ranks)];
        let bytes = (base * 1e6) as u64;
        let backward = if of.split { 1.05 * base } else { 2.0 * base };
        StageSpec {
            forward: base,
            backward,
            weight: of.split.then_some(0.95 * base),
            bytes,
            candidates: if of.candidates {
                vec![
                    (base, backward, bytes),
                    (base, backward + 0.25 * base, bytes / 2),
                    (base, backward + base, bytes / 10),
                ]
            } else {
                vec![]
            },
        }
    });
    if of.memory > 0.0 {
        let share = if of.candidates { of.memory * 10.0 } else { of.memory };
        limit(&mut graph, MemoryLimit::Microbatches(share));
    }
    graph
}
